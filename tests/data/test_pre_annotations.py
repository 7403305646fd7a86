"""Label maps and predictions to COCO and CVAT, and back."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from data_helpers import make_pairs, random_rgb, save
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from efnet.cli.main import main
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError, ManyInputsError
from efnet.data.annotations.label_maps import from_labels, to_labels
from efnet.data.annotations.regions import fill, from_runs, to_runs
from efnet.data.annotations.shapes import Shapes
from efnet.data.components import areas, outline, simplified

CLASSES = ClassSet(("background", "car", "person", "bike"), ((0, 0, 0), (9, 0, 0), (0, 9, 0), (0, 0, 9)))

maps = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda size: arrays(np.uint8, size, elements=st.integers(0, 2))
)


def joined(index: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number of the area of each pixel, by flooding: a plain reference."""
    number = np.full(index.shape, -1, dtype=np.int64)
    for seed in np.ndindex(index.shape):
        if number[seed] >= 0:
            continue
        number[seed], waiting = (name := number.max() + 1), [seed]
        while waiting:
            y, x = waiting.pop()
            for place in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= place[0] < index.shape[0] and 0 <= place[1] < index.shape[1]
                if inside and number[place] < 0 and index[place] == index[y, x]:
                    number[place] = name
                    waiting.append(place)
    return number


@settings(max_examples=30)
@given(maps)
def test_areas_outlines_and_runs(index: NDArray[np.uint8]) -> None:
    expected = joined(index)
    found = list(areas(index))
    assert len(found) == expected.max() + 1
    for number, area in enumerate(found):
        whole = np.zeros(index.shape, dtype=bool)
        whole[area.window] = area.mask
        assert np.array_equal(whole, expected == number)
        corners, holes = outline(area.mask)
        filled = fill(corners, area.mask.shape)
        assert np.array_equal(filled, area.mask) != holes
        assert (filled | area.mask == filled).all()
        assert np.array_equal(from_runs(to_runs(area.mask), area.mask.shape), area.mask)
        assert np.array_equal(simplified(corners, 0, np.zeros(len(corners), dtype=bool)), corners)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.2, 4))
def test_simplified_lines_stay_within_the_tolerance(seed: int, tolerance: float) -> None:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 30))
    corners = (rng.uniform(5, 12, 30) * np.stack([np.cos(angle), np.sin(angle)])).T
    kept = simplified(corners, tolerance, np.zeros(30, dtype=bool))
    starts, ends = kept, np.roll(kept, -1, axis=0)
    for corner in corners:
        along = ends - starts
        share = np.clip(((corner - starts) * along).sum(1) / (along**2).sum(1), 0, 1)
        assert np.hypot(*(corner - starts - share[:, None] * along).T).min() <= tolerance + 1e-9


def blobs(seed: int, size: tuple[int, int] = (60, 80)) -> NDArray[np.uint8]:
    """Overlapping discs and rings of three classes, single pixels, and ignored pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    index = np.zeros(size, dtype=np.uint8)
    for number in range(12):
        distance = np.hypot(y - rng.integers(size[0]), x - rng.integers(size[1]))
        radius = rng.integers(3, 20)
        index[(distance < radius) & (distance > (radius - 3) * (number % 3 == 0))] = number % 4
    index[rng.random(size) > 0.98] = 2
    index[-4:, 10:30] = 255
    return index


@pytest.mark.parametrize("to", ["coco", "cvat"])
@pytest.mark.parametrize(("exact", "tolerance"), [(True, 1.0), (False, 0.0), (False, 1.0)])
def test_there_and_back(to: str, exact: bool, tolerance: float, tmp_path: Path) -> None:
    shapes = Shapes(CLASSES, exact=exact, tolerance=tolerance)
    for seed in range(2):
        save(tmp_path / "labels" / f"{seed}.png", blobs(seed))
        save(tmp_path / "rgb" / f"{seed}.jpg", random_rgb(seed, 60, 80))
    file = tmp_path / ("a.json" if to == "coco" else "a.xml")
    assert from_labels(tmp_path / "labels", file, to, shapes, tmp_path / "rgb") == 2
    to_labels(file, tmp_path / "rgb", tmp_path / "back", CLASSES)
    for seed in range(2):
        before = blobs(seed)
        wrong = np.asarray(Image.open(tmp_path / "back" / "labels" / f"{seed}.png")) != before
        if exact or tolerance == 0:
            assert not wrong.any()
        padded = np.pad(before, 1, mode="edge")
        shifted = [padded[row : row + 60, column : column + 80] for row in range(3) for column in range(3)]
        border = np.any([part != before for part in shifted], axis=0)
        assert not (wrong & ~border).any()


def test_coco_is_what_pycocotools_reads(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    save(tmp_path / "labels" / "a.png", blobs(0))
    from_labels(tmp_path / "labels", tmp_path / "a.json", "coco", Shapes(CLASSES, tolerance=0))
    read = COCO(str(tmp_path / "a.json"))
    assert [entry["name"] for entry in read.loadCats(read.getCatIds())] == ["car", "person", "bike", "ignore"]
    index = np.zeros((60, 80), dtype=np.uint8)
    kinds = set()
    for entry in read.loadAnns(read.getAnnIds()):
        mask = read.annToMask(entry).astype(bool)
        kinds.add(type(entry["segmentation"]))
        assert entry["area"] == mask.sum()
        left, top, width, height = entry["bbox"]
        assert mask[top : top + height, left : left + width].sum() == mask.sum()
        index[mask] = entry["category_id"] - 1
    assert np.array_equal(index, blobs(0))
    assert kinds == {list, dict}  # areas with holes are run lengths


def test_cvat_lists_labels_and_images(tmp_path: Path) -> None:
    save(tmp_path / "labels" / "a.png", blobs(0))
    from_labels(tmp_path / "labels", tmp_path / "a.xml", "cvat", Shapes(CLASSES, min_pixels=5))
    root = ElementTree.parse(tmp_path / "a.xml").getroot()
    assert [label.findtext("name") for label in root.iter("label")] == ["car", "person", "bike", "ignore"]
    assert root.findtext("meta/task/size") == "1"
    image = root.find("image")
    assert image is not None
    assert image.attrib == {"id": "0", "name": "a.png", "width": "80", "height": "60"}
    assert {shape.tag for shape in image} == {"polygon", "mask"}
    small = [area for area in areas(blobs(0)) if area.value and area.pixels < 5]
    assert small
    assert len(image) == sum(area.value > 0 for area in areas(blobs(0))) - len(small)


def test_predictions_become_annotations_of_their_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_pairs(tmp_path / "own", ["a", "b"], classes=3)
    words = f"predict --rgb {root / 'rgb'} --thermal {root / 'thermal'} --out {tmp_path / 'p'} --save index"
    assert main([*words.split(), "--device", "cpu"]) == 0
    words = (
        f"data convert --to coco --root {tmp_path / 'p'} --images {root / 'rgb'} --out {tmp_path / 'p.json'}"
    )
    assert main([*words.split(), "--shapes", "masks"]) == 0
    content = json.loads((tmp_path / "p.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["a.png", "b.png"]
    assert content["categories"][0]["name"] == "car"  # those of the network, without its class unlabeled
    capsys.readouterr()
    assert main(words.split()) == 2
    assert "p.json: exists; choose another file as --out, or give --overwrite" in capsys.readouterr().err
    words = f"data convert --to index --annotations {tmp_path / 'p.json'} --root {root} --dataset mfnet --out"
    assert main([*words.split(), str(tmp_path / "back")]) == 0
    for stem in "ab":
        back = np.asarray(Image.open(tmp_path / "back" / "labels" / f"{stem}.png"))
        assert np.array_equal(back, np.asarray(Image.open(tmp_path / "p" / "index" / f"{stem}.png")))


def test_a_data_set_gives_its_classes_and_images(tmp_path: Path) -> None:
    root = make_pairs(tmp_path / "own", ["a"], classes=3)
    (root / "dataset.yaml").write_text("names: [road, car, person]\n")
    words = f"data convert --to cvat --root {root} --out {tmp_path / 'a.xml'} --shapes masks"
    assert main(words.split()) == 0
    words = (
        f"data convert --to index --annotations {tmp_path / 'a.xml'} --root {root} --out {tmp_path / 'out'}"
    )
    assert main(words.split()) == 0
    before = np.asarray(Image.open(root / "labels" / "a.png"))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "labels" / "a.png")), before)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    labels, shapes = tmp_path / "labels", Shapes(CLASSES)
    with pytest.raises(InputError, match="no such folder"):
        from_labels(labels, tmp_path / "a.json", "coco", shapes)
    save(labels / "a.png", blobs(0))
    save(labels / "b.png", blobs(0))
    save(labels / "c.png", np.full((4, 4), 9, dtype=np.uint8))
    save(tmp_path / "rgb" / "a.png", random_rgb(0))
    with pytest.raises(ManyInputsError) as error:
        from_labels(labels, tmp_path / "a.json", "coco", shapes, tmp_path / "rgb")
    for reason in ("a.png: is 80x60, but", "b.png: has no image in", "c.png: label values outside"):
        assert reason in str(error.value)
    assert not (tmp_path / "a.json").exists()
    with pytest.raises(InputError, match=r"`tolerance` -1"):
        Shapes(CLASSES, tolerance=-1)
    words = f"data convert --to coco --root {labels} --out {tmp_path / 'a.json'}".split()
    assert main(words) == 2  # the classes are unknown


def test_real_labels_there_and_back(samples: Path, tmp_path: Path) -> None:
    labels, root = tmp_path / "labels", samples / "mfnet"
    for name in ("00101D", "00706N"):
        save(labels / f"{name}.png", np.asarray(Image.open(root / "labels" / f"{name}.png")))
    for to, file in (("coco", tmp_path / "a.json"), ("cvat", tmp_path / "a.xml")):
        words = f"data convert --to {to} --root {labels} --dataset mfnet --out {file} --shapes masks"
        assert main(words.split()) == 0
        words = f"data convert --to index --annotations {file} --root {root} --dataset mfnet --out"
        assert main([*words.split(), str(tmp_path / to)]) == 0
        for name in ("00101D", "00706N"):
            back = np.asarray(Image.open(tmp_path / to / "labels" / f"{name}.png"))
            assert np.array_equal(back, np.asarray(Image.open(labels / f"{name}.png")))


def test_labels_and_images_by_patterns_and_in_folders(tmp_path: Path) -> None:
    for name in ("1", "2"):
        save(tmp_path / "mine" / "photos" / "day" / f"original_{name}.png", random_rgb(0, 8, 8))
        save(tmp_path / "mine" / "masks" / "day" / f"{name}.png", np.ones((8, 8), dtype=np.uint8))
    text = 'names: [background, car]\nrgb: "photos/original_{id}.png"\nlabels: "masks/{id}.png"\n'
    (tmp_path / "mine" / "dataset.yaml").write_text(text)
    out = tmp_path / "out.json"
    assert main(["data", "convert", "--to", "coco", "--root", str(tmp_path / "mine"), "--out", str(out)]) == 0
    names = [image["file_name"] for image in json.loads(out.read_text())["images"]]
    assert names == ["day/original_1.png", "day/original_2.png"]
