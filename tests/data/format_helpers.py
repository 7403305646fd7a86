"""Writers of image files that Pillow cannot write: TIFFs of any kind, PNGs of any depth."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

NONE, LZW, DEFLATE, PACKBITS, LZMA, ZSTD = 1, 5, 8, 32773, 34925, 50000
_NAMES = {LZW: "tiff_lzw", PACKBITS: "packbits", LZMA: "lzma", ZSTD: "zstd"}


def write_png(path: Path, samples: np.ndarray, bits: int, colors: int, *chunks: tuple[bytes, bytes]) -> Path:
    """Write a PNG without filters; `colors` is its colour type, `chunks` follow the pixels."""
    rows = []
    for row in samples.reshape(samples.shape[0], -1):
        if bits < 8:
            digits = (row[:, None] >> np.arange(bits)[::-1]) & 1
            rows.append(b"\0" + np.packbits(digits.astype(np.uint8).ravel()).tobytes())
        else:
            rows.append(b"\0" + row.astype(f">u{bits // 8}").tobytes())

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">2I5B", samples.shape[1], samples.shape[0], bits, colors, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(b"".join(rows))), *chunks, (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


def _compressed(rows: np.ndarray, compression: int) -> bytes:
    """Compress bytes (rows, columns); libtiff's own compressions by way of an 8-bit grey image."""
    if compression == NONE:
        return rows.tobytes()
    if compression == DEFLATE:
        return zlib.compress(rows.tobytes())
    buffer = io.BytesIO()
    strip = TiffImagePlugin.ImageFileDirectory_v2()
    strip[278] = rows.shape[0]
    Image.fromarray(rows).save(buffer, "TIFF", compression=_NAMES[compression], tiffinfo=strip)
    with Image.open(buffer) as image:
        (offset,), (count,) = image.tag_v2[273], image.tag_v2[279]
    return buffer.getvalue()[offset : offset + count]


def _encoded(part: np.ndarray, order: str, bits: int, predictor: int, compression: int) -> bytes:
    """Encode a strip or tile (rows, columns, channels)."""
    rows, columns, channels = part.shape
    size = part.dtype.itemsize
    if bits % 8:
        digits = (part.reshape(rows, -1, 1) >> np.arange(bits)[::-1].astype(part.dtype)) & 1
        content = np.packbits(digits.astype(np.uint8).reshape(rows, -1), axis=1)
    elif predictor == 3:
        # Bytes of one weight side by side, the heaviest first, then differences (Adobe's technical note 3).
        content = part.astype(f">f{size}").view(np.uint8).reshape(rows, columns * channels, size)
        content = content.transpose(0, 2, 1).reshape(rows, -1, channels)
        content = np.diff(content, axis=1, prepend=np.zeros_like(content[:, :1])).reshape(rows, -1)
    else:
        values = part.view(f"u{size}")
        if predictor == 2:
            values = np.diff(values, axis=1, prepend=np.zeros_like(values[:, :1]))
        content = values.astype(f"{order}u{size}").reshape(rows, -1).view(np.uint8)
    return _compressed(np.ascontiguousarray(content), compression)


def tiff_bytes(
    *pages: np.ndarray,
    order: str = "<",
    big: bool = False,
    bits: int | None = None,
    compression: int = NONE,
    predictor: int = 1,
    tile: tuple[int, int] | None = None,
    rows: int | None = None,
    planar: bool = False,
    tags: dict[int, tuple[int, ...] | str] | None = None,
    page_tags: dict[int, dict[int, tuple[int, ...] | str]] | None = None,
) -> bytes:
    """Return a TIFF of images (H, W) or (H, W, C); `tags` are added to all pages, `page_tags` to some."""
    word, size = ("Q", 8) if big else ("I", 4)
    out = bytearray(b"II" if order == "<" else b"MM")
    out += struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 0) if big else (42, 0)))
    link = len(out) - size
    for number, page in enumerate(pages):
        image = page if page.ndim == 3 else page[..., None]
        height, width, channels = image.shape
        depth = bits or image.itemsize * 8
        planes = [image[..., place : place + 1] for place in range(channels)] if planar else [image]
        high, wide = tile or (rows or height, width)
        offsets, counts = [], []
        for plane in planes:
            for top in range(0, height, high):
                for left in range(0, width, wide):
                    part = plane[top : top + high, left : left + wide]
                    if tile is not None:
                        missing = ((0, high - part.shape[0]), (0, wide - part.shape[1]), (0, 0))
                        part = np.pad(part, missing, mode="edge")
                    content = _encoded(np.ascontiguousarray(part), order, depth, predictor, compression)
                    offsets.append(len(out))
                    counts.append(len(content))
                    out += content + bytes(len(content) % 2)
        kind = {"u": 1, "i": 2, "f": 3}[image.dtype.kind]
        entries: dict[int, tuple[int, ...] | str] = {
            256: (width,), 257: (height,), 258: (depth,) * channels, 259: (compression,),
            262: (2 if channels >= 3 else 1,), 277: (channels,), 284: (2 if planar else 1,),
            317: (predictor,), 339: (kind,) * channels,
        }  # fmt: skip
        places = {322: (wide,), 323: (high,), 324: offsets, 325: counts}
        strips = {273: offsets, 278: (high,), 279: counts}
        entries |= {tag: tuple(values) for tag, values in (places if tile else strips).items()}
        entries |= (tags or {}) | (page_tags or {}).get(number, {})
        directory = struct.pack(order + ("Q" if big else "H"), len(entries))
        for tag, values in sorted(entries.items()):
            text = isinstance(values, str)
            letter = "B" if text else "I" if tag in (273, 279, 324, 325) else "H"
            numbers: Any = values.encode() + b"\0" if isinstance(values, str) else values
            raw = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
            if len(raw) > size:
                out += bytes(len(out) % 2)
                place = len(out)
                out += raw
                raw = struct.pack(order + word, place)
            code = 2 if text else {"H": 3, "I": 4}[letter]
            directory += struct.pack(f"{order}HH{word}", tag, code, len(numbers)) + raw.ljust(size, b"\0")
        out += bytes(len(out) % 2)
        struct.pack_into(order + word, out, link, len(out))
        link = len(out) + len(directory)
        out += directory + bytes(size)
    return bytes(out)


def write_tiff(path: Path, *pages: np.ndarray, **kind: Any) -> Path:
    """Write `tiff_bytes`."""
    path.write_bytes(tiff_bytes(*pages, **kind))
    return path
