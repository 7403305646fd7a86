"""Reading a multipart upload into memory, bounded, and never onto a disk.

Starlette's own form parser spools parts above 1 MB to temporary files: people's pictures would touch the
disk of the server. This one keeps them in memory, which `max_bytes` bounds as the body comes in.

Uploaded bytes as images: the same pixels that `efnet.data.images` reads from a file of those bytes.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from efnet.data.images import FOUR_CHANNELS
from efnet.inference.predictor import Predictor
from efnet.inference.preprocess import as_rgbt, as_thermal
from efnet.models.config import Modality
from efnet.service.errors import RefusedError

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM")
"""Formats that are decoded: those of `efnet.data.images.IMAGE_SUFFIXES`, and no other code of Pillow's."""

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
        the image; `info["wide_channels"]` as `efnet.data.images.open_image` sets it.

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


FIELDS = ("rgb", "thermal", "rgbt")
"""Names of the images in a request."""

_MOST_DIGITS = 20
"""Of a length: more are more bytes than any machine holds."""


async def read_uploads(
    headers: Mapping[str, str], body: AsyncIterator[bytes], max_bytes: int
) -> dict[str, bytes]:
    """Read the images of a request.

    Args:
        headers: of the request, lower case.
        body: its chunks.
        max_bytes: of the whole body.

    Returns:
        the bytes of each field that was sent.

    Raises:
        RefusedError: 413 too large, 415 not a multipart form, 400 damaged, or a field unknown or twice.
    """
    _check_length(headers.get("content-length"), max_bytes)
    form = _Form(_boundary(headers.get("content-type", "")))
    received = 0
    async for chunk in body:
        received += len(chunk)
        if received > max_bytes:
            raise _too_large(max_bytes)
        form.write(chunk)
    return form.finish()


class _Form:
    """Parts of a form, collected as the parser finds them."""

    def __init__(self, boundary: bytes) -> None:
        self._parts: dict[str, bytearray] = {}
        self._current = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = b"", b""
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open_part,
                    "on_part_data": self._part_data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _damaged_uploads() from error

    def write(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _damaged_uploads() from error

    def finish(self) -> dict[str, bytes]:
        """The parts of a whole body; a body that breaks off is refused."""
        if not self._ended:
            raise _damaged_uploads()
        return {name: bytes(content) for name, content in self._parts.items()}

    def _begin_part(self) -> None:
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def _open_part(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name not in FIELDS:
            raise RefusedError(
                400,
                "unknown_field",
                f"The form has a field {name[:40]!r}; send images as rgb and thermal, or one four-channel "
                "file as rgbt.",
            )
        if name in self._parts:
            raise RefusedError(400, "repeated_field", f"{name} was sent twice; send one pair in a request.")
        self._current = self._parts[name] = bytearray()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._current += data[start:end]

    def _end(self) -> None:
        self._ended = True


def _check_length(declared: str | None, max_bytes: int) -> None:
    """Refuse what announces itself as too large, before a byte of it is read."""
    if declared is None or not (declared.isascii() and declared.isdigit()):
        return
    digits = declared.lstrip("0")  # Python refuses to read a number of thousands of them
    if len(digits) > _MOST_DIGITS or int(digits or "0") > max_bytes:
        raise _too_large(max_bytes)


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise RefusedError(
            415,
            "not_a_form",
            "The body is not a multipart form; send the images as multipart/form-data "
            "(curl -F rgb=@street.png -F thermal=@street_th.png).",
        )
    return options[b"boundary"]


def _too_large(max_bytes: int) -> RefusedError:
    return RefusedError(
        413,
        "too_many_bytes",
        f"The request is larger than the {max_bytes} bytes that this service takes; send smaller or "
        "compressed images.",
    )


def _damaged_uploads() -> RefusedError:
    return RefusedError(
        400, "damaged_form", "The multipart form is damaged or breaks off; send the request again, whole."
    )
