"""Uploaded bytes as images: the same pixels that `efnet.data.images` reads from a file of those bytes."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from efnet.data.decoding import FOUR_CHANNELS
from efnet.models.config import Modality
from efnet.prediction.arrays import as_rgbt, as_thermal
from efnet.prediction.predictor import Predictor
from efnet.service.refusal import RefusedError

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM")
"""Formats that are decoded: those of `efnet.data.decoding.IMAGE_SUFFIXES`, and no other code of Pillow's."""

_REMEDY = "send PNG, JPEG, TIFF, BMP, WebP or PGM/PPM"

Pair = tuple[Image.Image | NDArray[Any] | None, Image.Image | None]
"""What `Predictor.prepare` takes: (rgb, thermal), or (four channels, None)."""


def check_fields(names: frozenset[str], modality: Modality) -> None:
    """Refuse a request that lacks an image which the network looks at.

    Raises:
        RefusedError: 400, with what to send.
    """
    if "rgbt" in names and len(names) > 1:
        raise RefusedError(
            400, "too_many_images", "rgbt already holds both images; send it alone, or rgb and thermal."
        )
    needed = {"rgbt": {"rgb", "thermal"}, "rgb": {"rgb"}, "thermal": {"thermal"}}[modality]
    missing = sorted(needed - names)
    if missing and "rgbt" not in names:
        raise RefusedError(
            400,
            "missing_image",
            f"The image {' and '.join(missing)} is missing; this model needs {' and '.join(sorted(needed))} "
            "(or rgbt, one four-channel file).",
        )


def decode_pair(uploads: Mapping[str, bytes], modality: Modality, max_pixels: int) -> Pair:
    """Decode the images that the network looks at; others are left undecoded.

    Args:
        uploads: bytes by field.
        modality: of the network.
        max_pixels: of one image.

    Raises:
        RefusedError: 413, 415 or 422, naming the field.
    """
    if "rgbt" in uploads:
        return _four_channels(decode(uploads["rgbt"], "rgbt", max_pixels)), None
    rgb = _colour(decode(uploads["rgb"], "rgb", max_pixels)) if modality != "thermal" else None
    thermal = _one_channel(decode(uploads["thermal"], "thermal", max_pixels)) if modality != "rgb" else None
    return rgb, thermal


def thermal_of(
    rgb: Image.Image | NDArray[Any] | None, thermal: Image.Image | None, predictor: Predictor
) -> NDArray[np.float32] | None:
    """The thermal image of a decoded pair (H, W) in [0, 1] at its own size, scaled as for the network.

    Args:
        rgb: the first of what `decode_pair` returned.
        thermal: the second.
        predictor: says whether the network looks at thermal images, and how they are scaled.
    """
    if predictor.modality == "rgb":
        return None
    if thermal is not None:
        return as_thermal(thermal, predictor.thermal_scale)
    return as_rgbt(np.asarray(rgb), predictor.thermal_scale)[1]


def decode(content: bytes, field: str, max_pixels: int) -> Image.Image:
    """Decode one still image, turned upright.

    Args:
        content: the file.
        field: how messages call it.
        max_pixels: compared with the header before any pixel is decoded.

    Returns:
        the image; `info["wide_channels"]` as `efnet.data.decoding.open_image` sets it.

    Raises:
        RefusedError: 413 too many pixels, 415 no image format we read, 422 damaged or of several frames.
    """
    if not content:
        raise RefusedError(422, "empty_image", f"{field} is empty (0 bytes); send the image file itself.")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_header(image, field, max_pixels)
            wide = not image.mode.startswith("I") and any(";16" in str(tile) for tile in image.tile)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            image.info["wide_channels"] = wide
            return image
    except RefusedError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(field, max_pixels) from error
    except UnidentifiedImageError as error:
        raise RefusedError(
            415, "unknown_format", f"{field} is not an image format that this service reads; {_REMEDY}."
        ) from error
    # What Pillow's decoders raise on damaged files.
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError) as error:
        raise _damaged(field, error) from error
    except (MemoryError, struct.error, zlib.error) as error:
        raise _damaged(field, error) from error


def _check_header(image: Image.Image, field: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise _too_many_pixels(field, max_pixels, f"{width}x{height}, ")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # MPO: a phone's JPEG with a preview behind it
        raise RefusedError(
            422, "several_frames", f"{field} has {frames} frames; send the one you mean as PNG."
        )


def _colour(image: Image.Image) -> Image.Image | NDArray[Any]:
    """A colour image; of 16-bit grey the high byte, as `efnet.data.images.read_rgb` has it."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in FOUR_CHANNELS:
        return np.ascontiguousarray(np.asarray(image)[..., :3])
    return image.convert("RGB")


def _one_channel(image: Image.Image) -> Image.Image:
    """A thermal image; several channels of 16 bits reach us as 8, which would lose it without a word."""
    if image.info["wide_channels"]:
        raise RefusedError(
            422, "wide_channels", "thermal has several channels of 16 bits; send an image of one channel."
        )
    return image


def _four_channels(image: Image.Image) -> NDArray[Any]:
    if image.mode not in FOUR_CHANNELS or image.info["wide_channels"]:
        kind = "channels of 16 bits" if image.info["wide_channels"] else f"mode {image.mode}"
        raise RefusedError(
            422,
            "not_four_channels",
            f"rgbt has {kind}, not four channels of 8 bits; send the images as rgb and thermal.",
        )
    return np.asarray(image)


def _too_many_pixels(field: str, max_pixels: int, size: str = "") -> RefusedError:
    return RefusedError(
        413,
        "too_many_pixels",
        f"{field} is {size}more than the {max_pixels} pixels that this service takes; send it smaller.",
    )


def _damaged(field: str, error: BaseException) -> RefusedError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return RefusedError(
        422, "damaged_image", f"{field} cannot be read ({reason[:120]}); send it again, or save it as PNG."
    )
