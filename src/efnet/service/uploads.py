"""Uploaded images: a multipart body read into memory, bounded, and decoded.

Nothing is written to a disk. Pixels are those that `efnet.data.images` reads from a file of the same bytes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser

from efnet.data.images import FORMATS, ImageError, Raster, open_image
from efnet.inference.predictor import Predictor
from efnet.inference.preprocess import as_rgbt, as_thermal
from efnet.models.config import Modality
from efnet.service.errors import refusal

_CODES = {
    "empty": "empty_image",
    "format": "unknown_format",
    "size": "too_many_pixels",
    "frames": "several_frames",
    "damaged": "damaged_image",
}
"""Code of a refusal by `ImageError.fault`."""

FIELDS = ("rgb", "thermal", "rgbt")
"""Names of the images in a request."""

_MEANINGS = {
    "rgb": "Colour image.",
    "thermal": "Thermal image: 8-bit, 16-bit, or three equal channels.",
    "rgbt": "One file of four channels, thermal last; instead of the other two.",
}

_MOST_DIGITS = 20
"""Digits of a content length; a longer one is more bytes than any machine holds."""

NEEDED: dict[Modality, list[str]] = {"rgbt": ["rgb", "thermal"], "rgb": ["rgb"], "thermal": ["thermal"]}
"""Images that a network looks at."""

Pair = tuple[Raster | None, Raster | None]
"""Arguments of `Predictor.prepare`: (rgb, thermal), or (four channels, None)."""


def check_fields(names: frozenset[str], modality: Modality) -> None:
    """Raise a `RefusedError` with status 400 for a request that lacks an image which the network looks at."""
    if "rgbt" in names and len(names) > 1:
        raise refusal("too_many_images")
    missing = [name for name in NEEDED[modality] if name not in names]
    if missing and "rgbt" not in names:
        raise refusal("missing_image", missing=" and ".join(missing), needed=" and ".join(NEEDED[modality]))


def decode_pair(uploads: Mapping[str, bytes], modality: Modality, max_pixels: int) -> Pair:
    """Decode the images (bytes by field) that the network looks at; others are left undecoded.

    Raises:
        RefusedError: 413, 415 or 422, naming the field.
    """
    if "rgbt" in uploads:
        image = decode(uploads["rgbt"], "rgbt", max_pixels)
        if not image.header.four_channels:
            raise refusal("not_four_channels", kind=image.header)
        return image, None
    rgb = decode(uploads["rgb"], "rgb", max_pixels) if modality != "thermal" else None
    thermal = decode(uploads["thermal"], "thermal", max_pixels) if modality != "rgb" else None
    return rgb, thermal


def thermal_of(
    rgb: Raster | None, thermal: Raster | None, predictor: Predictor
) -> NDArray[np.float32] | None:
    """Return the thermal image (H, W) in [0, 1] of a pair from `decode_pair`, scaled as for the network.

    None if the network looks at colour alone. The image keeps its own size.
    """
    if predictor.modality == "rgb":
        return None
    if thermal is not None:
        return as_thermal(thermal, predictor.thermal_scale)
    assert rgb is not None  # `decode_pair` returns four channels
    return as_rgbt(rgb, predictor.thermal_scale)[1]


def decode(content: bytes, field: str, max_pixels: int) -> Raster:
    """Decode one still image, turned upright; its header is checked before any pixel is decoded.

    Raises:
        RefusedError: 413 too many pixels, 415 not an image format we read, 422 damaged or of several frames.
    """
    try:
        return open_image(content, name=field, formats=FORMATS, max_pixels=max_pixels)
    except ImageError as error:
        detail = f"{error.detail}, " if error.fault == "size" and error.detail else error.detail[:120]
        raise refusal(_CODES[error.fault], field=field, detail=detail, max_pixels=max_pixels) from error


def describe_upload(modality: Modality) -> dict[str, Any]:
    """Return the OpenAPI description of a request's body, which FastAPI cannot read off the route."""
    fields: dict[str, Any] = {
        field: {"type": "string", "format": "binary", "description": _MEANINGS[field]} for field in FIELDS
    }
    pair, one_file = (
        {
            "type": "object",
            "properties": {name: fields[name] for name in names},
            "required": required,
            "additionalProperties": False,
        }
        for names, required in ((("rgb", "thermal"), NEEDED[modality]), (("rgbt",), ["rgbt"]))
    )
    schema = {"type": "object", "properties": fields, "oneOf": [pair, one_file]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


async def read_uploads(
    headers: Mapping[str, str], body: AsyncIterator[bytes], max_bytes: int
) -> dict[str, bytes]:
    """Read the images of a request into memory, and return the bytes of each field that was sent.

    Names of `headers` are in lower case. The whole `body` may have `max_bytes`.

    Raises:
        RefusedError: 413 too large, 415 not a multipart form, 400 damaged, or a field unknown or repeated.
    """
    _check_length(headers.get("content-length"), max_bytes)
    kind, options = parse_options_header(headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise refusal("not_a_form")
    boundary = options[b"boundary"].decode("latin-1")
    # Parts without a file name arrive as text; as Latin-1 it keeps every byte.
    form_type = f'multipart/form-data; charset=latin-1; boundary="{boundary}"'
    parser = _ImageParser(Headers({"content-type": form_type}), _bounded(body, max_bytes), max_bytes)
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError) as error:
        _check_names(parser.names)
        if not any(isinstance(fault, FormParserError) for fault in (error, error.__cause__)):
            _check_names([""])  # the form is whole so far, but a part has no name
        raise refusal("damaged_form") from error
    _check_names(parser.names)
    if not parser.ended:
        raise refusal("damaged_form")
    return {
        name: value.encode("latin-1") if isinstance(value, str) else await value.read()
        for name, value in form.items()
    }


class _ImageParser(MultiPartParser):
    """Starlette's parser, which keeps every part in memory: no part exceeds the limit of the body.

    Its default writes parts above 1 MB to temporary files, so people's images would reach the server's disk.
    """

    def __init__(self, headers: Headers, body: AsyncGenerator[bytes, None], max_bytes: int) -> None:
        most = len(FIELDS)
        super().__init__(headers, body, max_files=most, max_fields=most, max_part_size=max_bytes)
        self.spool_max_size = max_bytes
        self.ended = False

    def on_end(self) -> None:
        """Note the closing boundary: a body that breaks off lacks it (Starlette)."""
        self.ended = True

    @property
    def names(self) -> list[str]:
        """Names of the parts so far."""
        return [name for name, _ in self.items]


async def _bounded(body: AsyncIterator[bytes], max_bytes: int) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in body:
        received += len(chunk)
        if received > max_bytes:
            raise refusal("too_many_bytes", max_bytes=max_bytes)
        yield chunk


def _check_names(names: list[str]) -> None:
    """Refuse fields that are unknown or repeated."""
    for place, name in enumerate(names):
        if name not in FIELDS:
            raise refusal("unknown_field", name=name[:40])
        if name in names[:place]:
            raise refusal("repeated_field", name=name)


def _check_length(declared: str | None, max_bytes: int) -> None:
    """Refuse a body that announces itself as too large, before a byte of it is read."""
    if declared is None or not (declared.isascii() and declared.isdigit()):
        return
    digits = declared.lstrip("0")  # Python refuses to read a number of thousands of them
    if len(digits) > _MOST_DIGITS or int(digits or "0") > max_bytes:
        raise refusal("too_many_bytes", max_bytes=max_bytes)
