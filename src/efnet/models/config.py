"""Which network, as typed values: the presets of TCFormer, and EFNet with its ablations.

`NetworkOptions` is the one list of a network's options: `create_model`, the training configuration, the
command line and the paper's tables read their names and defaults from it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, Self, get_args

from efnet.core.classes import IGNORE_INDEX
from efnet.core.errors import InputError

Fusion = Literal["mif", "add", "cat"]
Position = Literal["none", "pe", "pce"]
Decoder = Literal["mfad", "mlp", "deeplab", "pyramid"]
Modality = Literal["rgbt", "rgb", "thermal"]
Merging = Literal["dbtc", "pool"]
Distance = Literal["additive", "balanced"]
Density = Literal["itself", "others"]
Unit = Literal["pitch", "image"]
Enlargement = Literal["token", "bilinear"]
EdgeDecoder = Literal["pyramid", "mlp", "mfad"]
Trunk = Literal["lite0", "lite1", "lite2"]


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def require_drop_path(value: object) -> None:
    """Raise InputError unless `value` is a chance below 1."""
    if not _is_share(value) or value == 1:
        raise InputError(f"drop_path must be at least 0 and below 1, got {value!r}")


def _is_whole(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_between(value: object, least: float, most: float) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and least <= float(value) <= most


def _is_share(value: object) -> bool:
    return _is_between(value, 0, 1)


@dataclass(frozen=True)
class BackboneConfig:
    """The TCFormer backbone (arXiv 2204.08680, table 1). Tuples hold one value per stage.

    Raises:
        InputError: a value is out of its range, or two of them do not go together.
    """

    depths: tuple[int, int, int, int]
    """Transformer blocks."""
    widths: tuple[int, int, int, int] = (64, 128, 320, 512)
    """Channels of a token; a multiple of the heads."""
    heads: tuple[int, int, int, int] = (1, 2, 5, 8)
    """Attention heads."""
    mlp_ratios: tuple[int, int, int, int] = (8, 8, 4, 4)
    """Hidden width of the feed-forward part over the width."""
    reductions: tuple[int, int, int, int] = (8, 4, 2, 1)
    """Side of the patches that make one key and value in attention; the map of a 32-pixel image holds one."""
    neighbors: int = 5
    """k of the density (eq. 2)."""
    keep: float = 0.25
    """Share of the tokens that each clustering keeps."""
    drop_path: float = 0.0
    """Chance to skip the last block's residuals in training; rises linearly from 0 at the first."""

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            values = getattr(self, name)
            whole = isinstance(values, list | tuple) and len(values) == 4
            if not whole or not all(_is_whole(value, 1, most) for value in values):
                raise InputError(f"{name} must be four whole numbers from 1 to {most}, got {values!r}")
            object.__setattr__(self, name, tuple(values))
        for stage, (width, heads) in enumerate(zip(self.widths, self.heads, strict=True), 1):
            if width % heads:
                raise InputError(f"heads: {heads} do not divide the width {width} of stage {stage}")
        for stage, (reduction, most) in enumerate(zip(self.reductions, _SMALLEST_MAPS, strict=True), 1):
            if reduction > most:
                raise InputError(
                    f"reductions: {reduction} in stage {stage}, where the map of a 32-pixel image has {most} "
                    f"cells a side; give at most {most}"
                )
        if not _is_whole(self.neighbors, 1, 1000):
            raise InputError(f"neighbors must be a whole number from 1 to 1000, got {self.neighbors!r}")
        if not _is_between(self.keep, _LEAST_KEEP, 1):
            raise InputError(f"keep must be from {_LEAST_KEEP:.0e} to 1, got {self.keep!r}")
        require_drop_path(self.drop_path)


_MOST = {"depths": 200, "widths": 8192, "heads": 256, "mlp_ratios": 64, "reductions": 64}
"""Far beyond any network of this kind: more means a damaged file."""

_SMALLEST_MAPS = (8, 4, 2, 1)
"""Cells a side of each stage's map of a 32-pixel image, the smallest that networks take."""

_LEAST_KEEP = 1e-4
"""The share is rounded to a fraction whose denominator is at most 2^16."""

BACKBONES: dict[str, BackboneConfig] = {
    "tiny": BackboneConfig((2, 2, 2, 2), (32, 64, 128, 192), (1, 2, 4, 6), (4, 4, 4, 4)),
    "light": BackboneConfig((2, 2, 2, 2)),
    "base": BackboneConfig((3, 4, 6, 3)),
    "large": BackboneConfig((3, 8, 27, 3)),
}


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Options of a network: the paper's tables IV to VII, and ours; raises InputError for wrong values."""

    fusion: Fusion = "mif"
    """Table IV, how the two stage-1 maps become one: mif, add or cat."""
    position: Position = "pce"
    """Table V, what the spatial distance of a clustering is measured on: none, pe or pce."""
    tau: tuple[float, float, float] = (0.3, 0.7, 1.0)
    """Table VI: balance of semantic and spatial distance in the three clusterings (eq. 1)."""
    decoder: Decoder | None = None
    """Table VII, from the four stages to class scores: mfad, mlp or deeplab; of the edge presets pyramid,
    mlp or mfad. null: the first of these."""
    modality: Modality = "rgbt"
    """Which images the network uses: rgbt, rgb or thermal; with one there is nothing to fuse."""
    merging: Merging = "dbtc"
    """How tokens become fewer: dbtc, or pool for 2x2 average pooling (ours; ignores position and tau)."""
    distance: Distance = "additive"
    """Eq. 1: additive, semantic + (1 - tau) spatial; or balanced, tau semantic + (1 - tau) spatial."""
    density: Density = "itself"
    """Eq. 2, whether the token itself is one of its k neighbours: itself, or others for the k others."""
    unit: Unit = "pitch"
    """Unit of PCE's coordinates: pitch, of evenly spread clusters; or image, its longer side."""
    enlargement: Enlargement = "token"
    """Eq. 6: token, each cell reads its token; or bilinear, each stage's map is enlarged."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if name != "decoder" or self.decoder is not None:
                require_choice(name, getattr(self, name), choices)
        if not isinstance(self.tau, list | tuple) or len(self.tau) != 3 or not all(map(_is_share, self.tau)):
            raise InputError(f"tau must be three numbers from 0 to 1, got {self.tau!r}")
        object.__setattr__(self, "tau", tuple(self.tau))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The options, in their order."""
        return tuple(field.name for field in dataclasses.fields(NetworkOptions))

    def changed(self) -> dict[str, Any]:
        """The options that differ from the paper's full model."""
        full = NetworkOptions(decoder="mfad")
        values = {name: getattr(self, name) for name in self.names()}
        return {name: value for name, value in values.items() if value not in (None, getattr(full, name))}


@dataclass(frozen=True)
class ModelConfig:
    """The common part of all networks' configurations."""

    @property
    def num_classes(self) -> int:
        """K."""
        raise NotImplementedError

    @property
    def modality(self) -> Modality:
        """Which images the network uses."""
        raise NotImplementedError

    @property
    def least_parameters(self) -> int:
        """A lower bound on the number of weights: a filter for each class."""
        return self.num_classes

    def require_valid(self) -> None:
        """Raise InputError unless `num_classes` and `modality` are what a network can have."""
        require_choice("modality", self.modality, get_args(Modality))
        if not _is_whole(self.num_classes, 2, IGNORE_INDEX):
            raise InputError(f"num_classes must be at least 2 and at most 255, got {self.num_classes!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_dict` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote; raises ValueError for an unknown key or a value out of its range."""
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"not a network's configuration: {error}") from error


@dataclass(frozen=True)
class BaselineConfig(ModelConfig):
    """A network as its paper has it, for K classes; raises InputError for a value out of its range."""

    num_classes: int = 9
    modality: Modality = "rgbt"
    """Both images, or one alone: then the other one's branch does not exist and nothing is fused."""

    def __post_init__(self) -> None:
        self.require_valid()


@dataclass(frozen=True)
class EdgeConfig(ModelConfig):
    """EFNet on an EfficientNet-Lite trunk; raises InputError for a value out of its range."""

    trunk: Trunk = "lite0"
    num_classes: int = 9
    fusion: Fusion = "mif"
    """How the two maps at stride 4 become one: mif, add or cat."""
    decoder: EdgeDecoder | None = None
    """From the four maps to class scores: pyramid (also for None), mlp or mfad."""
    modality: Modality = "rgbt"

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoder", self.decoder or "pyramid")
        require_choice("trunk", self.trunk, get_args(Trunk))
        require_choice("fusion", self.fusion, get_args(Fusion))
        require_choice("decoder", self.decoder, get_args(EdgeDecoder))
        self.require_valid()


@dataclass(frozen=True)
class EFNetConfig(NetworkOptions, ModelConfig):
    """EFNet: a backbone, the number of classes, and the options; `decoder` is never None."""

    backbone: BackboneConfig
    num_classes: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "decoder", self.decoder or "mfad")
        require_choice("decoder", self.decoder, ("mfad", "mlp", "deeplab"))
        # Without effect these would only seem to have been tried.
        for name, default, other, needed in (
            ("enlargement", "token", "decoder", "mfad"),
            ("unit", "pitch", "position", "pce"),
            *(
                (name, getattr(EFNetConfig, name), "merging", "dbtc")
                for name in ("distance", "density", "unit")
            ),
        ):
            given, found = getattr(self, name), getattr(self, other)
            if given != default and found != needed:
                raise InputError(f"{name} {given} needs {other} {needed}, got {other} {found}")
        self.require_valid()

    @property
    def least_parameters(self) -> int:
        """A lower bound on the number of weights: those of the feed-forward layers."""
        backbone = self.backbone
        sizes = zip(backbone.depths, backbone.widths, backbone.mlp_ratios, strict=True)
        return sum(2 * depth * ratio * width**2 for depth, width, ratio in sizes)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote; raises ValueError as `ModelConfig.from_dict` does."""
        try:
            return super().from_dict({**values, "backbone": BackboneConfig(**values["backbone"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an EFNet configuration: {error}") from error


_CHOICES: dict[str, tuple[str, ...]] = {
    "fusion": get_args(Fusion),
    "position": get_args(Position),
    "decoder": get_args(Decoder),
    "modality": get_args(Modality),
    "merging": get_args(Merging),
    "distance": get_args(Distance),
    "density": get_args(Density),
    "unit": get_args(Unit),
    "enlargement": get_args(Enlargement),
}
