"""TIFF and BigTIFF files of any number type, byte order and arrangement, read exactly.

Pillow's modes cannot hold most of these files: it scales small greys, swaps the bytes of some floats twice,
and knows neither 64 bits nor several wide channels. Only its libtiff is used here, to undo compressions. Fax
and JPEG compression, and colour spaces other than grey, RGB and palette, are left to Pillow whole, which
gives wider numbers than 8 bits as zeros or reduces them; these are refused.
Numbers below are those of TIFF 6.0 (Adobe, 1992), its supplements, and the tags that GDAL documents.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efnet.data.raster import ImageError, ImageHeader, Raster, require_size, upright

Tags = dict[int, tuple[int, ...]]
"""Values by tag; a text is its bytes."""

_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 16: "Q"}  # the types of tags that are whole numbers or text
_TAGS = frozenset((
    254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338,
    339, 42113,
))  # fmt: skip
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType: an overview, a transparency mask
_DEFLATE, _BY_LIBTIFF = (8, 32946), (5, 32773, 34925, 50000)  # libtiff: LZW, PackBits, LZMA, Zstandard
_BY_PILLOW = (2, 3, 4, 6, 7)  # fax, JPEG
_LOSSY = (6, 7)
_COMPRESSIONS = {6: "JPEG", 7: "JPEG", 22610: "JPEG XR", 34712: "JPEG 2000", 34887: "LERC", 34934: "JPEG XR"}
_COMPRESSIONS |= {33003: "JPEG 2000", 33005: "JPEG 2000", 50001: "WebP", 50002: "JPEG XL"}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE = range(4)
_COLORS_BY_PILLOW = (5, 6, 8)  # CMYK, YCbCr, CIELab
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_NUMBERS: dict[int, tuple[Literal["unsigned", "signed", "float"], tuple[int, ...]]] = {
    1: ("unsigned", (*range(1, 17), 32, 64)),
    2: ("signed", (8, 16, 32, 64)),
    3: ("float", (16, 32, 64)),
    4: ("unsigned", (*range(1, 17), 32, 64)),  # "undefined", to be read as unsigned
}
"""Kind of numbers and its possible bits, by SampleFormat."""
_MOST_PAGES, _LARGE_TILE = 100_000, 1 << 20
_MOST_BITS = 256  # of a pixel: four channels of 64 bits; a small upload must not fill the memory


def is_tiff(head: bytes) -> bool:
    """Return whether a file that begins with these four bytes is a TIFF or a BigTIFF."""
    return head in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True, eq=False)
class TiffPage:
    """The page of a file that is read: the only one of full size, or the one asked for."""

    name: str
    file: BinaryIO
    tags: Tags
    index: int  # of all pages, overviews included
    order: str  # of bytes: < or >

    @classmethod
    def choose(cls, file: BinaryIO, name: str, page: int | None, max_pixels: int | None) -> TiffPage:
        """Choose page `page`, counted from 1 without overviews and masks; None: the only one.

        Raises:
            ImageError: too large, or several pages and none chosen.
            OSError, struct.error: damaged.
        """
        full = full_pages(file)
        if page is not None and not 1 <= page <= len(full):
            raise ImageError(f"{name}: has no page {page}; it has {len(full)}", "frames", str(len(full)))
        if page is None and len(full) > 1:
            text = (
                f"{name}: has {len(full)} pages; choose one with `page`, or split the file into one per page"
            )
            raise ImageError(text, "frames", str(len(full)))
        if not full:
            raise OSError("no page of full size")
        index, tags = full[(page or 1) - 1]
        chosen = cls(name, file, tags, index, _order(file))
        require_size(name, chosen._get(256, 0), chosen._get(257, 0), max_pixels)
        if not chosen.is_plain:
            chosen._require_pillow()
        return chosen

    def _require_pillow(self) -> None:
        """Raise an `ImageError` unless Pillow reads a page that is not plain without changing its numbers."""
        compression, colors = self._get(259, 1), self._get(262, _BLACK_IS_ZERO)
        known = _COMPRESSIONS.get(compression, f"number {compression}")
        if compression not in (1, *_DEFLATE, *_BY_LIBTIFF, *_BY_PILLOW):
            fault = f"its compression ({known}) cannot be read; save it with deflate or LZW"
        elif colors > _PALETTE and colors not in _COLORS_BY_PILLOW:
            fault = f"its colour space (photometric {colors}) cannot be read; save it as grey or RGB"
        elif (header := self.header()).bits not in (1, 8) or header.numbers not in ("unsigned", "palette"):
            kind = f"compression {known}" if compression in _BY_PILLOW else f"photometric {colors}"
            fault = f"{header} numbers cannot be read with {kind}; save it as grey or RGB with deflate or LZW"
        else:
            return
        raise ImageError(f"{self.name}: {fault}", "format")

    def _get(self, tag: int, default: int) -> int:
        return (*self.tags.get(tag, ()), default)[0]

    @property
    def is_plain(self) -> bool:
        """Whether `decode` reads it; else Pillow does, to 8 bits."""
        known = self._get(259, 1) in (1, *_DEFLATE, *_BY_LIBTIFF)
        return known and self._get(262, _BLACK_IS_ZERO) <= _PALETTE

    @property
    def white_is_zero(self) -> bool:
        """Whether small numbers are bright."""
        return self._get(262, _BLACK_IS_ZERO) == _WHITE_IS_ZERO

    @property
    def lossy(self) -> bool:
        """Whether the compression changes values."""
        return self._get(259, 1) in _LOSSY

    @property
    def orientation(self) -> int:
        """The orientation tag, 1 to 8."""
        value = self._get(274, 1)
        return value if 1 <= value <= 8 else 1

    def header(self) -> ImageHeader:
        """Describe the page without decoding it; an `ImageError` if its numbers are of an unknown kind."""
        width, height, channels = self._get(256, 0), self._get(257, 0), self._get(277, 1)
        bits, formats = set(self.tags.get(258, (1,))), set(self.tags.get(339, (1,)))
        depth, known = max(bits), _NUMBERS.get(max(formats))
        fault = ""
        if len(bits) != 1 or len(formats) != 1:
            fault = "its channels are of different types"
        elif not 1 <= channels * depth <= _MOST_BITS:
            fault = f"it has {channels} channels of {depth} bits"
        elif known is None or depth not in known[1]:
            fault = f"it has {depth}-bit {known[0] if known else 'complex'} numbers"
        if known is None or fault:
            remedy = "save it with whole numbers of 8 or 16 bits, or floats of 32"
            raise ImageError(f"{self.name}: cannot be read ({fault}); {remedy}", "format")
        turned = self.orientation >= 5
        size = (width, height) if turned else (height, width)
        if self._get(262, _BLACK_IS_ZERO) == _PALETTE:
            return ImageHeader(*size, 1, depth, "palette", self.orientation)
        return ImageHeader(*size, channels, depth, known[0], self.orientation)

    def decode(self) -> Raster:
        """Decode the page.

        Raises:
            OSError, ValueError, LookupError, zlib.error, struct.error: damaged.
            ImageError: of an unknown kind.
        """
        header, channels, extra = self.header(), self._get(277, 1), self.tags.get(338, (0,))
        planes = channels if self._get(284, 1) == 2 else 1
        samples = np.concatenate([self._plane(plane, channels // planes) for plane in range(planes)], axis=2)
        palette = None
        if header.numbers == "palette":
            colors = np.asarray(self.tags[320], dtype=np.int64).reshape(3, -1).T
            palette = (colors >> 8 if colors.max() > 255 else colors).astype(np.uint8)
        return Raster(
            self.name,
            header,
            upright(samples[..., 0] if header.channels == 1 else samples, self.orientation),
            white=(1 << header.bits) - 1,
            white_is_zero=self.white_is_zero,
            palette=palette,
            opacity=extra[-1] in (1, 2),
            nodata=self._nodata,
            photo=self._get(262, _BLACK_IS_ZERO) == _RGB or channels in (3, 4),
        )

    @property
    def _nodata(self) -> float | None:
        """GDAL's number for missing values, which is stored as text."""
        try:
            return float(bytes(self.tags.get(42113, ())).split(b"\0")[0])
        except ValueError:
            return None

    def _plane(self, plane: int, channels: int) -> NDArray[Any]:
        """Put the strips or tiles of a plane together: (H, W, C) as stored."""
        width, height = self._get(256, 0), self._get(257, 0)
        tiled = 322 in self.tags
        rows = self._get(323, 0) if tiled else min(height, self._get(278, height))
        columns = self._get(322, 0) if tiled else width
        if min(columns, rows) < 1 or columns * rows > max(4 * width * height, _LARGE_TILE):
            raise OSError("its strips or tiles have an impossible size")
        offsets, counts = (self.tags.get(tag, ()) for tag in ((324, 325) if tiled else (273, 279)))
        across, down = -(-width // columns), -(-height // rows)
        lines = []
        for row in range(down):
            # A tile is whole, the last strip is not.
            shape = (rows if tiled else min(rows, height - row * rows), columns, channels)
            first = (plane * down + row) * across
            places = zip(offsets[first : first + across], (*counts, 0)[first : first + across], strict=True)
            lines.append(np.concatenate([self._segment(*place, shape) for place in places], axis=1))
        return np.concatenate(lines)[:height, :width]

    def _segment(self, offset: int, count: int, shape: tuple[int, int, int]) -> NDArray[Any]:
        """Decode one strip or tile, (rows, columns, channels)."""
        header, compression = self.header(), self._get(259, 1)
        line = -(-shape[1] * shape[2] * header.bits // 8)  # bytes of a row
        kind, size = {"float": "f", "signed": "i"}.get(header.numbers, "u"), header.bits // 8
        if offset == count == 0:
            return self._left_out(shape, np.dtype(f"{kind}{-(-header.bits // 8)}"))
        end = self.file.seek(0, os.SEEK_END)
        self.file.seek(min(offset, end))
        content = self.file.read(min(line * shape[0] if compression == 1 else count, end))
        if self._get(266, 1) == 2:
            content = content.translate(_REVERSED)
        if compression != 1:
            content = _unpacked(content, compression, line, shape[0])
        if len(content) < line * shape[0]:
            raise OSError("image file is truncated")
        rows = np.frombuffer(content, np.uint8, line * shape[0]).reshape(shape[0], line)
        predictor = 1 if compression in (1, 32773) else self._get(317, 1)
        if predictor == 1 and header.bits % 8:
            digits = np.unpackbits(rows, axis=1)[:, : shape[1] * shape[2] * header.bits]
            weights: NDArray[Any] = 1 << np.arange(header.bits)[::-1]
            numbers = digits.reshape(*shape, header.bits) @ weights
            return np.asarray(numbers.astype(np.uint8 if header.bits < 8 else np.uint16))
        if predictor == 1:
            return rows.view(f"{self.order}{kind}{size}").astype(f"{kind}{size}").reshape(shape)
        if predictor == 2 and not header.bits % 8:
            steps = rows.view(f"{self.order}u{size}").astype(f"u{size}").reshape(shape)
            return np.cumsum(steps, axis=1, dtype=f"u{size}").view(f"{kind}{size}")
        if predictor == 3 and kind == "f":
            # Each row holds the differences of bytes: first all leading bytes, then all second ones.
            summed = np.cumsum(rows.reshape(shape[0], -1, shape[2]), axis=1, dtype=np.uint8)
            ordered = np.ascontiguousarray(summed.reshape(shape[0], size, -1).swapaxes(1, 2))
            return ordered.view(f">f{size}").astype(f"f{size}").reshape(shape)
        raise OSError(f"predictor {predictor} of {header}")

    def _left_out(self, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return a block that the file leaves out: GDAL does so where no value is set."""
        missing = self._nodata or 0.0
        if dtype.kind != "f":
            limits = np.iinfo(dtype)
            missing = missing if missing.is_integer() and limits.min <= missing <= limits.max else 0
        return np.full(shape, missing, dtype)


def full_pages(file: BinaryIO) -> list[tuple[int, Tags]]:
    """Return the pages of full size, no overviews and masks, with their places among all pages."""
    full = []
    for index, tags in enumerate(_pages(file)):
        kind = tags.get(254, (_REDUCED if tags.get(255) == (2,) else 0,))[0]  # 255: the older SubfileType
        if not kind & (_REDUCED | _MASK):
            full.append((index, tags))
    return full


def _order(file: BinaryIO) -> str:
    file.seek(0)
    return "<" if file.read(1) == b"I" else ">"


def _pages(file: BinaryIO) -> Iterator[Tags]:
    """Read the tags that this module uses, of all pages."""
    order = _order(file)
    file.seek(0)
    head = file.read(16)
    end = file.seek(0, os.SEEK_END)
    big = b"+" in head[2:4]  # a BigTIFF: its offsets and counts have 8 bytes
    word, size, counter = ("Q", 8, "Q") if big else ("I", 4, "H")

    def number(letter: str, content: bytes) -> int:
        return int(struct.unpack(order + letter, content)[0])

    place, seen = number(word, head[size : 2 * size]), set[int]()
    while place and place not in seen and len(seen) < _MOST_PAGES:
        seen.add(place)
        file.seek(min(place, end))
        count = number(counter, file.read(struct.calcsize(counter))) * (4 + 2 * size)
        content = file.read(min(count, end))
        place = number(word, file.read(size).ljust(size, b"\0"))
        tags: Tags = {}
        for tag, kind, amount, value in struct.iter_unpack(f"{order}HH{word}{size}s", content):
            letter = _TYPES.get(kind)
            if tag in _TAGS and letter is not None:
                extent = amount * struct.calcsize(letter)
                if extent > size:
                    file.seek(min(number(word, value), end))
                    value = file.read(min(extent, end))
                tags[tag] = struct.unpack(f"{order}{amount}{letter}", value[:extent])
        yield tags


def _unpacked(content: bytes, compression: int, line: int, rows: int) -> bytes:
    """Undo a compression: at most `rows` rows of `line` bytes."""
    if compression in _DEFLATE:
        return zlib.decompressobj().decompress(content, line * rows)
    # libtiff reads the bytes of a row as an 8-bit grey image of that width, whatever they stand for.
    tags = {
        256: line,
        257: rows,
        258: 8,
        259: compression,
        262: 1,
        273: 8,
        277: 1,
        278: rows,
        279: len(content),
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    padding = bytes(len(content) % 2)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(content) + len(padding))
    wrapped = head + content + padding + struct.pack("<H", len(tags)) + entries + bytes(4)
    with Image.open(io.BytesIO(wrapped), formats=["TIFF"]) as image:
        return image.tobytes()
