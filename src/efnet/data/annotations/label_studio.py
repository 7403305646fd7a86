"""Label Studio's JSON export: tasks with polygons, brush strokes, bitmasks, rectangles and ellipses.

The format is that of https://labelstud.io/guide/task_format; brush strokes are packed as
`@thi.ng/rle-pack` describes, four channels of which the last is the mask. A bitmask is a PNG of the image's
size, black where the region is and transparent elsewhere (https://labelstud.io/tags/bitmask). Coordinates
are in percent. Regions are drawn in the order of the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from efnet.core.errors import InputError
from efnet.data.annotations.regions import (
    AnnotatedImage,
    Annotations,
    Draw,
    Region,
    Size,
    as_points,
    ellipse,
    fill,
    no_area,
    read_png,
    rectangle,
)
from efnet.data.components import Mask
from efnet.data.images import IMAGE_SUFFIXES

_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
"""Name of an uploaded file: Label Studio puts eight digits in front."""
_KEYS = ("image", "rgb", "img", "visible", "color", "url")
"""Names of the image in a task's data, where several images are given."""
_AREAS = ("polygon", "brush", "bitmask", "rectangle", "ellipse")
_NO_AREAS = ("keypoint", "vector", "video")
_DATA_URL = "data:image/png;base64,"


def is_label_studio(content: Any) -> bool:
    """Whether the content of a JSON file is Label Studio's."""
    return isinstance(content, list) and all(
        isinstance(task, dict) and "data" in task for task in content[:1]
    )


def read_label_studio(path: Path, content: Any) -> Annotations:
    """Read an export; raises InputError if keys are missing, of another type, or images are turned."""
    found = Annotations()
    several = 0
    for number, task in enumerate(content, start=1):
        try:
            done = [entry for entry in task.get("annotations") or [] if not entry.get("was_cancelled")]
            several += len(done) > 1
            # The one that was declared to be right, else the one that was changed last.
            done.sort(key=lambda entry: (bool(entry.get("ground_truth")), str(entry.get("updated_at", ""))))
            if done:
                results = done[-1]["result"]
                names = _names(task["data"])
                found.images.append(AnnotatedImage(path, names, _size(results), _regions(results)))
        except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
            detail = str(error) if isinstance(error, InputError) else repr(error)
            raise InputError(
                f"{path}: task {task.get('id', number) if isinstance(task, dict) else number} is not of "
                f"Label Studio's export 'JSON' ({detail}); export it again"
            ) from error
    if several:
        found.notes.append(
            f"{path}: {several} tasks have several annotations; the one marked as ground truth is read, else "
            "the one changed last"
        )
    if not found.images:
        raise InputError(f"{path}: no task has an annotation; export the project as 'JSON' (not 'JSON-MIN')")
    return found


def _names(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names under which a task's image may be stored."""
    named = {}
    for key, value in data.items():
        if isinstance(value, str):
            parts = urlsplit(value)
            local = parse_qs(parts.query).get("d", [""])[0]  # /data/local-files/?d=folder/name.jpg
            name = (local or unquote(parts.path)).replace("\\", "/").lstrip("/")
            if name.lower().endswith(IMAGE_SUFFIXES):
                named[key] = name
    if not named:
        raise InputError(f"its data ({', '.join(data)}) names no image file")
    key = next((key for key in _KEYS if key in named), next(iter(named)))
    name = named[key]
    uploaded = _UPLOADED.fullmatch(name.rsplit("/", 1)[-1])
    return (name, uploaded[1]) if uploaded else (name,)


def _size(results: list[dict[str, Any]]) -> Size | None:
    sizes = {
        (entry["original_height"], entry["original_width"]) for entry in results if "original_width" in entry
    }
    if len(sizes) > 1:
        raise InputError(f"its regions state several image sizes, {sorted(sizes)}")
    return next(iter(sizes), None)


def _regions(results: list[dict[str, Any]]) -> list[Region]:
    # Separate tags for shapes and labels write two entries with one id.
    merged: dict[Any, dict[str, Any]] = {}
    for number, entry in enumerate(results):
        if entry.get("image_rotation"):
            raise InputError(
                f"its image is turned by {entry['image_rotation']} degrees; turn the file instead"
            )
        part = merged.setdefault(entry.get("id", number), {"kinds": set()})
        part["kinds"].add(str(entry["type"]).removesuffix("labels"))
        part.update(entry.get("value") or {})
    regions = []
    for part in merged.values():
        kind = next((kind for kind in (*_AREAS, *_NO_AREAS) if kind in part["kinds"]), None)
        if kind is None:
            continue  # choices, texts and relations have no region
        names = [name for key, value in part.items() if key.endswith("labels") for name in value or []]
        if len(names) != 1:
            raise InputError(f"a {kind} has {len(names)} labels ({', '.join(map(str, names))}), not one")
        regions.append(Region(str(names[0]), _shape(kind, part)))
    return regions


def _shape(kind: str, part: Mapping[str, Any]) -> Draw:
    if kind in _NO_AREAS:
        return no_area(f"is a {kind}, which is not supported; draw a polygon or use the brush")

    def draw(size: Size) -> Mask:
        scale = np.asarray([size[1], size[0]]) / 100
        try:
            if kind == "polygon":
                return fill(as_points(np.asarray(part["points"], np.float64) * scale, size, 3), size)
            if kind == "brush":
                return unpack_brush(part["rle"], size)
            if kind == "bitmask":
                return _opaque(part["imageDataURL"], size)
            x, y = np.asarray([part["x"], part["y"]], np.float64) * scale
            if kind == "ellipse":
                radii = np.asarray([part["radiusX"], part["radiusY"]], np.float64) * scale
                return ellipse((x, y), (radii[0], radii[1]), part.get("rotation") or 0)(size)
            width, height = np.asarray([part["width"], part["height"]], np.float64) * scale
            return rectangle(x, y, x + width, y + height, part.get("rotation") or 0, pivot=(x, y))(size)
        except (KeyError, TypeError) as error:
            raise ValueError(f"lacks a value or has one of another type ({error!r})") from error

    return draw


def _opaque(url: Any, size: Size) -> Mask:
    """Return the mask (H, W) of a bitmask: pixels above half of full opacity."""
    if not isinstance(url, str) or not url.startswith(_DATA_URL):
        raise ValueError("has a bitmask that is not a PNG within the file; use the brush")
    samples = read_png(url.removeprefix(_DATA_URL), size)
    if samples.ndim != 3 or samples.shape[2] not in (2, 4):
        raise ValueError("has a bitmask without opacity, so its area is unknown; use the brush")
    if samples.shape[:2] != size:
        stated = f"{samples.shape[1]}x{samples.shape[0]}"
        raise ValueError(f"has a bitmask of {stated} pixels for an image of {size[1]}x{size[0]}")
    return np.asarray(samples[..., -1] > np.iinfo(samples.dtype).max // 2)


def unpack_brush(packed: Any, size: Size) -> Mask:
    """Return the mask (H, W) of a brush region: pixels above half of the greatest opacity.

    The stream of bits holds the number of values (32 bits), bits per value - 1 (5), four lengths - 1 (4
    each), then blocks: a bit (repeated or not), which of the four lengths counts (2), number of values - 1,
    and one value or all of them.
    """
    try:
        bits = np.unpackbits(np.asarray(packed, dtype=np.uint8))
    except (TypeError, ValueError, OverflowError):
        raise ValueError("has a brush that is not a list of bytes") from None
    text = bits.tobytes().translate(bytes.maketrans(b"\0\1", b"01"))
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        if place > len(text):
            raise ValueError("has a brush that is cut off")
        return int(text[place - count : place], 2)

    total, word = read(32), read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    height, width = size
    if total != 4 * height * width or word != 8:
        raise ValueError(
            f"has a brush of {total} values of {word} bits, not of {width}x{height} pixels with 4"
        )
    values: NDArray[np.uint8] = np.zeros(total, dtype=np.uint8)
    done = 0
    while done < total:
        repeated = read(1)
        count = read(lengths[read(2)]) + 1
        if done + count > total:
            raise ValueError("has a brush longer than its image")
        if repeated:
            values[done : done + count] = read(word)
        else:
            read(word * count)
            values[done : done + count] = np.packbits(bits[place - word * count : place])
        done += count
    opacity = values[3::4].reshape(size)
    return np.asarray(opacity > opacity.max() // 2)
