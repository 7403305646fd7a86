"""Files of LabelMe, COCO, CVAT and Label Studio to label maps: shapes, order, names, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import annotation_files as files
import numpy as np
import pytest
from annotation_files import HEIGHT, WIDTH, make_images
from data_helpers import random_rgb, save
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from efnet.cli.main import main
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError, ManyInputsError
from efnet.data.annotations.coco import unpacked
from efnet.data.annotations.label_maps import LabelsWritten, read_class_map, to_labels
from efnet.data.annotations.label_studio import unpack_brush
from efnet.data.annotations.regions import from_runs
from efnet.data.layouts import open_split
from efnet.data.layouts.folders import Folders
from efnet.data.sample import read_sample

SQUARE = [[4, 2], [12, 2], [12, 10], [4, 10]]
"""Columns 4 to 11, rows 2 to 9."""
OUTER = [[2, 1], [20, 1], [20, 20], [2, 20]]


def block(left: int, top: int, right: int, bottom: int) -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def read(out: Path, stem: str = "a") -> NDArray[np.uint8]:
    return np.asarray(Image.open(out / "labels" / f"{stem}.png"))


def convert(tmp_path: Path, annotations: Path, **options: Any) -> tuple[LabelsWritten, NDArray[np.uint8]]:
    """Convert one image, `a`; return the result and its label map."""
    root = make_images(tmp_path / "pairs", ["a"])
    out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
    result = to_labels(annotations, root, out, **options)
    return result, read(out)


def nested(name: str, tmp_path: Path) -> Path:
    """A car's square drawn over a road, in each tool's format."""
    percent = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in SQUARE]
    around = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in OUTER]
    if name == "labelme":
        shapes = [{"label": "road", "points": OUTER}, {"label": "car", "points": SQUARE}]
        return files.labelme(tmp_path / "labelme" / "a.json", "..\\rgb\\a.jpg", shapes)
    if name == "coco":
        entries = [
            {"image_id": 5, "category_id": 9, "segmentation": [np.ravel(OUTER).tolist()]},
            {"image_id": 5, "category_id": 3, "segmentation": [np.ravel(SQUARE).tolist()]},
        ]
        return files.coco(tmp_path / "coco.json", {3: "car", 9: "road"}, entries, a=5)
    if name == "cvat":
        road, car = (";".join(f"{x:.2f},{y:.2f}" for x, y in points) for points in (OUTER, SQUARE))
        shapes = (
            f'<polygon label="car" source="manual" occluded="0" points="{car}" z_order="1"></polygon>'
            f'<polygon label="road" source="manual" occluded="0" points="{road}" z_order="0"></polygon>'
        )
        return files.cvat(tmp_path / "cvat.xml", ["car", "road"], a=shapes)
    results = [
        {"type": "polygonlabels", "value": {"points": points, "closed": True, "polygonlabels": [label]}}
        for points, label in ((around, "road"), (percent, "car"))
    ]
    return files.label_studio(tmp_path / "studio.json", {"/data/upload/3/1a2b3c4d-a.jpg": results})


FORMATS = ("labelme", "coco", "cvat", "label-studio")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_label_map(name: str, tmp_path: Path) -> None:
    result, label = convert(tmp_path, nested(name, tmp_path))
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    assert result.classes.names == ("background", "car", "road")
    expected[block(2, 1, 20, 20)] = 2
    expected[block(4, 2, 12, 10)] = 1  # later regions, or those of a higher z_order, lie above
    assert np.array_equal(label, expected)


@pytest.mark.parametrize("name", FORMATS)
def test_the_result_opens_as_a_data_set(name: str, tmp_path: Path) -> None:
    annotations = nested(name, tmp_path)
    root = make_images(tmp_path / "pairs", ["a"])
    words = f"data convert --to index --annotations {annotations} --root {root} --out {tmp_path / 'out'}"
    assert main(words.split()) == 0
    split = "train" if name == "cvat" else "trainval"  # CVAT names the subset of an image
    pairset = open_split("folders", tmp_path / "out", split)
    assert [pair.name for pair in pairset.pairs] == ["a"]
    sample = read_sample(pairset.pairs[0], pairset.classes)
    assert sample.label is not None
    assert np.bincount(sample.label.ravel())[1] == 64
    words = f"data check --dataset folders --root {tmp_path / 'out'} --split {split}"
    assert main(words.split()) == 0


def test_shapes_of_labelme(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((5, 7)) > 0.5
    mask[0, 0] = mask[-1, -1] = True
    shapes = [
        {"label": "box", "shape_type": "rectangle", "points": [[12, 10], [4, 2]]},
        {"label": "ball", "shape_type": "circle", "points": [[24, 8], [24, 13]]},
        {
            "label": "mask",
            "shape_type": "mask",
            "points": [[3, 15], [9, 19]],
            "mask": files.png_in_base64(mask),
        },
        {"label": "__ignore__", "points": [[20, 20], [30, 20], [30, 23], [20, 23]]},
    ]
    result, label = convert(tmp_path, files.labelme(tmp_path / "a.json", "a.jpg", shapes).parent / "a.json")
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    number = result.classes.names.index
    expected[block(4, 2, 12, 10)] = number("box")
    expected[(x - 24) ** 2 + (y - 8) ** 2 <= 25] = number("ball")
    expected[15:20, 3:10][mask] = number("mask")
    expected[block(20, 20, 30, 23)] = 255
    assert np.array_equal(label, expected)


def test_rectangles_of_four_corners(tmp_path: Path) -> None:
    """As X-AnyLabeling writes them, upright and turned."""
    shapes = [
        {"label": "box", "shape_type": "rectangle", "points": [[4, 2], [12, 2], [12, 10], [4, 10]]},
        {"label": "turned", "shape_type": "rotation", "points": [[20, 4], [24, 8], [20, 12], [16, 8]]},
    ]
    result, label = convert(tmp_path, files.labelme(tmp_path / "a.json", "a.jpg", shapes).parent / "a.json")
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    number = result.classes.names.index
    assert np.array_equal(label == number("box"), block(4, 2, 12, 10))
    rhomb = abs(x - 20) + abs(y - 8)
    assert (label[rhomb < 4] == number("turned")).all()
    assert (label[rhomb > 4] != number("turned")).all()


def test_shapes_of_coco(tmp_path: Path) -> None:
    from pycocotools import mask as masks

    rng = np.random.default_rng(1)
    dotted = rng.random((HEIGHT, WIDTH)) > 0.6
    dotted[:12] = False
    packed = masks.encode(np.asfortranarray(dotted.astype(np.uint8)))
    runs = np.concatenate([[False], dotted.T.ravel()])
    borders = np.flatnonzero(runs[1:] != runs[:-1])
    counts = np.diff(np.concatenate([[0], borders, [dotted.size]])).tolist()
    two = [np.ravel(SQUARE).tolist(), [16, 2, 20, 2, 20, 6, 16, 6]]
    for segmentation in (
        {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()},
        {"size": [HEIGHT, WIDTH], "counts": counts},
    ):
        entries = [
            {"image_id": 1, "category_id": 1, "segmentation": two},
            {"image_id": 1, "category_id": 2, "segmentation": segmentation, "iscrowd": 1},
        ]
        _, label = convert(tmp_path, files.coco(tmp_path / "c.json", {1: "car", 2: "crowd"}, entries, a=1))
        assert np.array_equal(label == 1, block(4, 2, 12, 10) | block(16, 2, 20, 6))
        assert np.array_equal(label == 2, dotted)


def test_shapes_of_cvat(tmp_path: Path) -> None:
    shapes = (
        '<box label="box" source="manual" occluded="0" xtl="4.00" ytl="2.00" xbr="12.00" ybr="10.00">'
        '<attribute name="id">1</attribute></box>'
        '<box label="turned" source="manual" occluded="0" xtl="16.0" ytl="4.0" xbr="28.0" ybr="8.0" '
        'rotation="90.0" z_order="0"/>'
        '<mask label="mask" source="semi-auto" occluded="0" rle="1, 2, 3, 2" left="5" top="20" width="4" '
        'height="2" z_order="0"></mask>'
        '<ellipse label="ball" source="manual" occluded="0" cx="8.0" cy="15.0" rx="4.0" ry="2.0"/>'
        '<tag label="box" source="manual"></tag>'
    )
    result, label = convert(
        tmp_path, files.cvat(tmp_path / "c.xml", ["box", "turned", "mask", "ball"], a=shapes)
    )
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    number = result.classes.names.index
    assert np.array_equal(label == number("box"), block(4, 2, 12, 10))
    assert np.array_equal(label == number("turned"), block(20, 0, 24, 12))
    # Rows of the mask: one outside, two inside, one outside; two outside, two inside.
    assert np.array_equal(label == number("mask"), block(6, 20, 8, 21) | block(7, 21, 9, 22))
    assert np.array_equal(label == number("ball"), ((x - 8) / 4) ** 2 + ((y - 15) / 2) ** 2 <= 1)


def test_shapes_of_label_studio(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    dotted = rng.random((HEIGHT, WIDTH)) > 0.6
    dotted[:12] = False
    across, down = 100 / WIDTH, 100 / HEIGHT
    results: list[dict[str, Any]] = [
        {
            "type": "brushlabels",
            "value": {
                "format": "rle",
                "rle": files.packed_brush(dotted * np.uint8(255)),
                "brushlabels": ["mud"],
            },
        },
        {
            "type": "rectanglelabels",
            "value": {"x": 4 * across, "y": 2 * down, "width": 8 * across, "height": 8 * down, "rotation": 0}
            | {"rectanglelabels": ["box"]},
        },
        {
            # A quarter turn about the upper left corner.
            "type": "rectanglelabels",
            "value": {
                "x": 30 * across,
                "y": 1 * down,
                "width": 6 * across,
                "height": 8 * down,
                "rotation": 90,
            }
            | {"rectanglelabels": ["turned"]},
        },
        {"type": "choices", "value": {"choices": ["night"]}},
        # Separate tags for the shape and its label.
        {
            "id": "x",
            "type": "ellipse",
            "value": {"x": 50, "y": 40, "radiusX": 6, "radiusY": 8, "rotation": 0},
        },
        {"id": "x", "type": "labels", "value": {"labels": ["ball"]}},
    ]
    result, label = convert(
        tmp_path, files.label_studio(tmp_path / "s.json", {"/data/local-files/?d=drive/a.jpg": results})
    )
    number = result.classes.names.index
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    ball = ((x - 16) / (6 / across)) ** 2 + ((y - 40 / down) / (8 / down)) ** 2 <= 1
    assert np.array_equal(label == number("mud"), dotted & ~ball)
    assert np.array_equal(label == number("box"), block(4, 2, 12, 10) & ~ball)
    assert np.array_equal(label == number("turned"), block(22, 1, 30, 7) & ~ball)
    assert np.array_equal(label == number("ball"), ball)


def _data_url(image: NDArray[Any]) -> str:
    return f"data:image/png;base64,{files.png_in_base64(image)}"


def _bitmask(tmp_path: Path, url: object) -> Path:
    value = {"imageDataURL": url, "bitmasklabels": ["car"]}
    return files.label_studio(tmp_path / "s.json", {"a.jpg": [{"type": "bitmasklabels", "value": value}]})


def test_bitmasks_of_label_studio(tmp_path: Path) -> None:
    """Black on transparent, as the browser's canvas writes it; its edges may be half transparent."""
    opacity = np.random.default_rng(2).choice(
        np.asarray([0, 100, 127, 128, 255], dtype=np.uint8), (HEIGHT, WIDTH)
    )
    image = np.dstack([np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8), opacity])
    _, label = convert(tmp_path, _bitmask(tmp_path, _data_url(image)))
    assert np.array_equal(label, opacity >= 128)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (None, "has a bitmask that is not a PNG within the file"),
        ("https://host/mask.png", "has a bitmask that is not a PNG within the file"),
        ("data:image/png;base64,###", "has a mask that is not base64"),
        ("data:image/png;base64,AAAA", "has a mask that cannot be read"),
        (_data_url(np.zeros((HEIGHT, WIDTH), dtype=np.uint8)), "has a bitmask without opacity"),
        (_data_url(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)), "has a bitmask without opacity"),
        (_data_url(np.zeros((HEIGHT, WIDTH - 1, 4), dtype=np.uint8)), "has a bitmask of 31x24 pixels"),
    ],
)
def test_damaged_bitmasks(url: object, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ManyInputsError, match=reason):
        convert(tmp_path, _bitmask(tmp_path, url))


@pytest.mark.parametrize("opacity", [1, 100, 255])
def test_a_brush_is_what_lies_above_half_of_its_opacity(opacity: int) -> None:
    values = np.zeros((9, 31), dtype=np.uint8)
    values[2:5, 3:20] = opacity
    for lengths in ((3, 4, 8, 16), (1, 2, 5, 9)):
        assert np.array_equal(unpack_brush(files.packed_brush(values, lengths), values.shape), values > 0)


def test_several_annotations_of_a_task_give_the_ground_truth_or_the_latest(tmp_path: Path) -> None:
    path = nested("label-studio", tmp_path)
    tasks = json.loads(path.read_text())
    first = tasks[0]["annotations"][0]
    wrong = {**first, "id": 8, "updated_at": "2027-01-01T00:00:00Z", "result": []}
    cancelled = {**wrong, "was_cancelled": True, "updated_at": "2028-01-01T00:00:00Z"}
    tasks[0]["annotations"] = [{**first, "ground_truth": True}, wrong, cancelled]
    path.write_text(json.dumps(tasks))
    result, label = convert(tmp_path, path)
    assert "1 tasks have several annotations" in result.notes[0]
    assert label.any()
    tasks[0]["annotations"] = [first, {**wrong, "updated_at": "2025-01-01T00:00:00Z"}, cancelled]
    path.write_text(json.dumps(tasks))
    assert convert(tmp_path, path)[1].any()


# --- names ----------------------------------------------------------------------------------------------


def test_a_class_map_renames_ignores_and_skips(tmp_path: Path) -> None:
    shapes = [
        {"label": "lorry", "points": SQUARE},
        {"label": "sky", "points": [[16, 2], [20, 2], [20, 6], [16, 6]]},
        {"label": "lane", "points": [[0, 0], [9, 9]], "shape_type": "line"},
        {"label": "dog", "points": [[24, 12], [28, 12], [28, 16], [24, 16]]},
    ]
    path = files.labelme(tmp_path / "labelme" / "a.json", "a.jpg", shapes)
    classes = ClassSet(("background", "car", "animal"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    words = "lorry=car, sky=ignore,lane=skip,*=animal"
    _, label = convert(tmp_path, path, classes=classes, class_map=read_class_map(words))
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    expected[block(4, 2, 12, 10)] = 1
    expected[block(16, 2, 20, 6)] = 255
    expected[block(24, 12, 28, 16)] = 2
    assert np.array_equal(label, expected)
    (tmp_path / "map.yaml").write_text("lorry: car\nsky: ignore\nlane: skip\n'*': animal\n")
    _, again = convert(tmp_path, path, classes=classes, class_map=read_class_map(str(tmp_path / "map.yaml")))
    assert np.array_equal(again, expected)


def test_unknown_classes_are_listed_together(tmp_path: Path) -> None:
    classes = ClassSet(("background", "bus"), ((0, 0, 0), (1, 1, 1)))
    with pytest.raises(InputError, match=r"road, car; it has background, bus: .*`class_map`.*road=ignore"):
        convert(tmp_path, nested("coco", tmp_path), classes=classes)


def test_classes_of_the_root_and_of_other_data_sets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_images(tmp_path / "pairs", ["a"])
    (root / "dataset.yaml").write_text("names: [nothing, road, car]\nthermal_scale: [0, 200]\n")
    words = (
        f"data convert --to index --annotations {nested('cvat', tmp_path)} --root {root} --overwrite --out"
    )
    assert main([*words.split(), str(root)]) == 0  # in place
    assert read(root)[3, 5] == 2
    assert "thermal_scale: [0.0, 200.0]" in (root / "dataset.yaml").read_text()
    assert "rgb: rgb" in (root / "dataset.yaml").read_text()
    assert main([*words.split(), str(tmp_path / "m"), "--dataset", "mfnet", "--class-map", "road=skip"]) == 0
    assert (read(tmp_path / "m") == block(4, 2, 12, 10)).all()
    capsys.readouterr()
    assert main([*words.split(), str(tmp_path / "n"), "--dataset", "mfnet"]) == 2
    assert "--class-map" in capsys.readouterr().err


def test_images_without_annotations_are_left_out_of_the_list(tmp_path: Path) -> None:
    root = make_images(tmp_path / "pairs", ["a", "b"])
    to_labels(nested("coco", tmp_path), root, tmp_path / "out")
    assert [pair.name for pair in open_split("folders", tmp_path / "out", "trainval").pairs] == ["a"]


def test_splits_of_file_names(tmp_path: Path) -> None:
    root = make_images(tmp_path / "pairs", ["a", "b", "c"])
    (tmp_path / "ann").mkdir()
    for split, stem in (("train2017", "a"), ("val2017", "b")):
        files.coco(tmp_path / "ann" / f"instances_{split}.json", {1: "car"}, [], **{stem: 1})
    result = to_labels(tmp_path / "ann", root, tmp_path / "out")
    assert [pair.name for pair in open_split("folders", tmp_path / "out", "val").pairs] == ["b"]
    assert not read(tmp_path / "out", "b").any()  # listed without annotations: all background
    assert not (tmp_path / "out" / "labels" / "c.png").exists()
    assert "1 images have no annotation, and no label map: c" in result.notes[0]


# --- faults ---------------------------------------------------------------------------------------------


def test_missing_images_misfits_and_lines_are_named_at_once(tmp_path: Path) -> None:
    root = make_images(tmp_path / "pairs", ["a", "b", "c", "d"])
    square = {"label": "car", "points": SQUARE}
    folder = tmp_path / "ann"
    files.labelme(folder / "a.json", "a.jpg", [square])
    files.labelme(folder / "b.json", "b.jpg", [square], imageHeight=480, imageWidth=640)
    files.labelme(folder / "c.json", "c.jpg", [square, {"label": "lane", "points": [[0, 0], [9, 9]]}])
    files.labelme(folder / "d.json", "d.jpg", [{"label": "lane", "points": [[0, 0]], "shape_type": "point"}])
    files.labelme(folder / "e.json", "e.jpg", [square])
    files.labelme(folder / "f.json", "a.jpg", [square])
    with pytest.raises(ManyInputsError) as error:
        to_labels(folder, root, tmp_path / "out")
    for reason in (
        "a.jpg: is annotated twice",
        "b.jpg: was annotated at 640x480 (width x height), but",
        "c.jpg: region 2 ('lane') has 2 points, and needs 3; ",
        "('lane') is a point, which has no area; correct it, or leave its class out with `class_map`",
        "e.jpg: no such image in",
    ):
        assert reason in str(error.value)
    assert not (tmp_path / "out" / "labels").exists()  # a is there twice, the others are wrong


SEGMENTATIONS = {
    "box but no segmentation": [],
    "3 points": None,
    "far outside": [[0, 0, 1e9, 0, 5, 5]],
    "not pairs": [[0, 0, 1, 0, 5]],
    "2 points": [[0, 0, 5, 5]],
    r"for the size \[9, 9\]": {"size": [9, 9], "counts": [81]},
    "do not add up": {"size": [HEIGHT, WIDTH], "counts": [5, 7]},
    "cut off": {"size": [HEIGHT, WIDTH], "counts": "06PZZ"},
    "cannot be read": {"size": [HEIGHT, WIDTH], "counts": "06 "},
    "add up to its": {"size": [HEIGHT, WIDTH], "counts": "0o`0"},
}


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 300)), elements=st.integers(0, 1)))
def test_compressed_run_lengths_are_those_of_pycocotools(mask: NDArray[np.uint8]) -> None:
    from pycocotools import mask as masks

    text = masks.encode(np.asfortranarray(mask))["counts"].decode()
    assert np.array_equal(from_runs(unpacked(text), mask.shape[::-1]).T, mask)


@pytest.mark.parametrize(("reason", "segmentation"), SEGMENTATIONS.items())
def test_damaged_segmentations_of_coco(reason: str, segmentation: object, tmp_path: Path) -> None:
    reason = "box but no segmentation" if segmentation is None else reason
    entry = {"image_id": 1, "category_id": 1, "segmentation": segmentation}
    with pytest.raises(ManyInputsError, match=rf"a.jpg: region 1 \('car'\) has .*{reason}"):
        convert(tmp_path, files.coco(tmp_path / "c.json", {1: "car"}, [entry], a=1))


def brush(change: Any) -> list[int]:
    packed = files.packed_brush(np.full((HEIGHT, WIDTH), 255, dtype=np.uint8))
    return list(change(packed))


@pytest.mark.parametrize(
    ("reason", "packed"),
    [
        ("is cut off", brush(lambda packed: packed[:-1])),
        ("not of 32x24 pixels", brush(lambda packed: [0, 0, 1, *packed[3:]])),
        ("not a list of bytes", [0, -1, 300]),
        ("not a list of bytes", "abc"),
        ("is cut off", []),
    ],
)
def test_damaged_brushes(reason: str, packed: object, tmp_path: Path) -> None:
    result = {"type": "brushlabels", "value": {"format": "rle", "rle": packed, "brushlabels": ["car"]}}
    path = files.label_studio(tmp_path / "s.json", {"a.jpg": [result]})
    with pytest.raises(ManyInputsError, match=reason):
        convert(tmp_path, path)


TEXTS = {
    "c.json": [
        ("{", "is not valid JSON"),
        ('{"images": []', "is not valid JSON"),
        ('{"license": 1}', r"is not a file of LabelMe, COCO, .*it holds license"),
        ("3", "it holds a int"),
        ('{"shapes": [{}], "imagePath": "a.jpg"}', "is not a file of LabelMe"),
        ('{"images": [{}], "categories": []}', "is not a COCO file"),
        (
            '{"images": [{"id": 1, "file_name": "a.jpg", "height": 1e999, "width": 3}], "categories": []}',
            "is not a COCO file",
        ),
        (
            '{"images": [], "categories": [], "annotations": [{"image_id": 3, "category_id": 1}]}',
            "annotation 0 has the image_id 3, which it does not list",
        ),
        ('[{"data": {"text": "a"}, "annotations": [{"result": []}]}]', "names no image file"),
        ('[{"data": {"image": "a.jpg"}, "annotations": []}]', "no task has an annotation"),
        (
            '[{"id": 4, "data": {"image": "a.jpg"}, "annotations": [{"result": [{"type": "brushlabels", '
            '"image_rotation": 90, "value": {}}]}]}]',
            "task 4 .*turned by 90 degrees",
        ),
        (
            '[{"id": 4, "data": {"image": "a.jpg"}, "annotations": [{"result": [{"type": "polygon", '
            '"value": {"points": []}}]}]}]',
            "a polygon has 0 labels",
        ),
    ],
    "c.xml": [
        ("<annotations>", "is not valid XML"),
        ("<annotations/>", "holds no images"),
        ('<?xml version="1.0" encoding="x"?><annotations/>', "is not valid XML"),
        ("<annotations><track/></annotations>", "is of a video"),
        ('<annotations><image id="0" name="a.jpg"/></annotations>', "an attribute is missing"),
        (
            '<annotations><image id="0" name="a.jpg" width="32" height="24"><mask label="a" rle="1" '
            'left="inf" top="0" width="1" height="1"/></image></annotations>',
            "an attribute is missing or not a number",
        ),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "declares a document type"),
    ],
}


@pytest.mark.parametrize(
    ("name", "text", "reason"), [(name, *entry) for name, entries in TEXTS.items() for entry in entries]
)
def test_files_that_are_none(name: str, text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=rf"{name}: .*{reason}"):
        convert(tmp_path, tmp_path / name)


@pytest.mark.parametrize("words", ["car", "=car", "car=", "a.yaml"])
def test_wrong_class_maps(words: str) -> None:
    with pytest.raises(InputError, match="`class_map`"):
        read_class_map(words)


def test_an_interrupted_conversion_goes_on_with_the_same_options(tmp_path: Path) -> None:
    root, folder = make_images(tmp_path / "pairs", ["a", "b", "c"]), tmp_path / "ann"
    for stem in "abc":
        files.labelme(folder / f"{stem}.json", f"{stem}.jpg", [{"label": "car", "points": SQUARE}])

    def interrupt(done: int, _: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        to_labels(folder, root, tmp_path / "out", progress=interrupt)
    with pytest.raises(InputError, match="is not empty"):
        to_labels(folder, root, tmp_path / "out", class_map={"car": "van"})
    assert to_labels(folder, root, tmp_path / "out").count < 3
    assert (read(tmp_path / "out", "c") == block(4, 2, 12, 10)).all()


def test_options_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "convert", "--root", str(tmp_path), "--out", str(tmp_path / "out"), "--to"]
    for more in ("folders --annotations a", "index --class-map a=b", "index --images a"):
        assert main([*words, *more.split()]) == 2
        assert more.split()[1] in capsys.readouterr().err


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        convert(tmp_path, tmp_path / "none.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no JSON or XML files"):
        convert(tmp_path, tmp_path / "empty")
    path = nested("coco", tmp_path)
    with pytest.raises(InputError, match="holds no images"):
        to_labels(path, tmp_path / "empty", tmp_path / "o")


def test_images_in_folders_and_by_patterns_keep_their_labels(tmp_path: Path) -> None:
    """`day/1.png` and `night/1.png` are two images; the file's name finds the pair of a pattern."""
    rgb = random_rgb(0, 16, 16)
    for name in ("rgb/day/1.png", "rgb/night/1.png", "thermal/day/1.png", "thermal/night/1.png"):
        save(tmp_path / "mine" / name, rgb)
    for name in ("photos/original_1.png", "heat/heat_1.png"):
        save(tmp_path / "own" / name, rgb)
    text = 'names: [background, car]\nrgb: "photos/original_{id}.png"\nthermal: "heat/heat_{id}.png"\n'
    (tmp_path / "own" / "dataset.yaml").write_text(text)

    def file(*names: str) -> Path:
        path = tmp_path / f"{names[0].replace('/', '_')}.json"
        images = [
            {"id": number, "file_name": name, "height": 16, "width": 16} for number, name in enumerate(names)
        ]
        shapes = [
            {"image_id": number, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, size, 0, size]]}
            for number, size in enumerate((4, 8)[: len(names)])
        ]
        everything = {"images": images, "annotations": shapes, "categories": [{"id": 1, "name": "car"}]}
        path.write_text(json.dumps(everything))
        return path

    out = tmp_path / "out"
    assert to_labels(file("set/day/1.png", "set/night/1.png"), tmp_path / "mine", out).count == 2
    assert [int(read(out, name).sum()) for name in ("day/1", "night/1")] == [16, 32]
    with pytest.raises(ManyInputsError, match="or several; copy it there"):
        to_labels(file("1.png"), tmp_path / "mine", tmp_path / "two")
    own = tmp_path / "annotated"
    assert to_labels(file("original_1.png"), tmp_path / "own", own).count == 1
    assert open_split("folders", own, "trainval").pairs[0].label == own / "labels" / "1.png"


def test_channels_are_kept(tmp_path: Path) -> None:
    """Without them the colours would be read in another order."""
    save(tmp_path / "mine" / "rgbt" / "a.png", np.zeros((16, 16, 4), dtype=np.uint8))
    text = "names: [background, car]\nchannels: {rgb: [3, 2, 1], thermal: 4}\npage: {thermal: 2}\n"
    (tmp_path / "mine" / "dataset.yaml").write_text(text)
    shape = {"label": "car", "shape_type": "rectangle", "points": [[1, 1], [5, 5]]}
    (tmp_path / "a.json").write_text(json.dumps({"shapes": [shape], "imagePath": "a.png"}))
    to_labels(tmp_path / "a.json", tmp_path / "mine", tmp_path / "out")
    before, after = (Folders().describe(tmp_path / name) for name in ("mine", "out"))
    assert (after.channels, after.pages) == (before.channels, before.pages)
