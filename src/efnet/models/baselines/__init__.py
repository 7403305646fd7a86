"""Networks of other papers as in their authors' code, behind the interface of `SegmentationModel`.

They are written from specifications of that code, not from the code itself.
"""

from efnet.models.baselines.base import Baseline
from efnet.models.baselines.cmnext import CMNeXtB2, CMNeXtB4
from efnet.models.baselines.cmx import CMXB0, CMXB2, CMXB4
from efnet.models.baselines.eaefnet import EAEFNet, EAEFNet50, EAEFNetPST900
from efnet.models.baselines.egfnet import EGFNet
from efnet.models.baselines.feanet import FEANet
from efnet.models.baselines.gmnet import GMNet
from efnet.models.baselines.lasnet import LASNet
from efnet.models.baselines.mdrnet import MDRNet
from efnet.models.baselines.mfnet import MFNet
from efnet.models.baselines.mmsmcnet import MMSMCNet
from efnet.models.baselines.pstnet import PSTNet
from efnet.models.baselines.rsfnet import RSFNet
from efnet.models.baselines.rtfnet import RTFNet50, RTFNet152
from efnet.models.baselines.segformer import SegFormerB0, SegFormerB2
from efnet.models.baselines.sfafma import SFAFMA
from efnet.models.baselines.sgfnet import SGFNet
from efnet.models.baselines.tuni import TUNIB, TUNIS, TUNIS1, TUNIT

_CONVOLUTIONAL = (
    *(EAEFNet, EAEFNet50, EAEFNetPST900, EGFNet, FEANet, GMNet, LASNet, MDRNet, MFNet, PSTNet),
    *(RSFNet, RTFNet50, RTFNet152, SFAFMA, SGFNet),
)
_TRANSFORMERS = (
    *(CMNeXtB2, CMNeXtB4, CMXB0, CMXB2, CMXB4, MMSMCNet, SegFormerB0, SegFormerB2),
    *(TUNIB, TUNIS, TUNIS1, TUNIT),
)

BASELINES: dict[str, type[Baseline]] = {
    network.architecture: network
    for network in sorted((*_CONVOLUTIONAL, *_TRANSFORMERS), key=lambda network: network.architecture)
}
"""The networks by the name that `create_model` takes."""

__all__ = ["BASELINES", "Baseline"]
