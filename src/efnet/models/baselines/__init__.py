"""Networks of other papers, written from those papers, behind the interface of `SegmentationModel`."""

from efnet.models.baselines.base import Baseline
from efnet.models.baselines.cmx import CMXB0, CMXB2
from efnet.models.baselines.lasnet import LASNet
from efnet.models.baselines.mfnet import MFNet
from efnet.models.baselines.pstnet import PSTNet
from efnet.models.baselines.segformer import SegFormerB0, SegFormerB2
from efnet.models.baselines.tuni import TUNIB, TUNIS
from efnet.models.baselines.two_resnets import EAEFNet, EAEFNet50, RTFNet50, RTFNet152

_CONVOLUTIONAL = (EAEFNet, EAEFNet50, LASNet, MFNet, PSTNet, RTFNet50, RTFNet152)
_TRANSFORMERS = (CMXB0, CMXB2, SegFormerB0, SegFormerB2, TUNIB, TUNIS)

BASELINES: dict[str, type[Baseline]] = {
    network.architecture: network
    for network in sorted((*_CONVOLUTIONAL, *_TRANSFORMERS), key=lambda network: network.architecture)
}
"""The networks by the name that `create_model` takes."""

__all__ = ["BASELINES", "Baseline"]
