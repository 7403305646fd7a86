"""The decoder of still images: files, members of tars and uploads become a `Raster` or an `ImageError`."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from efnet.core.errors import InputError
from efnet.data.archive import file_bytes, tar_of
from efnet.data.bands import NUMPY_MAGIC, NumpyFile, bands_of
from efnet.data.radiometric import find_radiometry
from efnet.data.raster import ImageError, ImageHeader, Raster, require_size, upright
from efnet.data.tiff import TiffPage, full_pages, is_tiff

PathLike = str | os.PathLike[str]

# Pillow's decoders raise these on damaged files; OSError covers missing, truncated and unidentified ones.
_DECODING_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, MemoryError,
    struct.error, zlib.error,
)  # fmt: skip


def read_header(path: PathLike) -> ImageHeader:
    """Read an image's size and kind without decoding it; errors as `open_image`."""
    file, bands = bands_of(Path(path))
    with _reader(file, str(path)) as reader:
        return reader.header() if bands is None else bands.header(reader.header(), str(path))


def open_image(
    source: PathLike | bytes,
    *,
    name: str | None = None,
    formats: tuple[str, ...] | None = None,
    max_pixels: int | None = None,
) -> Raster:
    """Decode one still image, turned upright by its EXIF or TIFF orientation; its file is closed.

    Args:
        source: a file, which may lie in a tar (`efnet.data.archive`), or the bytes of one. A path that goes
            on below a TIFF, `stack.tif/2`, is a page of it, counted from 1; `stack.tif/bands=4` are channels
            of any file (`efnet.data.bands`).
        name: of the source in messages; None: its path.
        formats: Pillow's names of the formats that are tried; None: all.
        max_pixels: limit, compared with the header before any pixel is decoded; None: Pillow's own.

    Raises:
        ImageError: missing, empty, damaged, animated, of several pages, of another format, or too large.
    """
    name = name or ("image" if isinstance(source, bytes) else str(source))
    source, bands = (source, None) if isinstance(source, bytes) else bands_of(Path(source))
    with _reader(source, name, formats, max_pixels) as reader:
        return reader.decode() if bands is None else bands.select(reader.decode())


class _Reader(Protocol):
    """An opened file of one format."""

    def header(self) -> ImageHeader:
        """Describe the image without decoding it."""

    def decode(self) -> Raster:
        """Decode it."""


@contextlib.contextmanager
def _reader(
    source: Path | bytes, name: str, formats: tuple[str, ...] | None = None, max_pixels: int | None = None
) -> Iterator[_Reader]:
    """Open `source`; every decoding error inside the block becomes an `ImageError`."""
    try:
        page = None
        if isinstance(source, Path):
            source, page = page_of(source)
        with contextlib.ExitStack() as stack:
            if isinstance(source, Path) and tar_of(source) is None:
                file: BinaryIO = stack.enter_context(source.open("rb"))
            else:
                file = io.BytesIO(source if isinstance(source, bytes) else file_bytes(source))
            head = file.read(4)
            if not head:
                raise ImageError(f"{name}: is empty (0 bytes); copy it again from its source", "empty")
            tiff: TiffPage | None = None
            if is_tiff(head):
                tiff = TiffPage.choose(file, name, page, max_pixels)
                if tiff.is_plain:
                    yield tiff
                    return
            elif page is not None:
                raise ImageError(f"{name}: the file is not a TIFF and has no pages; give it alone", "frames")
            elif re.match(rb"P[2356][\s#]", head):
                yield _Pnm.parse(file, name, max_pixels)
                return
            elif head == NUMPY_MAGIC and formats is None:
                yield NumpyFile.parse(file, name, max_pixels)
                return
            file.seek(0)
            image = stack.enter_context(Image.open(file, formats=formats))
            if tiff is not None:
                image.seek(tiff.index)
            require_size(name, *image.size, max_pixels)
            frames = getattr(image, "n_frames", 1)
            if (
                tiff is None and frames > 1 and image.format != "MPO"
            ):  # MPO: a phone's JPEG, a preview behind it
                text = f"{name}: has {frames} frames; save the one you mean as PNG"
                raise ImageError(text, "frames", str(frames))
            yield _Picture(name, file, image, tiff)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        text = f"{name}: too large for an image ({error}); is this the file you mean?"
        raise ImageError(text, "size") from error
    except _DECODING_ERRORS as error:
        raise _unreadable(source, name, error) from error


def page_of(path: Path) -> tuple[Path, int | None]:
    """Separate `stack.tif/2` into file and page; other paths have no page."""
    file = path.parent
    if path.name.isdecimal() and (tar_of(path) is None or file.suffix.lower() in (".tif", ".tiff")):
        return (file, int(path.name)) if file.is_file() or tar_of(file) else (path, None)
    return path, None


def count_pages(path: Path) -> int:
    """Return how many pages of full size a TIFF has; 1 for other files, and for those that cannot be read."""
    with contextlib.suppress(*_DECODING_ERRORS, InputError), path.open("rb") as file:
        if is_tiff(file.read(4)):
            return len(full_pages(file))
    return 1


def page_at(path: Path | None, page: int) -> Path | None:
    """Return the path of a page, if the file is a TIFF of several; else the path itself."""
    return path / str(page) if path is not None and count_pages(path) > 1 else path


def _unreadable(source: Path | bytes, name: str, error: BaseException) -> ImageError:
    """Return the error that gives why `source` could not be read, and the remedy."""
    if isinstance(source, Path) and tar_of(source) is None:
        missing = not os.path.exists(source)  # noqa: PTH110 - pathlib's raises for a name too long
        fault = ""
        if missing:
            fault = "no such file; check the folder, or take its name off the list"
        elif source.is_dir():
            fault = "is a folder; give an image file"
        elif isinstance(error, PermissionError):
            fault = "may not be read (permission denied); change its permissions"
        if fault:
            return ImageError(f"{name}: {fault}", "missing")
    foreign = isinstance(error, UnidentifiedImageError)
    reason = " ".join(str(error).split()) or type(error).__name__
    reason = "not an image format that can be read" if foreign else reason
    return ImageError(
        f"{name}: cannot be read ({reason}); copy it again from its source, or save it as PNG",
        "format" if foreign else "damaged",
        reason,
    )


_Numbers = Literal["unsigned", "signed", "float", "palette"]
_MODES: dict[str, tuple[int, int, _Numbers]] = {
    "1": (1, 1, "unsigned"),
    "L": (1, 8, "unsigned"),
    "LA": (2, 8, "unsigned"),
    "P": (1, 8, "palette"),
    "PA": (1, 8, "palette"),
    "I": (1, 32, "signed"),
    "F": (1, 32, "float"),
    "RGBA": (4, 8, "unsigned"),
    "RGBX": (4, 8, "unsigned"),
    "I;16": (1, 16, "unsigned"),
}
"""Channels, bits and numbers of Pillow's modes; all others are colours that it converts to RGB."""

_LOSSY = ("AVIF", "JPEG", "JPEG2000", "MPO")
"""Pillow's formats whose compression may change values; AVIF and JPEG 2000 do not say whether it did."""


@dataclass(frozen=True)
class _Picture:
    """An image that Pillow decodes: PNG, JPEG, BMP, WebP, and the TIFFs with compressions of pictures."""

    name: str
    file: BinaryIO
    image: Image.Image
    tiff: TiffPage | None  # where a TIFF is left to Pillow, which turns it upright itself

    def header(self) -> ImageHeader:
        """Describe the image."""
        width, height = self.image.size
        orientation = self._orientation()
        if orientation >= 5 and self.tiff is None:
            width, height = height, width
        channels, bits, numbers = _MODES.get(self.image.mode[:4], (3, 8, "unsigned"))
        if self.image.format == "PNG":
            self.file.seek(24)
            bits, colors = self.file.read(2)
            if bits == 16:  # of which Pillow's mode reveals one channel only
                channels = {2: 3, 4: 2, 6: 4}.get(colors, 1)
        return ImageHeader(height, width, channels, bits, numbers, orientation)

    def decode(self) -> Raster:
        """Decode it; channels of 16 bits are kept, which Pillow alone would reduce to 8."""
        header, image = self.header(), self.image
        white = (1 << header.bits) - 1
        if header.bits == 16 and header.channels > 1:
            samples = self._grey_and_opacity() if header.channels == 2 else self._wide_channels()
        else:
            image.load()
            if header.channels == 3 and image.mode != "RGB":  # CMYK, YCbCr, Lab
                image = image.convert("RGB")
            samples = np.asarray(image)
            if image.mode == "PA":
                samples = samples[..., 0]
            elif header.bits == 1 and image.mode == "1":
                samples = samples.astype(np.uint8)
            elif image.mode.startswith("I;16"):
                samples = samples.astype(np.uint16)
            elif header.bits < 8 and image.mode == "L":
                samples = samples // np.uint8(255 // white)  # Pillow spreads small greys over 0..255
        white_is_zero = self.tiff is not None and self.tiff.white_is_zero and header.channels == 1
        white_is_zero |= image.format == "PPM" and image.mode == "1"  # PBM: 1 is black
        if white_is_zero:
            samples = white - samples  # Pillow has inverted them
        if self.tiff is None:  # Pillow turns TIFFs itself
            samples = upright(samples, header.orientation)
        colors = image.getpalette("RGB") if header.numbers == "palette" else None
        return Raster(
            self.name,
            header,
            samples,
            white=white,
            white_is_zero=white_is_zero,
            palette=None if colors is None else np.asarray(colors, dtype=np.uint8).reshape(-1, 3),
            opacity=header.channels in (2, 4),
            lossy=self._is_lossy(),
            radiometry=find_radiometry(image, self._content),
        )

    def _content(self) -> bytes:
        self.file.seek(0)
        return self.file.read()

    def _orientation(self) -> int:
        if self.tiff is not None:
            return self.tiff.orientation
        # A PNG's EXIF may follow its pixels: asking for it decodes them, so look first whether there is any.
        if self.image.format == "PNG" and not {b"eXIf", b"tEXt", b"zTXt", b"iTXt"} & {
            *self._chunks(8, ">I4s", 12)
        }:
            return 1
        value = self.image.getexif().get(ExifTags.Base.Orientation, 1)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1

    def _is_lossy(self) -> bool:
        if self.image.format == "WEBP":
            return b"VP8 " in self._chunks(12, "<4sI", 8)
        return self.tiff.lossy if self.tiff is not None else self.image.format in _LOSSY

    def _chunks(self, place: int, head: str, around: int) -> Iterator[bytes]:
        """Yield the names of a PNG's or WebP's chunks; `around` bytes of each are not its content."""
        end = self.file.seek(0, os.SEEK_END)
        while place < end:
            self.file.seek(place)
            fields = struct.unpack(head, self.file.read(8).ljust(8, b"\0"))
            name, length = sorted(fields, key=lambda field: isinstance(field, int))
            yield name
            place += around + length + (length % 2 if around == 8 else 0)  # WebP pads to even lengths

    def _wide_channels(self) -> NDArray[np.uint16]:
        """Return three or four channels of 16 bits.

        Pillow keeps the high byte of each. Read in the other byte order, that is the low byte.
        """
        halves = []
        for order in "BL":
            self.file.seek(0)
            with Image.open(self.file, formats=["PNG"]) as image:
                image.tile = [tile._replace(args=f"{image.mode};16{order}") for tile in image.tile]
                halves.append(np.asarray(image).astype(np.uint16))
        return halves[0] << np.uint16(8) | halves[1]

    def _grey_and_opacity(self) -> NDArray[np.uint16]:
        """Return two channels of 16 bits: the bytes of a pixel are those of RGBA with 8, filters included."""
        self.file.seek(0)
        content = bytearray(self.file.read())
        content[24:26] = (8, 6)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            return np.asarray(image).view(">u2").astype(np.uint16)


_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PNM = re.compile(rb"P([2356])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)")
_COMMENT = re.compile(rb"[ \t]*#[^\r\n]*(?:\r\n|[\r\n])")
_MOST_COMMENTS = 100


@dataclass(frozen=True)
class _Pnm:
    """PGM and PPM, text or binary, of any largest value: Pillow would rescale them to 255 or 65535."""

    name: str
    binary: bool
    shape: tuple[int, int, int]  # rows, columns, channels
    white: int  # the largest value
    content: bytes  # numbers, without the header

    @classmethod
    def parse(cls, file: BinaryIO, name: str, max_pixels: int | None) -> _Pnm:
        """Read the header; an OSError if it is damaged, an `ImageError` if other images follow."""
        file.seek(0)
        content = file.read()
        match = _PNM.match(content[:65536])
        kind, width, height, white = map(int, match.groups() if match else (0, 0, 0, 0))
        if match is None or not 1 <= white <= 65535:
            raise OSError("its header is damaged")
        require_size(name, width, height, max_pixels)
        shape = (height, width, 3 if kind in (3, 6) else 1)
        content = content[match.end() :]
        if kind >= 5:
            size = math.prod(shape) * (1 if white < 256 else 2)
            start = _start_of_pixels(content, size)
            if re.match(rb"\s*P[1-6]\s", content[start + size :]):
                raise ImageError(f"{name}: holds several images; save each in a file of its own", "frames")
            content = content[start : start + size]
        return cls(name, kind >= 5, shape, white, content)

    def header(self) -> ImageHeader:
        """Describe the image."""
        return ImageHeader(*self.shape, self.white.bit_length())

    def decode(self) -> Raster:
        """Decode it; a ValueError if it is cut off or holds anything but numbers."""
        count = math.prod(self.shape)
        if self.binary:
            samples = np.frombuffer(self.content, np.uint8 if self.white < 256 else ">u2", count)
        else:
            samples = np.asarray(re.sub(rb"#[^\r\n]*", b"", self.content).split(), dtype=np.int64)
            if samples.size != count or samples.min() < 0 or samples.max() > self.white:
                raise ValueError(f"it does not hold {count} numbers from 0 to {self.white}")
        samples = samples.astype(np.uint8 if self.white < 256 else np.uint16).reshape(self.shape)
        samples = samples[..., 0] if self.shape[2] == 1 else samples
        return Raster(self.name, self.header(), samples, white=self.white)


def _start_of_pixels(content: bytes, size: int) -> int:
    """Return where the `size` bytes of pixels begin behind the largest value of a header.

    By the format one white space ends a header, but programs of Windows write two, and others comments.
    Pixels may look like both, so the length of the file decides. Raises OSError if it does not, or if the
    pixels are cut off.
    """
    found = [1] if content[:1].isspace() else []
    found += [2] if content[:2] == b"\r\n" else []
    for place in (0, *found):
        for _ in range(_MOST_COMMENTS):
            if (comment := _COMMENT.match(content, place)) is None:
                break
            place = comment.end()
            found.append(place)
    starts = [start for start in dict.fromkeys(found) if len(content) - start >= size]
    exact = [start for start in starts if len(content) - start == size]
    if len(exact or starts) != 1:
        raise OSError("it is open where its pixels begin" if starts else "it is cut off")
    return (exact or starts)[0]
