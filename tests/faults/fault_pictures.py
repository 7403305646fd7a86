"""Image files that are wrong in one way each, as bytes."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64


def colours(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Smooth blobs, uint8 (H, W, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def heat(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Smooth blobs, uint8 (H, W)."""
    return colours(seed + 100, height, width)[..., 0]


def labels(seed: int, classes: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Classes at random, uint8 (H, W)."""
    return np.random.default_rng(seed).integers(0, classes, (height, width), dtype=np.uint8)


def encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


COLOUR = encoded(colours(1))
THERMAL = encoded(heat(1))


def animation(kind: str, modes: str = "RGB") -> bytes:
    """Two frames of GIF, APNG, WebP or TIFF."""
    frames = [Image.fromarray(colours(seed)).convert(modes) for seed in (1, 2)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb(width: int = 60_000, height: int = 60_000, colour_type: int = 2) -> bytes:
    """A PNG of a few hundred bytes whose header claims 3.6 thousand million pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A small picture with a compressed comment of 100 MB."""
    comment = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9))
    return COLOUR[:33] + comment + COLOUR[33:]


def bmp_bomb() -> bytes:
    """A BMP header of 100,000 x 100,000 pixels."""
    info = struct.pack("<IiiHHIIiiII", 40, 100_000, 100_000, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 100, 0, 0, 54) + info + bytes(100)


def wide_colours() -> bytes:
    """A TIFF of three different channels of 16 bits, which Pillow would read as 8."""
    pixels = np.full((HEIGHT, WIDTH, 3), (9000, 8000, 7000), ">u2").tobytes()
    entries = [
        (256, 3, WIDTH), (257, 3, HEIGHT), (258, 3, 16), (259, 3, 1), (262, 3, 2), (273, 4, 8), (277, 3, 3),
        (278, 3, HEIGHT), (279, 4, len(pixels)),
    ]  # fmt: skip
    offset = 8 + len(pixels)
    bits_at = offset + 2 + 12 * len(entries) + 4
    packed = b"".join(
        struct.pack(">HHII", tag, 3, 3, bits_at)
        if tag == 258
        else struct.pack(">HHIHH", tag, 3, 1, value, 0)
        if kind == 3
        else struct.pack(">HHII", tag, 4, 1, value)
        for tag, kind, value in entries
    )
    directory = struct.pack(">H", len(entries)) + packed + struct.pack(">I", 0)
    return b"MM\x00*" + struct.pack(">I", offset) + pixels + directory + struct.pack(">HHH", 16, 16, 16)


def turned(orientation: int = 6) -> bytes:
    """A JPEG whose EXIF says that it lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(colours(1), "JPEG", exif=exif)


def cmyk() -> bytes:
    return encoded(Image.fromarray(colours(1)).convert("CMYK"), "JPEG")


def wide(values: np.ndarray | None = None) -> bytes:
    """A PNG of one channel of 16 bits."""
    return encoded((heat(1).astype(np.uint16) * 40 + 7000) if values is None else values.astype(np.uint16))


def floats(value: float) -> bytes:
    """A float TIFF with one pixel of that value."""
    image = heat(1).astype(np.float32)
    image[3, 4] = value
    return encoded(image, "TIFF")


def four_channels(seed: int = 1, height: int = HEIGHT, width: int = WIDTH) -> bytes:
    return encoded(np.dstack([colours(seed, height, width), heat(seed, height, width)]))
