"""Preprocessing: images as users hold them (PIL, numpy, a path) become the arrays and tensors of a network.

A pair is read, checked, aligned, and resized. Whatever is wrong with an image is found here, on the host, so
that no error has to come back from the device.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from efnet.alignment.homography import Homography
from efnet.core.errors import InputError
from efnet.data.false_color import is_palette
from efnet.data.images import (
    Raster,
    ThermalScale,
    grey_of_three,
    open_image,
    places,
    read_header,
    scale_thermal,
    to_rgb,
    to_rgbt,
    to_thermal,
)
from efnet.inference.missing_cameras import (
    Camera,
    MissingPolicy,
    blank_rgb,
    blank_thermal,
    find_dead,
    refuse_missing,
)
from efnet.inference.postprocess import thermal_pixels
from efnet.models.base import MIN_SIZE
from efnet.models.config import Modality

if TYPE_CHECKING:
    from efnet.inference.tiles import Tiling

Value = TypeVar("Value", np.uint8, np.float32)

ImageLike = Image.Image | NDArray[Any] | str | os.PathLike[str] | Raster
"""A PIL image, a numpy array with channels last, the path of an image file, or what `open_image` gives."""

ASPECT_TOLERANCE = 0.01
"""Relative difference of aspect ratio up to which a thermal image is stretched onto its RGB image."""


def as_rgb(image: ImageLike) -> NDArray[np.uint8]:
    """Turn a path, an 8-bit PIL image or an array (H, W, 3), uint8 or float in [0, 1], into uint8 (H, W, 3).

    A fourth channel is dropped. Raises InputError: wrong type, rank, channels, dtype or range, or values that
    are not finite.
    """
    if isinstance(image, (str, os.PathLike)):
        image = open_image(os.fspath(image))
    if isinstance(image, Raster):
        return to_rgb(image)
    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):
            raise InputError(f"rgb image has mode {image.mode}; convert it to 8-bit colour first")
        image = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    array = _array(image, "rgb")
    if array.ndim == 3 and array.shape[2] == 4:
        array = array[..., :3]  # as in files: opacity, or a thermal image that is also given apart
    if array.ndim != 3 or array.shape[2] != 3:
        raise InputError(f"rgb array has shape {array.shape}; expected (height, width, 3){_hint(array)}")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise InputError(f"rgb array is {array.dtype}; pass uint8, or float in [0, 1]")
    _check_finite(array, "rgb")
    low, high = float(array.min()), float(array.max())
    if low < 0.0 or high > 1.0:
        raise InputError(
            f"rgb array is {array.dtype} with values from {low:g} to {high:g}; "
            "scale it to [0, 1] or pass uint8"
        )
    rounded: NDArray[np.uint8] = np.rint(array * 255.0).astype(np.uint8)
    return rounded


def as_thermal(image: ImageLike, scale: ThermalScale) -> NDArray[np.float32]:
    """Turn a thermal image into float32 (H, W) in [0, 1].

    It is a path, a PIL image, or an array (H, W), (H, W, 1), or (H, W, 3) with three equal channels. Raw
    values are scaled as `efnet.data.images` describes; under `auto` a float array within [0, 1] counts as
    scaled already. Raises InputError: wrong type, rank, channels or dtype, or values that are not finite.
    """
    if isinstance(image, (str, os.PathLike)):
        image = open_image(os.fspath(image))
    if isinstance(image, Raster):
        return to_thermal(image, scale)
    from_array = isinstance(image, np.ndarray)
    if isinstance(image, Image.Image):
        image = ImageOps.exif_transpose(image)
        if image.mode not in ("L", "I", "F") and not image.mode.startswith("I;16"):
            image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
        image = np.asarray(image)
    array = _array(image, "thermal")
    if isinstance(scale, str) and is_palette(scale):
        return places(array, scale, "thermal image").values.astype(np.float32) / np.float32(255)
    if array.ndim == 3:
        array = _single_channel(array)
    if array.ndim != 2:
        raise InputError(f"thermal array has shape {array.shape}; expected (height, width){_hint(array)}")
    if array.dtype.kind not in "uif":
        raise InputError(f"thermal array is {array.dtype}; pass uint8, uint16 or float")
    if array.dtype.kind == "f":
        _check_finite(array, "thermal")
        if from_array and scale == "auto" and float(array.min()) >= 0.0 and float(array.max()) <= 1.0:
            return array.astype(np.float32)
    return scale_thermal(array, scale)


def as_rgbt(image: ImageLike, scale: ThermalScale) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Split an image of four channels, thermal last; raises InputError as `as_rgb` and `as_thermal` do."""
    if isinstance(image, (str, os.PathLike)):
        image = open_image(os.fspath(image))
    if isinstance(image, Raster):
        return to_rgbt(image, scale)
    array = _array(np.asarray(image) if isinstance(image, Image.Image) else image, "rgbt")
    if array.ndim != 3 or array.shape[2] != 4:
        raise InputError(
            f"no thermal image given and the first has shape {array.shape}, not (height, width, 4); "
            "pass both images, or one whose fourth channel is thermal"
        )
    return as_rgb(array[..., :3]), as_thermal(array[..., 3], scale)


def _has_four_channels(image: ImageLike) -> bool:
    if isinstance(image, (str, os.PathLike)):
        return read_header(os.fspath(image)).four_channels
    if isinstance(image, Image.Image):
        return image.mode == "RGBA"
    if isinstance(image, Raster):
        return image.header.four_channels
    return isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 4


@dataclass(frozen=True, eq=False)
class Prepared:
    """One pair, checked and resized: what the network takes, still on the host."""

    rgb: NDArray[np.uint8] | None  # uint8 (h, w, 3) at the network's size, or None for a thermal-only network
    thermal: NDArray[np.float32] | None  # (h, w) in [0, 1], or None for an RGB-only network
    size: tuple[int, int]  # (H, W) of the image given, and so of the prediction
    original: NDArray[np.uint8]  # (H, W, 3) for overlays: the RGB image given, else the thermal one as grey
    missing: Mapping[Camera, str] = field(default_factory=dict)  # why an image is unusable, by camera
    name: str = ""  # of the pair, for messages; empty: it has none

    @property
    def network_size(self) -> tuple[int, int]:
        """(h, w) that the network sees."""
        image = self.rgb if self.rgb is not None else self.thermal
        assert image is not None
        return image.shape[0], image.shape[1]


def as_tensors(pairs: Sequence[Prepared], device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Stack pairs of one size: (B, 3, h, w) and (B, 1, h, w) in [0, 1] on the device; None where not used."""
    rgb = [pair.rgb for pair in pairs if pair.rgb is not None]
    thermal = [pair.thermal for pair in pairs if pair.thermal is not None]
    # 8-bit to the device, float there: a quarter of the transfer. Contiguous, as in training: convolutions
    # choose their algorithm, and so their rounding, by the order in memory.
    pixels = torch.from_numpy(np.stack(rgb)).to(device).permute(0, 3, 1, 2) if rgb else None
    return (
        None if pixels is None else pixels.contiguous().float().div(255.0),
        torch.from_numpy(np.stack(thermal)).to(device)[:, None] if thermal else None,
    )


def resize(image: NDArray[Value], size: tuple[int, int]) -> NDArray[Value]:
    """Resize uint8 (H, W, 3) or float32 (H, W) to `size` = (h, w), bilinear with antialiasing."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def _array(image: object, what: str) -> NDArray[Any]:
    if not isinstance(image, np.ndarray):
        kind = type(image).__name__
        raise InputError(f"{what} is a {kind}; pass a path, a PIL image or a numpy array (channels last)")
    if image.size == 0:
        raise InputError(f"{what} array of shape {image.shape} is empty")
    return image


def _single_channel(array: NDArray[Any]) -> NDArray[Any]:
    """The one channel that (H, W, 1) or (H, W, 3) with equal channels stands for."""
    if array.shape[2] == 1:
        return array[..., 0]
    if array.shape[2] != 3:
        raise InputError(f"thermal array has shape {array.shape}; expected (height, width){_hint(array)}")
    if array.dtype == np.uint8:
        return grey_of_three(array, "thermal image")
    if not (array == array[..., :1]).all():
        raise InputError(
            "thermal array has three different channels (a false-colour picture, or the RGB image in its "
            "place); pass the thermal values"
        )
    return array[..., 0]


def _check_finite(array: NDArray[Any], what: str) -> None:
    if not np.isfinite(array).all():
        count = int(np.count_nonzero(~np.isfinite(array)))
        raise InputError(
            f"{what} array has {count} value{'s' if count != 1 else ''} that are NaN or infinite; "
            "replace them (np.nan_to_num) first"
        )


def _hint(array: NDArray[Any]) -> str:
    """A remedy for the usual misfits: channels first, or a batch."""
    if array.ndim == 4:
        return "; for several images use predictor.batch"
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        return "; move the channels last: array.transpose(1, 2, 0)"
    return ""


def _read_pair(
    rgb: ImageLike | None, thermal: ImageLike | None, modality: Modality, scale: ThermalScale
) -> tuple[NDArray[np.uint8] | None, NDArray[np.float32] | None]:
    """The images that a model uses, as arrays; an image it does not use is not even read."""
    if modality == "thermal":
        if thermal is None and rgb is not None and _has_four_channels(rgb):
            return None, as_rgbt(rgb, scale)[1]
        if thermal is None:
            raise InputError("the thermal image is missing, and this model segments thermal images")
        return None, as_thermal(thermal, scale)
    if rgb is None:
        raise InputError("the RGB image is missing, and this model needs it")
    if modality == "rgb":
        return as_rgb(rgb), None
    if thermal is None:
        return as_rgbt(rgb, scale)
    return as_rgb(rgb), as_thermal(thermal, scale)


@dataclass(eq=False)
class Preparation:
    """How pairs are brought to one network.

    Attributes:
        modality: which images it looks at.
        thermal_scale: how raw thermal values become [0, 1].
        size: (h, w) that it sees; None: every image's own.
        tiling: cut images into tiles, at their own size whatever `size` is; None: do not.
        homography: maps thermal images onto the colour camera's view; None: they are registered.
        missing: what is done about an image that shows nothing (`efnet.inference.missing_cameras`).
        spared: cameras without which the network was trained to go on. Their dead images are replaced with
            grey; those of other cameras are used as they are.
    """

    modality: Modality
    thermal_scale: ThermalScale = "auto"
    size: tuple[int, int] | None = None
    tiling: Tiling | None = None
    homography: Homography | None = None
    missing: MissingPolicy = "ignore"
    spared: frozenset[Camera] = frozenset()

    def prepare(
        self,
        rgb: ImageLike | None,
        thermal: ImageLike | None = None,
        absent: Mapping[Camera, str] | None = None,
    ) -> Prepared:
        """Read, check, scale and resize one pair; no device is touched, so threads may do it ahead.

        A model of both cameras sees grey in place of an image that `absent` names, with the reason. Images
        and errors are those of a call of `Predictor`.
        """
        missing = dict(absent or {}) if self.modality == "rgbt" else {}
        refuse_missing(missing, self.missing)
        if not missing:
            return self.fit(*_read_pair(rgb, thermal, self.modality, self.thermal_scale))
        if rgb is None and thermal is None:
            raise InputError("both images are missing")
        colors = None if rgb is None else as_rgb(rgb)
        heat = None if thermal is None else as_thermal(thermal, self.thermal_scale)
        return self.fit(colors, heat, missing)

    def fit(
        self,
        rgb: NDArray[np.uint8] | None,
        thermal: NDArray[np.float32] | None,
        absent: Mapping[Camera, str] | None = None,
        name: str = "",
    ) -> Prepared:
        """Replace what shows nothing, align, and resize images that are read.

        `rgb` is (H, W, 3), `thermal` (H', W') in [0, 1]; an image that the network does not use may be None.
        Grey replaces what `absent` names, with the reason. Messages carry `name`. Raises InputError: a dead
        image under the policy `error`, images of different views, or too small ones.
        """
        missing = dict(absent or {})
        colors = None if self.modality == "thermal" else rgb
        heat = None if self.modality == "rgb" else thermal
        replaced = set(missing)
        if self.missing != "ignore":
            missing |= find_dead(colors, heat, self.missing)
            replaced |= missing.keys() & self.spared
        if colors is not None:
            original = colors
        else:
            assert heat is not None  # the modality makes sure of one of them
            original = thermal_pixels(heat)
        size = (original.shape[0], original.shape[1])
        if "thermal" in replaced:
            heat = blank_thermal(size)
        elif colors is not None and heat is not None:
            heat = heat if self.homography is None else self.homography.warp(heat, size)
            height, width = heat.shape
            if abs((width * size[0]) / (height * size[1]) - 1.0) > ASPECT_TOLERANCE:
                raise InputError(
                    f"rgb is {size[1]}x{size[0]} but thermal {width}x{height} (width x height): the shapes "
                    "differ by more than 1 %; crop or register them to the same view first"
                )
        if "rgb" in replaced:
            colors = blank_rgb(size)
        network_size = size if self.size is None or self.tiling is not None else self.size
        if min(network_size) < MIN_SIZE:
            raise InputError(
                f"the image is {size[1]}x{size[0]}; the network needs at least {MIN_SIZE} pixels each way, "
                "enlarge it first"
            )
        return Prepared(
            rgb=None if colors is None else resize(colors, network_size),
            thermal=None if heat is None else resize(heat, network_size),
            size=size,
            original=original,
            missing=missing,
            name=name,
        )
