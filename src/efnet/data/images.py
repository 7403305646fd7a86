"""Images of files, archives and uploads: colour, thermal of any number type, four channels.

`open_image` is the only decoder. What it cannot read is an `InputError` that names the source and the remedy.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet.core.errors import InputError
from efnet.data.bands import listed
from efnet.data.decode import PathLike as PathLike
from efnet.data.decode import open_image as open_image
from efnet.data.decode import read_header as read_header
from efnet.data.false_color import (
    AUTO,
    GREYS,
    PREFIX,
    Decoded,
    check_scale,
    decode_colors,
    is_palette,
    suggest,
)
from efnet.data.pairs import ThermalScale as ThermalScale
from efnet.data.raster import ImageError as ImageError
from efnet.data.raster import ImageHeader as ImageHeader
from efnet.data.raster import Raster as Raster
from efnet.data.raster import upright

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".pgm", ".ppm", ".npy")
"""File name endings of images."""

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM")
"""Pillow's formats of `IMAGE_SUFFIXES`: the ones to allow where a source is not trusted (no .npy there)."""

_NO_DATA = (-9999.0, -32767.0, -32768.0)
"""Numbers that programs write for missing values; no temperature has them."""
_BEYOND = 1e15  # likewise the greatest numbers of a float, such as 1e20 and 9.97e36
_DARK = 16  # colours of 16 or more bits below this part of white have fewer bits than their file declares
_MANY = 0.002  # share of pixels from which one number can spoil the stretch
_LEVELS = 8  # fewer other numbers are a coarse scale, on which gaps are of the scene
_TELEMETRY = 4  # rows that cameras add above or below an image, at most
_logger = logging.getLogger(__name__)
_reported: list[
    str
] = []  # the first file with missing values; one line a process, whatever the number of files


def read_rgb(path: PathLike) -> NDArray[np.uint8]:
    """Read a colour image upright, (H, W, 3) in 0..255; grey and palettes become RGB, alpha is lost.

    Raises:
        InputError: the file is missing, damaged, animated, too large, or of a kind that `to_rgb` refuses.
    """
    return to_rgb(open_image(path))


def to_rgb(image: Raster) -> NDArray[np.uint8]:
    """Convert an image to (H, W, 3) in 0..255; of 16 bits, the high byte is kept.

    Raises:
        InputError: numbers with a sign or a point, more than four channels without a meaning, or 16 bits of
            which at most 12 are used: the image would be black.
    """
    if image.radiometry is not None:
        return upright(image.radiometry.photograph(image.name, _as_stored(image)), image.header.orientation)
    if image.palette is not None:
        samples = image.of_palette()
    elif image.samples.dtype.kind != "u":
        fault = f"a colour image has whole numbers from 0, not {image.header}"
        raise InputError(f"{image.name}: {fault}; save it with 8 bits per channel")
    else:
        samples = image.samples
    if samples.ndim == 3 and samples.shape[2] == 2:
        samples = samples[..., 0]  # grey with opacity
    if samples.ndim == 2:
        samples = np.repeat(samples[..., None], 3, axis=2)
    elif samples.shape[2] > 4 and not image.photo:
        raise InputError(
            f"{image.name}: has {samples.shape[2]} channels ({listed(image)}); save the three of the colours "
            "alone, or give 'channels' in dataset.yaml"
        )
    samples = np.ascontiguousarray(samples[..., :3])
    white = 255 if image.palette is not None else image.white
    if white >= 65535 and 0 < samples.max() < (white + 1) // _DARK:
        fault = f"has {image.header.bits} bits per channel but no value above {samples.max()}, which is black"
        raise InputError(
            f"{image.name}: {fault}; multiply its values so that white is {white}, or save it with 8 bits"
        )
    if image.white_is_zero:
        samples = white - samples
    if white == 255:
        return samples
    if white == 65535:
        return (samples >> np.uint16(8)).astype(np.uint8)
    scaled = (np.minimum(samples, white).astype(np.float64) * 255 / white).round()
    return np.asarray(scaled.astype(np.uint8))


def read_thermal(path: PathLike, scale: ThermalScale = "auto") -> NDArray[np.float32]:
    """Read a thermal image of one channel, three equal ones, or in the false colours of `scale`, to [0, 1].

    Raises:
        InputError: unreadable, in other colours, with values that are not finite, or none in a fixed range.
    """
    return to_thermal(open_image(path), scale)


def to_thermal(image: Raster, scale: ThermalScale = "auto") -> NDArray[np.float32]:
    """Scale a thermal image to [0, 1] as `scale_thermal`; errors as `read_thermal`."""
    raw, missing = thermal_values(image, scale)
    if is_palette(scale):
        return raw.astype(np.float32) / np.float32(255)
    stored = image.palette is None  # colours of a palette always reach 255
    if scale == "auto" and raw.dtype == np.uint8 and stored and image.white not in (255, 0):
        return np.asarray(np.minimum(raw.astype(np.float32) / np.float32(image.white), 1), dtype=np.float32)
    return scale_thermal(raw, scale, missing, image.name)


def read_raw_thermal(path: PathLike) -> NDArray[Any]:
    """Read raw thermal values (H, W) as stored; errors as `read_thermal`.

    Missing values (GDAL's nodata, -9999 and the like) are replaced with the coldest value.
    """
    return thermal_values(open_image(path))[0]


def thermal_values(
    image: Raster, scale: ThermalScale = "auto"
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return raw thermal values (H, W), and the mask of missing ones, which hold the coldest value.

    The mask is None if no value is missing. Where `scale` is a colour map, values are places along it, uint8.

    Raises:
        InputError: several different channels, values that are not finite, none at all, or a wide image that
            declares small numbers to be bright.
    """
    name, raw = image.name, image.samples
    if isinstance(scale, str) and is_palette(scale):
        return of_colors(image, scale).values, None
    if image.radiometry is not None:
        raw = upright(image.radiometry.celsius(name, _as_stored(image)), image.header.orientation)
    elif image.palette is not None:
        raw = grey_of_three(image.of_palette(), name)
    elif raw.ndim == 3:
        colors = raw.shape[2] - image.opacity if raw.shape[2] in (2, 4) else raw.shape[2]
        if raw.shape[2] == 4 and raw.dtype == np.uint8:
            colors = 3
        if colors not in (1, 3):
            fault = f"has {raw.shape[2]} channels, and it is not known which is thermal ({listed(image)})"
            raise InputError(f"{name}: {fault}; save it with one channel, or give 'channels' in dataset.yaml")
        raw = raw[..., 0] if colors == 1 else grey_of_three(raw[..., :3], name)
    if image.white_is_zero:
        if raw.dtype != np.uint8:
            fault = "declares small numbers to be bright (photometric 0), which leaves open what hot is"
            raise InputError(f"{name}: {fault}; save it with black as zero (photometric 1)")
        raw = image.white - raw
    missing = _missing(raw, image.nodata)
    finite = np.isfinite(raw) | missing
    if not finite.all():
        raise InputError(
            f"{name}: {int((~finite).sum())} thermal values are NaN or infinite; "
            "replace them, for example by the coldest value of the image"
        )
    if not missing.any():
        return raw, None
    if missing.all():
        raise InputError(f"{name}: every thermal value is missing (nodata); leave the pair out")
    return np.where(missing, raw[~missing].min(), raw), missing


def _as_stored(image: Raster) -> tuple[int, int]:
    """(H, W) of an image before it is turned upright."""
    height, width = image.samples.shape[:2]
    return (width, height) if image.header.orientation >= 5 else (height, width)


def _missing(raw: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Return the mask of numbers that mean a missing value."""
    missing = np.zeros(raw.shape, dtype=np.bool_)
    if raw.dtype.kind in "if" and raw.dtype.itemsize > 1:
        missing |= np.isin(raw, np.asarray(_NO_DATA).astype(raw.dtype))
        if raw.dtype.kind == "f":
            missing |= np.isfinite(raw) & (np.abs(raw.astype(np.float64)) > _BEYOND)
    if nodata is not None:
        # As float32, the file's own numbers equal the declared one, of which GDAL writes all digits.
        with np.errstate(over="ignore"):
            declared = np.float64(nodata) if raw.dtype.kind != "f" else np.asarray(nodata).astype(raw.dtype)
        missing |= np.isnan(raw) if np.isnan(nodata) else raw == declared
    return missing


def of_colors(image: Raster, scale: str) -> Decoded:
    """Decode an image in the false colours of a scale; errors as `places`."""
    samples = image.samples if image.palette is None else image.of_palette()
    return places(
        samples[..., 0] if samples.ndim == 3 and samples.shape[2] == 2 else samples, scale, image.name
    )


def places(image: NDArray[Any], scale: str, name: str) -> Decoded:
    """Find the places of an 8-bit image (H, W) or (H, W, C) along a scale's colour map.

    A fourth channel is opacity. Raises InputError: other numbers, grey where the map has colours, or colours
    that are not those of the map.
    """
    palette = scale.removeprefix(PREFIX)
    grey = image if image.ndim == 2 else image[..., 0] if (image[..., :3] == image[..., :1]).all() else None
    if image.dtype != np.uint8 or (image.ndim == 3 and image.shape[2] not in (3, 4)):
        fault = f"has {image.dtype} values of shape {image.shape}, and false colours are 8-bit RGB"
        raise InputError(f"{name}: {fault}; leave `thermal_palette` out")
    if palette in GREYS or (palette == AUTO and (grey is not None or _is_grey(image[..., :3]))):
        hot = grey_of_three(image[..., :3], name) if grey is None else grey
        inverted = palette == GREYS[1]
        return Decoded(GREYS[int(inverted)], np.asarray(255 - hot if inverted else hot, dtype=np.uint8))
    if grey is not None and grey.min() != grey.max():
        raise InputError(f"{name}: is grey; give `thermal_palette` {GREYS[0]} or {GREYS[1]}, or leave it out")
    return decode_colors(np.stack([image] * 3, axis=-1) if image.ndim == 2 else image[..., :3], scale, name)


def _is_grey(rgb: NDArray[Any]) -> bool:
    """Whether three channels (H, W, 3) of a lossy file are grey: nearly equal nearly everywhere."""
    return bool((np.ptp(rgb, axis=2) > 12).mean() <= 0.005)


def grey_of_three(rgb: NDArray[Any], path: PathLike) -> NDArray[Any]:
    """Return the grey of three channels (H, W, 3), equal but for a lossy 8-bit file; else an `InputError`."""
    if (rgb == rgb[..., :1]).all():
        return np.ascontiguousarray(rgb[..., 0])
    if rgb.dtype != np.uint8 or not _is_grey(rgb):
        hint = f"; {suggest(rgb, str(path))}" if rgb.dtype == np.uint8 else ""
        raise InputError(
            f"{path}: its three channels differ: a colour-mapped thermal image, or no thermal image"
            f"{hint}; or export it in greyscale (8 or 16 bits, one channel) from the camera's software"
        )
    grey: NDArray[np.uint8] = rgb.mean(axis=2).round().astype(np.uint8)
    return grey


def scale_thermal(
    raw: NDArray[Any],
    scale: ThermalScale = "auto",
    missing: NDArray[np.bool_] | None = None,
    name: str = "thermal image",
) -> NDArray[np.float32]:
    """Bring raw thermal values (H, W), finite and of any number type, to [0, 1].

    With scale "auto", 8-bit values are divided by 255; wider ones are stretched from the 1st to the 99th
    percentile of the image (its full range, where these coincide) and clipped; a constant image becomes 0.
    The percentiles leave out what `missing` (H, W) marks, numbers of `far_values` and rows of telemetry.
    With (low, high), that raw range is mapped linearly and clipped. `name` is that of messages.

    Raises:
        InputError: `scale` is not a range, or an image that is not constant has no value inside it.
    """
    if scale != "auto":
        if isinstance(scale, str) and is_palette(scale):
            check_scale(scale)
            fault = "raw thermal values have no colours, and the thermal scale is the colour map"
            raise InputError(
                f"{name}: {fault} {scale.removeprefix(PREFIX)[:40]}; leave `thermal_palette` out"
            )
        low, high = scale if not isinstance(scale, str) and len(scale) == 2 else (np.nan, np.nan)
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise InputError(f"thermal scale {scale}: give 'auto' or two finite numbers, low < high")
        coldest, hottest = float(raw.min()), float(raw.max())
        if coldest != hottest and (hottest <= low or coldest >= high):
            fault = (
                f"its values, {coldest:g} to {hottest:g}, lie outside the thermal range {low:g} to {high:g}"
            )
            raise InputError(f"{name}: {fault}; correct `thermal_scale`, or give the file in its unit")
    elif raw.dtype == np.uint8:
        return raw.astype(np.float32) / np.float32(255)
    else:
        spoiled = not_of_the_image(raw)
        kept = raw[~(spoiled if missing is None else spoiled | missing)]
        kept = kept if kept.size else raw
        low, high = (float(value) for value in np.percentile(kept.astype(np.float64), (1, 99)))
        if low >= high:  # a flat background
            low, high = float(kept.min()), float(kept.max())
        if low == high:
            return np.zeros(raw.shape, dtype=np.float32)
    # Raw values may need more than float32's 24 bits (32-bit counts): subtract in float64.
    scaled = np.clip((raw.astype(np.float64) - low) / (high - low), 0.0, 1.0).astype(np.float32)
    if missing is not None:
        scaled[missing] = 0
        if not _reported:
            _reported.append(name)
            text = (
                "%s: has missing thermal values (nodata), read as the coldest; efnet data check counts them"
            )
            _logger.warning(text, name)
    return scaled


def far_values(raw: NDArray[Any]) -> list[Any]:
    """Return numbers that many pixels have and that lie far from all others, such as an empty border of 0.

    Warping leaves 0 or 65535 around an image, programs write -999 or 1e10 for missing values. Far is a
    distance greater than that between the 1st and 99th percentile of the other values. An image of few
    different values has none.
    """
    found: list[Any] = []
    kept = raw.ravel()
    while kept.size:
        ends = kept.min(), kept.max()
        many = [value for value in ends if (kept == value).sum() > _MANY * raw.size]
        inner = kept[(kept != ends[0]) & (kept != ends[1])]
        if not (many and inner.size):
            break
        low, high = (float(value) for value in np.percentile(inner.astype(np.float64), (1, 99)))
        far = [value for value in many if max(low - float(value), float(value) - high) > high - low > 0]
        if not far or np.unique(inner).size < _LEVELS:
            break
        found += far
        kept = kept[~np.isin(kept, far)]
    return found


def not_of_the_image(raw: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the mask (H, W) of rows of telemetry and of numbers that lie far from all others."""
    rows = telemetry(raw)
    far = far_values(raw[~rows])
    return rows | np.isin(raw, far) if far else rows


def telemetry(raw: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the mask (H, W) of first and last rows that are not of the image, as cameras add for telemetry.

    More than half the values of such a row lie further from those of the inner rows than these are apart.
    """
    mask = np.zeros(raw.shape, dtype=np.bool_)
    if raw.shape[0] <= 4 * _TELEMETRY:
        return mask
    inner = raw[_TELEMETRY:-_TELEMETRY:4]  # a quarter of the rows is enough
    low, high = np.percentile(inner[~np.isin(inner, far_values(inner))].astype(np.float64), (1, 99))
    for edge in (slice(_TELEMETRY), slice(-_TELEMETRY, None)):
        values = raw[edge].astype(np.float64)
        far = (values < 2 * low - high) | (values > 2 * high - low)
        mask[edge] = far.mean(axis=1, keepdims=True) > (0.5 if high > low else 1)
    return mask


def read_rgbt(path: PathLike, scale: ThermalScale = "auto") -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Read a four-channel file (MFNet's): colour (H, W, 3) in 0..255, thermal (H, W) in [0, 1] as alpha.

    Raises:
        InputError: unreadable, or not four channels.
    """
    return to_rgbt(open_image(path), scale)


def to_rgbt(image: Raster, scale: ThermalScale = "auto") -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Split an image of four channels and scale its thermal channel; errors as `read_rgbt`."""
    rgb, raw, missing = _split(image)
    return rgb, scale_thermal(raw, scale, missing, image.name)


def split_channels(path: PathLike) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Return a four-channel file's colour (H, W, 3) and raw thermal (H, W); errors as `read_rgbt`."""
    rgb, raw, _ = _split(open_image(path))
    return rgb, raw


def _split(image: Raster) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[np.bool_] | None]:
    """Split four channels, whatever the file declares the fourth to be: the numbers are those it stores."""
    if not image.header.four_channels:
        fault = f"not a four-channel RGB-thermal file (it is {image.header})"
        if image.header.channels > 4:
            remedy = f"its bands are {listed(image)}: give 'channels' in dataset.yaml, such as "
            raise InputError(f"{image.name}: {fault}; {remedy}{{rgb: [1, 2, 3], thermal: 4}}")
        raise InputError(f"{image.name}: {fault}; give the thermal image as a file of its own")
    raw, missing = thermal_values(replace(image, samples=image.samples[..., 3]))
    return to_rgb(image), raw, missing
