"""Annotation files as the tools write them, for the tests of the readers."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from data_helpers import random_rgb, random_thermal, save
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 24, 32


def make_images(root: Path, stems: Iterable[str] = ("a", "b")) -> Path:
    """`rgb/` (JPEG) and `thermal/` without labels."""
    for number, stem in enumerate(stems):
        save(root / "rgb" / f"{stem}.jpg", random_rgb(number))
        save(root / "thermal" / f"{stem}.png", random_thermal(number))
    return root


def labelme(path: Path, image: str, shapes: list[dict[str, Any]], **more: Any) -> Path:
    """LabelMe 5: one file of an image."""
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {"group_id": None, "description": "", "shape_type": "polygon", "flags": {}, "mask": None} | shape
            for shape in shapes
        ],
        "imagePath": image,
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | more, indent=2))
    return path


def png_in_base64(mask: NDArray[np.bool_]) -> str:
    """A mask as LabelMe stores that of its AI tools: a PNG of one bit."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def coco(path: Path, categories: dict[int, str], annotations: list[dict[str, Any]], **images: int) -> Path:
    """COCO: `images` are file stems and ids."""
    content = {
        "info": {"description": "", "version": "1.0"},
        "licenses": [],
        "images": [
            {"id": number, "file_name": f"{stem}.jpg", "width": WIDTH, "height": HEIGHT, "license": 0}
            for stem, number in images.items()
        ],
        "annotations": [
            {"id": number, "iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1], **annotation}
            for number, annotation in enumerate(annotations, 1)
        ],
        "categories": [
            {"id": number, "name": name, "supercategory": ""} for number, name in categories.items()
        ],
    }
    path.write_text(json.dumps(content))
    return path


def cvat(path: Path, labels: list[str], **images: str) -> Path:
    """CVAT for images 1.1: `images` are file stems and the elements of each."""
    listed = "".join(f"<label><name>{name}</name><color>#ff0000</color></label>" for name in labels)
    elements = "".join(
        f'<image id="{number}" name="{stem}.jpg" subset="Train" width="{WIDTH}" height="{HEIGHT}">'
        f"{shapes}</image>"
        for number, (stem, shapes) in enumerate(images.items())
    )
    path.write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><project>'
        f"<id>7</id><labels>{listed}</labels></project></meta>{elements}</annotations>"
    )
    return path


def label_studio(path: Path, tasks: dict[str, list[dict[str, Any]]], **more: Any) -> Path:
    """Label Studio's export JSON: the URL of the image and the results of each task."""
    common = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "to_name": "image"}
    content = [
        {
            "id": number,
            "data": {"image": url},
            "annotations": [
                {
                    "id": number,
                    "was_cancelled": False,
                    "ground_truth": False,
                    "updated_at": "2026-01-01T00:00:00Z",
                    "result": [
                        {"id": f"r{place}", **common, **result} for place, result in enumerate(results)
                    ],
                }
            ],
            "predictions": [],
            **more,
        }
        for number, (url, results) in enumerate(tasks.items(), 1)
    ]
    path.write_text(json.dumps(content))
    return path


def packed_brush(opacity: NDArray[np.uint8], lengths: tuple[int, ...] = (3, 4, 8, 16)) -> list[int]:
    """Pack an opacity (H, W) by the description of `@thi.ng/rle-pack`, written for these tests.

    Runs of equal values and literal blocks both occur, and all four lengths.
    """
    values = np.repeat(opacity.ravel(), 4)
    values[0::4] = values[1::4] = values[2::4] = 255  # a brush has a colour
    bits = [f"{len(values):032b}", f"{7:05b}", *(f"{length - 1:04b}" for length in lengths)]
    place = 0
    while place < len(values):
        equal = 1
        while place + equal < len(values) and values[place + equal] == values[place]:
            equal += 1
        repeated = equal > 2
        count = min(equal if repeated else 4, len(values) - place, 1 << lengths[-1])
        choice = next(number for number, length in enumerate(lengths) if count <= 1 << length)
        bits += ["1" if repeated else "0", f"{choice:02b}", f"{count - 1:0{lengths[choice]}b}"]
        bits += [f"{value:08b}" for value in values[place : place + (1 if repeated else count)]]
        place += count
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[start : start + 8], 2) for start in range(0, len(text), 8)]
