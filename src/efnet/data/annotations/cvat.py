"""CVAT's XML "CVAT for images 1.1": polygons, masks, boxes and ellipses of a task, read and written.

The format is that of https://docs.cvat.ai/docs/manual/advanced/xml_format/. Regions are drawn by `z_order`,
those of one `z_order` in the order of the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from efnet.core.errors import InputError
from efnet.core.files import write_bytes
from efnet.data.annotations.regions import (
    AnnotatedImage,
    Annotations,
    Draw,
    Region,
    ellipse,
    from_runs,
    no_area,
    placed,
    polygon,
    rectangle,
    to_runs,
)
from efnet.data.annotations.shapes import Exported, Shapes

_SUBSETS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test"}


def read_cvat(path: Path) -> Annotations:
    """Read a file of a task or project.

    Raises:
        InputError: unreadable, not XML, with a document type, of a video, or with values of another type.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    plain = content.replace(b"\0", b"")  # of UTF-16 too
    if b"<!DOCTYPE" in plain or b"<!ENTITY" in plain:
        raise InputError(f"{path}: declares a document type, which CVAT does not write; export it again")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # or of an unknown encoding
        raise InputError(f"{path}: is not valid XML ({error}); export the annotations again") from error
    if root.tag != "annotations" or (root.find("image") is None and root.find("track") is None):
        raise InputError(f"{path}: holds no images; export the task as 'CVAT for images 1.1'")
    if root.find("track") is not None:
        raise InputError(f"{path}: is of a video, without image names; export it as 'CVAT for images 1.1'")
    try:
        images = [_image(path, element) for element in root.iter("image")]
    except (KeyError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path}: an attribute is missing or not a number ({error!r}); export it again"
        ) from error
    labels = [label.findtext("name", "") for label in root.findall("meta//labels/label")]
    return Annotations(images, [label for label in labels if label])


def _image(path: Path, element: Element) -> AnnotatedImage:
    shapes = [shape for shape in element if shape.tag != "tag"]  # tags are of whole images
    shapes.sort(key=lambda shape: int(shape.get("z_order", 0)))
    regions = [Region(shape.attrib["label"], _shape(shape)) for shape in shapes]
    size = int(element.attrib["height"]), int(element.attrib["width"])
    split = _SUBSETS.get(element.get("subset", "").casefold(), "")
    return AnnotatedImage(path, (element.attrib["name"],), size, regions, split)


def _shape(shape: Element) -> Draw:
    """Return what an element draws; KeyError or ValueError for a missing or wrong attribute."""

    def number(name: str) -> float:
        return float(shape.attrib[name])

    if shape.tag == "polygon":
        return polygon(
            [[float(part) for part in pair.split(",")] for pair in shape.attrib["points"].split(";")]
        )
    if shape.tag == "box":
        left, top, right, bottom = (number(name) for name in ("xtl", "ytl", "xbr", "ybr"))
        return rectangle(left, top, right, bottom, float(shape.get("rotation", 0)))
    if shape.tag == "ellipse":
        centre, radii = (number("cx"), number("cy")), (number("rx"), number("ry"))
        return ellipse(centre, radii, float(shape.get("rotation", 0)))
    if shape.tag == "mask":
        left, top, width, height = (int(number(name)) for name in ("left", "top", "width", "height"))
        runs = [int(part) for part in shape.attrib["rle"].split(",") if part.strip()]
        return lambda size: placed(from_runs(runs, (height, width)), left, top, size)
    return no_area(f"is a {shape.tag}, which has no area")


def write_cvat(path: Path, images: Iterable[Exported], shapes: Shapes) -> None:
    """Write a file of all images, whole or not at all; an element for each area.

    An area is a polygon or, if it has holes or `shapes` asks for exact ones, a mask.
    """
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    task = SubElement(SubElement(root, "meta"), "task")
    SubElement(task, "name").text = path.stem
    size, labels = SubElement(task, "size"), SubElement(task, "labels")
    for value, name in shapes.labels.items():
        label = SubElement(labels, "label")
        SubElement(label, "name").text = name
        color = shapes.classes.palette[value] if value < len(shapes.classes) else (224, 224, 224)
        SubElement(label, "color").text = "#{:02x}{:02x}{:02x}".format(*color)
        SubElement(label, "attributes")
    count = 0
    for count, image in enumerate(images, start=1):
        height, width = image.index.shape
        attributes = {"id": count - 1, "name": image.file_name, "width": width, "height": height}
        element = SubElement(root, "image", _texts(attributes))
        for area in shapes.areas(image.index):
            common = {"label": shapes.labels[area.value], "source": "auto", "occluded": 0}
            corners = shapes.polygon(area, (height, width))
            if corners is None:
                runs = ", ".join(map(str, to_runs(area.mask)))
                rows, columns = area.mask.shape
                place = {"left": area.left, "top": area.top, "width": columns, "height": rows}
                SubElement(element, "mask", _texts({**common, "rle": runs, **place, "z_order": 0}))
            else:
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in np.round(corners, 2))
                SubElement(element, "polygon", _texts({**common, "points": points, "z_order": 0}))
    size.text = str(count)
    ElementTree.indent(root)
    write_bytes(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def _texts(attributes: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in attributes.items()}
