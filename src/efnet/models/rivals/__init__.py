"""Networks of other papers, written from those papers, behind the interface of `SegmentationModel`."""

from efnet.models.rivals.base import Rival, RivalConfig

RIVALS: dict[str, type[Rival]] = {}
"""Name of `create_model`: the network."""

__all__ = ["RIVALS", "Rival", "RivalConfig"]
