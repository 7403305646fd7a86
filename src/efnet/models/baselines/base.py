"""The base of the networks of other papers: their input, their sizes, and their authors' files."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.core.precision import at_least_float32
from efnet.models.base import (
    CONFIG_FILE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    InputSpec,
    SegmentationModel,
    read_config,
)
from efnet.models.config import BaselineConfig, Modality
from efnet.models.weights import LoadReport, describe_misfit, fill, read_state_dict

COUNTER = ".num_batches_tracked"  # older files lack this buffer, on which nothing depends


class Pixels(NamedTuple):
    """How a network's authors normalise images in [0, 1]: less `mean`, over `std`, channel by channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Pixels(IMAGENET_MEAN, IMAGENET_STD)
PLAIN = Pixels((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""Divided by 255 and nothing else."""
GREY = Pixels((0.449, 0.449, 0.449), (0.226, 0.226, 0.226))


class Baseline(SegmentationModel):
    """A network of another paper. A subclass names its `architecture` and implements `score_cells`.

    What its authors' code expects of images is stated in class attributes and applied inside the network:
    `rgb_pixels` and `thermal_pixels`; `blue_first` if its colours are blue, green, red.
    """

    config_type = BaselineConfig
    config: BaselineConfig
    thermal_mean: Tensor
    thermal_std: Tensor

    modalities: ClassVar[tuple[Modality, ...]] = ("rgbt",)  # the first is that of the authors' files
    rgb_pixels: ClassVar[Pixels] = IMAGENET
    thermal_pixels: ClassVar[Pixels] = IMAGENET
    blue_first: ClassVar[bool] = False
    input_size: ClassVar[tuple[int, int] | None] = None  # (H, W) to which the authors resize images
    fixed_size: ClassVar[tuple[int, int] | None] = None  # (H, W) of the only images that the network takes
    revision: ClassVar[int] = 2  # of the network behind the name; 1 were our own readings of the papers
    renames: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Patterns of names in the authors' files and our names; the first that matches a name's start counts."""
    unused: ClassVar[tuple[str, ...]] = ()
    """Patterns of names in the authors' files that their network creates and does not use for its output."""
    auxiliary: ClassVar[tuple[str, ...]] = ()
    """Modules for further outputs that only the authors' training reads. They are loaded and saved; a call of
    `train_heads` has them trained too."""

    def __init_subclass__(cls, **attributes: Any) -> None:
        """Set class attributes from the keywords of a class statement, such as the sizes of a network."""
        super().__init_subclass__()
        for name, value in attributes.items():
            setattr(cls, name, value)

    def __init__(self, config: BaselineConfig, name: str = "", classes: ClassSet | None = None) -> None:
        if config.modality not in self.modalities:
            raise InputError(
                f"`modality` {config.modality}: {name or self.architecture} exists for "
                f"{' and '.join(self.modalities)}; networks of one camera are efnet_* and segformer_*"
            )
        super().__init__(config, name or self.architecture, classes)
        self.input = InputSpec(self.input_size)
        for buffer, values in (
            ("mean", self.rgb_pixels.mean),
            ("std", self.rgb_pixels.std),
            ("thermal_mean", self.thermal_pixels.mean),
            ("thermal_std", self.thermal_pixels.std),
        ):
            # Constants of the architecture: a checkpoint need not hold them.
            self.register_buffer(
                buffer, torch.tensor(values).view(1, 3, 1, 1), persistent=not buffer.startswith("thermal")
            )
        for parameter in self.named_parameters():
            if parameter[0].startswith(self.auxiliary):
                parameter[1].requires_grad_(False)

    def normalize(self, rgb: Tensor | None, thermal: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Images in [0, 1] to what `score_cells` takes; the thermal one gets three channels (B, 3, H, W)."""
        if rgb is not None:
            rgb = (rgb.flip(1) if self.blue_first else rgb).to(self.mean.dtype)
            rgb = (rgb - self.mean) / self.std
        if thermal is not None:
            thermal = thermal.expand(-1, 3, -1, -1).to(self.mean.dtype)
            thermal = (thermal - self.thermal_mean) / self.thermal_std
        return rgb, thermal

    @classmethod
    def official_name(cls, name: str) -> str | None:
        """Return our name of a tensor in the authors' file; None if the output does not depend on it."""
        if any(re.match(pattern, name) for pattern in cls.unused):
            return None
        for pattern, ours in cls.renames:
            renamed, count = re.subn(rf"^(?:{pattern})", ours, name)
            if count:
                return renamed
        return name

    def load_official(self, path: str | os.PathLike[str]) -> LoadReport:
        """Fill the whole network from a file of its authors, as users download it.

        The state dict may be bare or under `state_dict` or `model`, its names may begin with `module.`, and
        the counters of batch normalisation may be missing. Nothing is changed if it does not fit.

        Raises:
            InputError: the file cannot be read, or is of another network, size or number of classes.
        """
        state = read_state_dict(path)
        theirs = {ours: name for name in state if (ours := self.official_name(name)) is not None}
        own = self.state_dict()
        missing = [
            name for name in own if name not in theirs and name not in _OURS and not name.endswith(COUNTER)
        ]
        surplus = [name for name in theirs if name not in own]
        values = {ours: state[name] for ours, name in theirs.items()}
        detail = describe_misfit(own, values, missing, surplus)
        if detail is not None:
            ours = detail.partition(" ")[0]
            detail = detail.replace(ours, theirs.get(ours, ours), 1)
            raise InputError(
                f"{path}: not the authors' weights of {self.name} for {self.num_classes} classes ({detail}; "
                f"{len(missing)} names are only here, {len(surplus)} only there); choose the network and the "
                "classes that they were trained for"
            )
        used = set(theirs.values())
        report = fill(self, path, values, [name for name in state if name not in used])
        fresh = (name for name in report.fresh if name not in _OURS and not name.endswith(COUNTER))
        return replace(report, fresh=tuple(fresh))

    @classmethod
    def from_official(
        cls, path: str | os.PathLike[str], classes: ClassSet | None = None, modality: Modality | None = None
    ) -> tuple[Self, LoadReport]:
        """Build the network, in evaluation mode, from a file of its authors; also say what was loaded.

        `classes` names the classes of the data set that it was trained for; by default they are numbered, as
        many as the file has. Raises InputError as `load_official` does.
        """
        modality = modality or cls.modalities[0]
        count = len(classes) if classes is not None else cls._count_classes(path, modality)
        model = cls(BaselineConfig(count, modality), cls.architecture, classes)
        report = model.load_official(path)
        model.training_summary = {"source": f"the authors' weights, {Path(path).name}"}
        return model.eval(), report

    @classmethod
    def _count_classes(cls, path: str | os.PathLike[str], modality: Modality) -> int:
        """Read the number of classes off the first tensor that depends on it."""
        with torch.device("meta"):
            two, three = (cls(BaselineConfig(count, modality)).state_dict() for count in (2, 3))
        for name, value in read_state_dict(path).items():
            ours = cls.official_name(name)
            if ours in two and two[ours].shape != three[ours].shape and value.ndim == two[ours].ndim:
                for size, first, second in zip(value.shape, two[ours].shape, three[ours].shape, strict=True):
                    if first != second:
                        return int(2 + (size - first) // (second - first))
        raise InputError(f"{path}: not weights of {cls.architecture}: no classifier of it is in the file")

    def describe(self) -> dict[str, Any]:
        """Return the contents of `config.json`."""
        return super().describe() | {"revision": self.revision}

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Self:
        """Read a checkpoint; raises InputError also where its name meant another network then."""
        values = read_config(Path(folder))
        if values.get("architecture") == cls.architecture and values.get("revision", 1) != cls.revision:
            raise InputError(
                f"{Path(folder) / CONFIG_FILE}: a checkpoint of an earlier {cls.architecture}, another "
                "network than its authors' which now has the name; train it again, or use the version of "
                f"efnet that wrote it ({values.get('efnet_version')})"
            )
        return super().read(folder)


_OURS = ("mean", "std")
"""Entries of our state that no file of others has."""


class PaddedBaseline(Baseline):
    """A network whose maps must halve evenly: images of any size are padded, and their logits cropped.

    A subclass implements `score_padded`, which gets sides that are multiples of `stride`.
    """

    stride: ClassVar[int] = 32

    def score_padded(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images (B, 3, H', W'), None where not used, to logits on that or a coarser grid."""
        raise NotImplementedError

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images (B, 3, H, W) to logits (B, K, H, W)."""
        image = rgb if rgb is not None else thermal
        assert image is not None
        height, width = image.shape[2:]
        whole = (self._round_up(height), self._round_up(width))
        border = (0, whole[1] - width, 0, whole[0] - height)
        # The last row and column are repeated: a border of zeros would itself be an edge.
        padded = [
            images if images is None else F.pad(images, border, "replicate") for images in (rgb, thermal)
        ]
        logits = at_least_float32(self.score_padded(*padded))
        if logits.shape[2:] != whole:
            logits = F.interpolate(logits, whole, mode="bilinear", align_corners=False)
        # This crop copies. A slice would be contiguous or not depending on the size, which would bind an
        # exported program to sizes that need no padding.
        return F.pad(logits, [-side for side in border])

    def _round_up(self, side: int) -> int:
        # Written as a product, so that an exporter sees that it halves evenly.
        return (side + self.stride - 1) // self.stride * self.stride


class HeadedBaseline(PaddedBaseline):
    """A network with further outputs, which its authors train and do not use afterwards."""

    keep_heads = False  # whether a pass in training keeps all outputs for `take_heads`

    def train_heads(self) -> None:
        """Train the further outputs too: compute them in training, and let their parameters change."""
        self.keep_heads = True
        self._heads: dict[str, Tensor] = {}
        for name, parameter in self.named_parameters():
            if name.startswith(self.auxiliary):
                parameter.requires_grad_(True)

    def take_heads(self, names: Sequence[str], size: Sequence[int]) -> dict[str, Tensor]:
        """Return and forget outputs of the last pass in training, float32 (B, C, H, W) of the images."""
        heads, self._heads = self._heads, {}
        return {name: at_least_float32(heads[name])[..., : size[0], : size[1]] for name in names}

    def score_all(self, rgb: Tensor, thermal: Tensor, auxiliary: bool) -> dict[str, Tensor]:
        """Normalised images (B, 3, H', W') to `logits`, and with `auxiliary` to the other outputs by name."""
        raise NotImplementedError

    def score_padded(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits."""
        assert rgb is not None
        assert thermal is not None
        keeps = self.keep_heads and self.training
        outputs = self.score_all(rgb, thermal, auxiliary=keeps)
        if keeps:
            self._heads = outputs
        return outputs["logits"]


Kernel = int | tuple[int, int]


def conv(
    in_channels: int,
    out_channels: int,
    kernel: Kernel = 3,
    *,
    bias: bool = True,
    stride: int = 1,
    dilation: Kernel = 1,
    groups: int = 1,
) -> nn.Conv2d:
    """Make a convolution that keeps the size, or divides it by `stride`."""
    kernels, dilations = (
        value if isinstance(value, tuple) else (value, value) for value in (kernel, dilation)
    )
    padding = (dilations[0] * (kernels[0] // 2), dilations[1] * (kernels[1] // 2))
    return nn.Conv2d(in_channels, out_channels, kernels, stride, padding, dilations, groups=groups, bias=bias)


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: Kernel = 3,
    activation: nn.Module | None = None,
    names: tuple[str, str] = ("conv", "bn"),
    **options: Any,
) -> nn.Sequential:
    """Make a convolution, without bias by default, batch normalisation, and an activation if one is given.

    `names` are those of the first two within the authors' files.
    """
    parts: list[tuple[str, nn.Module]] = [
        (names[0], conv(in_channels, out_channels, kernel, **{"bias": False, **options})),
        (names[1], nn.BatchNorm2d(out_channels)),
    ]
    if activation is not None:
        parts.append(("activation" if names[0] != "0" else "2", activation))
    return nn.Sequential(OrderedDict(parts))


def enlarge_by(features: Tensor, factor: int, align_corners: bool = True) -> Tensor:
    """Bilinear enlargement of (B, C, h, w) by a whole factor."""
    if factor == 1:
        return features
    return F.interpolate(features, scale_factor=float(factor), mode="bilinear", align_corners=align_corners)
