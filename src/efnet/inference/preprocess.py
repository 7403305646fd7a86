"""Images as users hold them (PIL, numpy, a path) turned into the two arrays that the network takes.

Everything that can be wrong with an image is found here, on the host, so that the network never has
to wait for its device to tell.

Which images of a pair a predictor reads, by what its model looks at.

What happens to a pair before the network: read, checked, aligned, and brought to the network's size.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from efnet.alignment.homography import Homography
from efnet.core.errors import InputError
from efnet.data.images import (
    ThermalScale,
    grey_of_three,
    read_header,
    read_rgb,
    read_rgbt,
    read_thermal,
    scale_thermal,
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

ImageLike = Image.Image | NDArray[Any] | str | os.PathLike[str]
"""A PIL image, a numpy array with channels last, or the path of an image file."""

ASPECT_TOLERANCE = 0.01
"""Relative difference of aspect ratio up to which a thermal image is stretched onto its RGB image."""


def as_rgb(image: ImageLike, what: str = "rgb") -> NDArray[np.uint8]:
    """Turn an image into uint8 (H, W, 3).

    Args:
        image: a path; an 8-bit PIL image; or an array (H, W, 3), uint8 or float in [0, 1]. A fourth
            channel is dropped.
        what: how messages call it.

    Raises:
        InputError: wrong type, rank, channels, dtype or range, or values that are not finite.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_rgb(os.fspath(image))
    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):
            raise InputError(f"{what} image has mode {image.mode}; convert it to 8-bit colour first")
        image = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    array = _array(image, what)
    if array.ndim == 3 and array.shape[2] == 4:
        array = array[..., :3]  # as in files: opacity, or a thermal image that is also given apart
    if array.ndim != 3 or array.shape[2] != 3:
        raise InputError(f"{what} array has shape {array.shape}; expected (height, width, 3){_hint(array)}")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise InputError(f"{what} array is {array.dtype}; pass uint8, or float in [0, 1]")
    _check_finite(array, what)
    low, high = float(array.min()), float(array.max())
    if low < 0.0 or high > 1.0:
        raise InputError(
            f"{what} array is {array.dtype} with values from {low:g} to {high:g}; "
            "scale it to [0, 1] or pass uint8"
        )
    rounded: NDArray[np.uint8] = np.rint(array * 255.0).astype(np.uint8)
    return rounded


def as_thermal(image: ImageLike, scale: ThermalScale, what: str = "thermal") -> NDArray[np.float32]:
    """Turn a thermal image into float32 (H, W) in [0, 1].

    Args:
        image: a path; a PIL image; or an array (H, W), (H, W, 1), or (H, W, 3) with three equal
            channels. Values are raw and get scaled, except that under `auto` a float array within
            [0, 1] is taken as scaled already.
        scale: how raw values become [0, 1], see `efnet.data.images`.
        what: how messages call it.

    Raises:
        InputError: wrong type, rank, channels or dtype, or values that are not finite.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_thermal(os.fspath(image), scale)
    from_array = isinstance(image, np.ndarray)
    if isinstance(image, Image.Image):
        image = ImageOps.exif_transpose(image)
        if image.mode not in ("L", "I", "F") and not image.mode.startswith("I;16"):
            image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
        image = np.asarray(image)
    array = _array(image, what)
    if array.ndim == 3:
        array = _single_channel(array, what)
    if array.ndim != 2:
        raise InputError(f"{what} array has shape {array.shape}; expected (height, width){_hint(array)}")
    if array.dtype.kind not in "uif":
        raise InputError(f"{what} array is {array.dtype}; pass uint8, uint16 or float")
    if array.dtype.kind == "f":
        _check_finite(array, what)
        if from_array and scale == "auto" and float(array.min()) >= 0.0 and float(array.max()) <= 1.0:
            return array.astype(np.float32)
    return scale_thermal(array, scale)


def has_four_channels(image: ImageLike) -> bool:
    """Whether an image has a fourth channel: thermal, if it comes without a partner."""
    if isinstance(image, (str, os.PathLike)):
        return read_header(os.fspath(image)).four_channels
    if isinstance(image, Image.Image):
        return image.mode == "RGBA"
    return isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 4


def as_rgbt(image: ImageLike, scale: ThermalScale) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Split a four-channel image, thermal last, into RGB and thermal.

    Args:
        image: a path, an RGBA PIL image, or an array (H, W, 4).
        scale: how raw thermal values become [0, 1].

    Raises:
        InputError: it has not four channels, or what `as_rgb` and `as_thermal` refuse.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_rgbt(os.fspath(image), scale)
    array = _array(np.asarray(image) if isinstance(image, Image.Image) else image, "rgbt")
    if array.ndim != 3 or array.shape[2] != 4:
        raise InputError(
            f"no thermal image given and the first has shape {array.shape}, not (height, width, 4); "
            "pass both images, or one whose fourth channel is thermal"
        )
    return as_rgb(array[..., :3]), as_thermal(array[..., 3], scale)


@dataclass(frozen=True, eq=False)
class Prepared:
    """One pair, checked and resized: what the network takes, still on the host.

    Attributes:
        rgb: uint8 (h, w, 3) at the network's size, or None for a thermal-only network.
        thermal: float32 (h, w) in [0, 1] at the network's size, or None for an RGB-only network.
        size: (H, W) of the image given, and so of the prediction.
        original: the image given, uint8 (H, W, 3), for overlays: the RGB image, or the thermal image
            as grey where there is no RGB.
        missing: why an image was replaced by plain grey, by camera; empty: none was.
    """

    rgb: NDArray[np.uint8] | None
    thermal: NDArray[np.float32] | None
    size: tuple[int, int]
    original: NDArray[np.uint8]
    missing: Mapping[Camera, str] = field(default_factory=dict)

    @property
    def network_size(self) -> tuple[int, int]:
        """(h, w) that the network sees."""
        image = self.rgb if self.rgb is not None else self.thermal
        assert image is not None
        return image.shape[0], image.shape[1]


def resize_rgb(rgb: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (H, W, 3) to `size` = (h, w), bilinear with antialiasing."""
    if rgb.shape[:2] == size:
        return rgb
    return np.asarray(Image.fromarray(rgb).resize(size[::-1], Image.Resampling.BILINEAR))


def resize_thermal(thermal: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize (H, W) to `size` = (h, w), bilinear with antialiasing."""
    if thermal.shape == size:
        return thermal
    return np.asarray(Image.fromarray(thermal).resize(size[::-1], Image.Resampling.BILINEAR))


def check_aspect(rgb: NDArray[np.uint8], thermal: NDArray[np.float32]) -> None:
    """Refuse a pair whose images cannot show the same view.

    Raises:
        InputError: the aspect ratios differ by more than `ASPECT_TOLERANCE`.
    """
    (rgb_height, rgb_width), (height, width) = rgb.shape[:2], thermal.shape
    ratio = (width * rgb_height) / (height * rgb_width)
    if abs(ratio - 1.0) > ASPECT_TOLERANCE:
        raise InputError(
            f"rgb is {rgb_width}x{rgb_height} but thermal {width}x{height} (width x height): the shapes "
            "differ by more than 1 %; crop or register them to the same view first"
        )


def _array(image: object, what: str) -> NDArray[Any]:
    if not isinstance(image, np.ndarray):
        kind = type(image).__name__
        raise InputError(f"{what} is a {kind}; pass a path, a PIL image or a numpy array (channels last)")
    if image.size == 0:
        raise InputError(f"{what} array of shape {image.shape} is empty")
    return image


def _single_channel(array: NDArray[Any], what: str) -> NDArray[Any]:
    """The one channel that (H, W, 1) or (H, W, 3) with equal channels stands for."""
    if array.shape[2] == 1:
        return array[..., 0]
    if array.shape[2] != 3:
        raise InputError(f"{what} array has shape {array.shape}; expected (height, width){_hint(array)}")
    if array.dtype == np.uint8:
        return grey_of_three(array, f"{what} image")
    if not (array == array[..., :1]).all():
        raise InputError(
            f"{what} array has three different channels (a false-colour picture, or the RGB image in its "
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


Images = tuple[NDArray[np.uint8] | None, NDArray[np.float32] | None]
"""Colour uint8 (H, W, 3) and thermal float32 (h, w) in [0, 1]; None for one that is not looked at."""


def read_pair(
    rgb: ImageLike | None, thermal: ImageLike | None, modality: Modality, scale: ThermalScale
) -> Images:
    """The images that a model uses, as arrays; an image it does not use is not even read.

    Raises:
        InputError: one is missing, or what `as_rgb` and `as_thermal` refuse.
    """
    if modality == "thermal":
        if thermal is None and rgb is not None and has_four_channels(rgb):
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


def read_given(rgb: ImageLike | None, thermal: ImageLike | None, scale: ThermalScale) -> Images:
    """Those images of an RGB-thermal model that are there, where one of them is known to be missing.

    Raises:
        InputError: both are missing, or what `as_rgb` and `as_thermal` refuse.
    """
    if rgb is None and thermal is None:
        raise InputError("both images are missing")
    return (
        None if rgb is None else as_rgb(rgb),
        None if thermal is None else as_thermal(thermal, scale),
    )


@dataclass(frozen=True)
class Preparation:
    """How pairs are brought to one network.

    Attributes:
        modality: which images it looks at.
        thermal_scale: how raw thermal values become [0, 1].
        size: (h, w) that it sees; None: the images' own.
        homography: brings thermal images into the colour camera's view; None: they are there.
        missing: what is done about an image that shows nothing.
        spared: cameras a dead image of which is replaced by grey.
    """

    modality: Modality
    thermal_scale: ThermalScale
    size: tuple[int, int] | None
    homography: Homography | None
    missing: MissingPolicy
    spared: frozenset[Camera]

    def prepare(
        self,
        rgb: ImageLike | None,
        thermal: ImageLike | None = None,
        absent: Mapping[Camera, str] | None = None,
    ) -> Prepared:
        """Read, check, scale and resize one pair.

        Args and errors: see `Predictor.prepare`.
        """
        missing = dict(absent or {}) if self.modality == "rgbt" else {}
        refuse_missing(missing, self.missing)
        if missing:
            colors, heat = read_given(rgb, thermal, self.thermal_scale)
        else:
            colors, heat = read_pair(rgb, thermal, self.modality, self.thermal_scale)
        replaced = set(missing)
        if self.missing != "ignore":
            missing |= find_dead(colors, heat, self.missing)
            replaced |= missing.keys() & self.spared
        if colors is not None:
            original = colors
        else:
            assert heat is not None  # by the modality one of them is there
            original = thermal_pixels(heat)
        size = (original.shape[0], original.shape[1])
        if "thermal" in replaced:
            heat = blank_thermal(size)
        elif colors is not None and heat is not None:
            heat = heat if self.homography is None else self.homography.warp(heat, size)
            check_aspect(colors, heat)
        if "rgb" in replaced:
            colors = blank_rgb(size)
        network_size = self.size or size
        if min(network_size) < MIN_SIZE:
            raise InputError(
                f"the image is {size[1]}x{size[0]}; the network needs at least {MIN_SIZE} pixels each way, "
                "enlarge it first"
            )
        return Prepared(
            rgb=None if colors is None else resize_rgb(colors, network_size),
            thermal=None if heat is None else resize_thermal(heat, network_size),
            size=size,
            original=original,
            missing=missing,
        )
