"""What a network is made of, as typed values: presets of TCFormer and the ablations of EFNet."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, Protocol, Self, get_args

Fusion = Literal["mif", "add", "cat"]
Position = Literal["none", "pe", "pce"]
Decoder = Literal["mfad", "mlp", "deeplab"]
Modality = Literal["rgbt", "rgb", "thermal"]
Merging = Literal["dbtc", "pool"]


class ModelConfig(Protocol):
    """What the configuration of any network tells, whatever else it holds."""

    @property
    def num_classes(self) -> int:
        """K."""

    @property
    def modality(self) -> Modality:
        """Which images the network looks at."""

    @property
    def least_parameters(self) -> int:
        """Weights that the network has at least."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote; ValueError: it did not."""


@dataclass(frozen=True)
class BackboneConfig:
    """The TCFormer backbone (arXiv 2204.08680, table 1). Tuples hold one value per stage."""

    depths: tuple[int, int, int, int]
    """Transformer blocks."""
    widths: tuple[int, int, int, int] = (64, 128, 320, 512)
    """Channels of a token."""
    heads: tuple[int, int, int, int] = (1, 2, 5, 8)
    """Attention heads."""
    mlp_ratios: tuple[int, int, int, int] = (8, 8, 4, 4)
    """Hidden width of the feed-forward part over the width."""
    reductions: tuple[int, int, int, int] = (8, 4, 2, 1)
    """Side of the patches that make one key and value in attention."""
    neighbors: int = 5
    """k of the density (eq. 2)."""
    keep: float = 0.25
    """Share of the tokens that each clustering keeps."""
    drop_path: float = 0.0
    """Chance to skip the last block's residuals in training; rises linearly from 0 at the first."""

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            values = getattr(self, name)
            whole = len(values) == 4 and all(type(value) is int for value in values)
            if not whole or not all(1 <= value <= most for value in values):
                raise ValueError(f"{name} must be four whole numbers from 1 to {most}, got {values}")
        if type(self.neighbors) is not int or not 1 <= self.neighbors <= 1000:
            raise ValueError(f"neighbors must be a whole number from 1 to 1000, got {self.neighbors}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must be above 0 and at most 1, got {self.keep}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path must be at least 0 and below 1, got {self.drop_path}")


_MOST = {"depths": 200, "widths": 8192, "heads": 256, "mlp_ratios": 64, "reductions": 64}
"""Far beyond any network of this kind; more is a damaged file."""

BACKBONES: dict[str, BackboneConfig] = {
    "tiny": BackboneConfig((2, 2, 2, 2), (32, 64, 128, 192), (1, 2, 4, 6), (4, 4, 4, 4)),
    "light": BackboneConfig((2, 2, 2, 2)),
    "base": BackboneConfig((3, 4, 6, 3)),
    "large": BackboneConfig((3, 8, 27, 3)),
}


@dataclass(frozen=True)
class EFNetConfig:
    """EFNet and each row of its ablation tables IV to VII."""

    backbone: BackboneConfig
    num_classes: int = 9
    fusion: Fusion = "mif"
    """How the two stage-1 maps become one (table IV)."""
    position: Position = "pce"
    """What the spatial distance of a clustering is measured on (table V)."""
    tau: tuple[float, float, float] = (0.3, 0.7, 1.0)
    """Balance of semantic and spatial distance in the three clusterings (eq. 1, table VI)."""
    decoder: Decoder = "mfad"
    """From the four stages to class scores (table VII)."""
    modality: Modality = "rgbt"
    """Which images the network looks at: both, or one alone (then there is nothing to fuse)."""
    merging: Merging = "dbtc"
    """How a stage's tokens become a quarter as many: clustering, or 2x2 average pooling (ours; position and
    tau have no say then)."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if type(self.num_classes) is not int or self.num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {self.num_classes}")
        if len(self.tau) != 3 or not all(_is_share(tau) for tau in self.tau):
            raise ValueError(f"tau must be three numbers from 0 to 1, got {self.tau}")

    @property
    def least_parameters(self) -> int:
        """The feed-forward layers alone."""
        backbone = self.backbone
        sizes = zip(backbone.depths, backbone.widths, backbone.mlp_ratios, strict=True)
        return sum(2 * depth * ratio * width**2 for depth, width, ratio in sizes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EFNetConfig:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: an unknown key or a value out of its range.
        """
        try:
            backbone = BackboneConfig(**_with_tuples(values["backbone"]))
            rest = {key: value for key, value in values.items() if key != "backbone"}
            return cls(backbone=backbone, **_with_tuples(rest))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an EFNet configuration: {error}") from error


_CHOICES = {
    "fusion": get_args(Fusion),
    "position": get_args(Position),
    "decoder": get_args(Decoder),
    "modality": get_args(Modality),
    "merging": get_args(Merging),
}


def _is_share(value: object) -> bool:
    return isinstance(value, Real) and 0 <= float(value) <= 1


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples: its lists become them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
