"""Reading a multipart upload into memory, bounded, and never onto a disk.

Starlette's own form parser spools parts above 1 MB to temporary files: people's pictures would touch the
disk of the server. This one keeps them in memory, which `max_bytes` bounds as the body comes in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from efnet.service.refusal import RefusedError

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
            raise _damaged() from error

    def write(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _damaged() from error

    def finish(self) -> dict[str, bytes]:
        """The parts of a whole body; a body that breaks off is refused."""
        if not self._ended:
            raise _damaged()
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


def _damaged() -> RefusedError:
    return RefusedError(
        400, "damaged_form", "The multipart form is damaged or breaks off; send the request again, whole."
    )
