"""COCO's instance files: polygons and run lengths of the images of a set, read and written.

The format is that of https://cocodataset.org/#format-data; pycocotools fills polygons and compresses run
lengths. Regions are drawn in the order of the file.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet.core.errors import InputError
from efnet.core.files import write_text
from efnet.data.annotations.regions import (
    AnnotatedImage,
    Annotations,
    Draw,
    Region,
    Size,
    as_points,
    from_runs,
)
from efnet.data.annotations.shapes import Exported, Shapes
from efnet.data.components import Mask

_SPLIT = re.compile(r"(?:.*[_.-])?(train|val|test)(?:\d*|[_.-].*)")
"""File names that name a split: `instances_val2017`, `train`."""


def is_coco(content: Any) -> bool:
    """Whether the content of a JSON file is COCO's."""
    return isinstance(content, dict) and isinstance(content.get("images"), list) and "categories" in content


def read_coco(path: Path, content: Any) -> Annotations:
    """Read a set's file; raises InputError for missing keys, and unlisted images or classes."""
    masks = _pycocotools(path)
    match = _SPLIT.fullmatch(path.stem.lower())
    try:
        categories = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        regions: dict[Any, list[Region]] = {entry["id"]: [] for entry in content["images"]}
        if len(regions) < len(content["images"]):
            raise InputError(f"{path}: gives two images one id; export it again")
        for number, entry in enumerate(content.get("annotations", [])):
            if entry["image_id"] not in regions or entry["category_id"] not in categories:
                what = "image_id" if entry["image_id"] not in regions else "category_id"
                name = entry.get("id", number)
                raise InputError(
                    f"{path}: annotation {name} has the {what} {entry[what]}, which it does not list"
                )
            draw = _segmentation(entry.get("segmentation"), masks)
            regions[entry["image_id"]].append(Region(categories[entry["category_id"]], draw))
        images = [
            AnnotatedImage(
                path,
                (str(entry["file_name"]),),
                (int(entry["height"]), int(entry["width"])),
                regions[entry["id"]],
                match[1] if match else "",
            )
            for entry in content["images"]
        ]
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is not a COCO file ({error!r}); export it again") from error
    return Annotations(images, [categories[key] for key in sorted(categories, key=_category_order)])


def _category_order(key: Any) -> tuple[bool, Any]:
    return (isinstance(key, str), key)


def _segmentation(value: Any, masks: ModuleType) -> Draw:
    def draw(size: Size) -> Mask:
        if not value:
            raise ValueError("has a box but no segmentation; draw its outline")
        if isinstance(value, list):
            polygons = [as_points(part, size, 3).ravel().tolist() for part in value]
            mask: NDArray[np.uint8] = masks.decode(masks.merge(masks.frPyObjects(polygons, *size)))
            return mask.astype(np.bool_)
        if not isinstance(value, dict) or list(value.get("size", ())) != list(size):
            stated = value.get("size") if isinstance(value, dict) else None
            raise ValueError(f"has run lengths for the size {stated} (height, width), not {list(size)}")
        counts = value.get("counts")
        runs = unpacked(counts) if isinstance(counts, str) else counts
        return from_runs(runs, size[::-1]).T  # COCO counts down the columns

    return draw


def unpacked(text: str) -> list[int]:
    """Return the run lengths of a compressed string; a `ValueError` if it is none.

    Not by pycocotools, which writes beyond its memory where the runs do not fit the size. Each character
    holds five bits, the lowest first, and whether more follow; from the fourth on, a number is the difference
    from the last but one.
    """
    runs: list[int] = []
    number = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 50:
            raise ValueError("has compressed run lengths that cannot be read")
        number |= (code & 31) << shift
        shift += 5
        if code < 32:
            number -= (1 << shift) if code & 16 else 0
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = shift = 0
    if shift:
        raise ValueError("has compressed run lengths that are cut off")
    return runs


def write_coco(path: Path, images: Iterable[Exported], shapes: Shapes) -> None:
    """Write a file of all images, whole or not at all; an annotation for each area.

    Category ids are the label values plus one. An area is a polygon or, if it has holes or `shapes` asks for
    exact ones, compressed run lengths.
    """
    masks = _pycocotools(path)
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in images:
        height, width = image.index.shape
        number = len(listed) + 1
        listed.append({"id": number, "file_name": image.file_name, "width": width, "height": height})
        for area in shapes.areas(image.index):
            corners = shapes.polygon(area, (height, width))
            segmentation: Any
            if corners is None:
                whole = np.zeros((height, width), dtype=np.uint8, order="F")
                whole[area.window] = area.mask
                packed = masks.encode(whole)
                segmentation = {"size": [height, width], "counts": packed["counts"].decode("ascii")}
            else:
                segmentation = [np.round(corners, 2).ravel().tolist()]
            box = [area.left, area.top, area.mask.shape[1], area.mask.shape[0]]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": area.value + 1}
                | {"segmentation": segmentation, "area": area.pixels, "bbox": box, "iscrowd": 0}
            )
    categories = [
        {"id": value + 1, "name": name, "supercategory": ""} for value, name in shapes.labels.items()
    ]
    content = {"images": listed, "annotations": annotations, "categories": categories}
    write_text(path, json.dumps(content, ensure_ascii=False) + "\n")


def _pycocotools(path: Path) -> ModuleType:
    try:
        return importlib.import_module("pycocotools.mask")
    except ImportError as error:
        raise InputError(f"{path}: COCO files need pycocotools: pip install 'efnet[annotations]'") from error
