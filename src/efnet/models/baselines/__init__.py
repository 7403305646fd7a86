"""Networks of other papers, written from those papers, behind the interface of `SegmentationModel`."""

from efnet.models.baselines.base import Rival, RivalConfig
from efnet.models.baselines.cmx import CMXB0, CMXB2
from efnet.models.baselines.eaefnet import EAEFNet, EAEFNet50
from efnet.models.baselines.lasnet import LASNet
from efnet.models.baselines.mfnet import MFNet
from efnet.models.baselines.pstnet import PSTNet
from efnet.models.baselines.rtfnet import RTFNet50, RTFNet152
from efnet.models.baselines.segformer import SegFormerB0, SegFormerB2
from efnet.models.baselines.tuni import TUNIB, TUNIS

RIVALS: dict[str, type[Rival]] = {
    "cmx_b0": CMXB0,
    "cmx_b2": CMXB2,
    "eaefnet": EAEFNet,
    "eaefnet50": EAEFNet50,
    "lasnet": LASNet,
    "mfnet": MFNet,
    "pstnet": PSTNet,
    "rtfnet152": RTFNet152,
    "rtfnet50": RTFNet50,
    "segformer_b0": SegFormerB0,
    "segformer_b2": SegFormerB2,
    "tuni_b": TUNIB,
    "tuni_s": TUNIS,
}
"""Name of `create_model`: the network."""

__all__ = ["RIVALS", "Rival", "RivalConfig"]
