"""Pseudo-labels: thresholds, boxes, and the command from images to a folder that training takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from prediction_helpers import make_model, write_pair

import efnet
from efnet.cli.main import main
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.data.labels import read_label
from efnet.data.pairs import PairSet
from efnet.data.unlabelled import SETTINGS_FILE, open_unlabelled
from efnet.inference.pseudo_label import Box, pseudo_label, read_boxes, read_thresholds

CLASSES = ClassSet.generic(3)
NAMES = CLASSES.names


def probabilities(*rows: str) -> NDArray[np.float32]:
    """Digits are the likeliest class with 0.8; letters a, b, c the same with 0.5."""
    cells = np.array([list(row) for row in rows])
    index = np.array(
        [[int(cell) if cell.isdigit() else ord(cell) - ord("a") for cell in row] for row in cells]
    )
    top = np.where(np.char.isdigit(cells), 0.8, 0.5)
    found = np.repeat(((1 - top) / 2)[None], 3, axis=0)
    np.put_along_axis(found, index[None], top[None], axis=0)
    return found.astype(np.float32)


def test_unsure_pixels_are_255() -> None:
    label = pseudo_label(probabilities("01a", "2bc"), read_thresholds("0.7", CLASSES))
    assert label.tolist() == [[0, 1, 255], [2, 255, 255]]
    label = pseudo_label(
        probabilities("01a", "2bc"), read_thresholds(f"0.7,{NAMES[1]}=0.9,{NAMES[2]}=0.4", CLASSES)
    )
    assert label.tolist() == [[0, 255, 255], [2, 255, 2]]


def test_boxes_confirm_and_veto() -> None:
    """Inside its box an unsure pixel counts, outside even a sure one does not; other classes stay."""
    found = probabilities("1b0a", "1b11")
    boxes = [Box(1, 0.25, 0, 0.75, 1)]
    label = pseudo_label(found, read_thresholds("0.7", CLASSES), boxes, [1])
    assert label.tolist() == [[255, 1, 0, 255], [255, 1, 1, 255]]
    assert pseudo_label(found, read_thresholds("0.7", CLASSES), [], [1]).tolist() == [
        [255, 255, 0, 255],
        [255] * 4,
    ]
    assert pseudo_label(found, read_thresholds("0.7", CLASSES), None, [1])[0, 0] == 1


@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_keeps_fewer(seed: int, one: float, other: float) -> None:
    found = np.random.default_rng(seed).dirichlet((1, 1, 1), (5, 6)).transpose(2, 0, 1).astype(np.float32)
    few, many = (
        pseudo_label(found, np.full(3, value, dtype=np.float32)) != 255
        for value in (max(one, other), min(one, other))
    )
    assert not (few & ~many).any()


@pytest.mark.parametrize("text", ["1.5", "-0.1", "x", "0.9,nothing=0.5", f"{NAMES[0]}="])
def test_thresholds_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="`threshold`"):
        read_thresholds(text, CLASSES)


def test_boxes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1 0.5 0.25 0.5 0.5\n\n0 0.1 0.1 0.2 0.2\n")
    first, second = read_boxes(tmp_path / "a.txt", [NAMES[2], NAMES[1]], CLASSES)
    assert first == Box(1, 0.25, 0.0, 0.75, 0.5)
    assert second.value == 2
    assert read_boxes(tmp_path / "none.txt", NAMES, CLASSES) == []


@pytest.mark.parametrize(
    "line",
    [
        "3 0.5 0.5 0.1 0.1",
        "-1 0.5 0.5 0.1 0.1",
        "0 0.5 0.5 0.1",
        "0 60 0.5 0.1 0.1",
        "car 0 0 0 0",
        "0 nan 0 0 0",
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(InputError, match=r"a\.txt: line 2 is not"):
        read_boxes(tmp_path / "a.txt", NAMES, CLASSES)


@pytest.fixture
def start(tmp_path: Path) -> list[str]:
    for number in range(2):
        write_pair(tmp_path, f"frame{number}", number)
    make_model().save_pretrained(tmp_path / "model")
    words = ["pseudo-label", "--checkpoint", str(tmp_path / "model"), "--out", str(tmp_path / "out")]
    return [*words, "--rgb", str(tmp_path / "rgb"), "--thermal", str(tmp_path / "thermal")]


def test_the_folder_that_the_command_leaves(
    start: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*start, "--threshold", "0"]) == 0
    assert "labelled 2 of 2 pairs" in capsys.readouterr().out
    for camera in ("rgb", "thermal"):
        for file in (tmp_path / camera).iterdir():
            assert (tmp_path / "out" / camera / file.name).read_bytes() == file.read_bytes()
    classes = make_model().classes
    label = read_label(tmp_path / "out" / "labels" / "frame0.png", classes)
    assert main(["predict", *start[1:3], *start[5:], "--out", str(tmp_path / "maps")]) == 0
    assert np.array_equal(label, np.asarray(Image.open(tmp_path / "maps" / "index" / "frame0.png")))


def test_it_goes_on_and_names_damaged_files(
    start: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (tmp_path / "thermal" / "frame1.png").read_bytes()
    (tmp_path / "thermal" / "frame1.png").write_bytes(good[:40])
    assert main(start) == 2
    assert "frame1.png" in capsys.readouterr().err
    (tmp_path / "thermal" / "frame1.png").write_bytes(good)
    before = (tmp_path / "out" / "labels" / "frame0.png").stat().st_mtime_ns
    assert main(start) == 0
    assert "labelled 1 of 2" in capsys.readouterr().out
    assert (tmp_path / "out" / "labels" / "frame0.png").stat().st_mtime_ns == before


def test_wrong_options(start: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--threshold", "2"], "--threshold"),
        (["--boxes", str(tmp_path / "nowhere")], "no such folder"),
        (["--boxes", str(tmp_path), "--box-classes", "unicorn"], "--box-classes unicorn"),
    ):
        assert main([*start, *words]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "labels").exists()


def test_other_settings_are_not_mixed_into_a_folder(
    start: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*start, "--threshold", "0"]) == 0
    label = tmp_path / "out" / "labels" / "frame0.png"
    before = label.read_bytes()
    assert main([*start, "--threshold", "1"]) == 2
    assert "other settings (threshold)" in capsys.readouterr().err
    assert label.read_bytes() == before
    assert main([*start, "--threshold", "0"]) == 0
    assert capsys.readouterr().out.strip() == f"labelled 0 of 2 pairs in {tmp_path / 'out'}"
    assert main([*start, "--threshold", "1", "--overwrite"]) == 0
    assert label.read_bytes() != before


def test_a_network_of_other_classes_needs_no_boxes(start: list[str], tmp_path: Path) -> None:
    efnet.create_model("mfnet", 3).save_pretrained(tmp_path / "model")
    assert main(start) == 0
    settings = json.loads((tmp_path / "out" / SETTINGS_FILE).read_text())
    assert settings["classes"] == list(CLASSES.names)


def test_files_of_sub_folders_get_flat_names(start: list[str], tmp_path: Path) -> None:
    for camera in ("rgb", "thermal"):
        (tmp_path / camera / "day").mkdir()
        (tmp_path / camera / "frame0.png").rename(tmp_path / camera / "day" / "frame0.png")
    assert main(start) == 0
    split = replace(open_unlabelled_like(make_model().classes), root=tmp_path)
    found = open_unlabelled(str(tmp_path / "out"), split)
    assert [pair.name for pair in found.pairs] == ["day_frame0", "frame1"]
    assert all(pair.label is not None and pair.label.is_file() for pair in found.pairs)
    with pytest.raises(InputError, match="labels of other classes"):
        open_unlabelled(str(tmp_path / "out"), open_unlabelled_like(CLASSES))


def open_unlabelled_like(classes: ClassSet) -> PairSet:
    """A split of these classes."""
    return PairSet("folders", Path(), "train", (), classes, "native")


def test_boxes_must_be_there(start: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = make_model().classes.names
    boxes = ["--boxes", str(tmp_path / "boxes"), "--box-classes", names[1]]
    (tmp_path / "boxes").mkdir()
    assert main([*start, *boxes]) == 2
    assert "no pair has a file there" in capsys.readouterr().err
    (tmp_path / "boxes" / "frame0.txt").write_text("0 0.5 0.5 1 1\n")
    assert main([*start, *boxes]) == 0


def test_the_images_own_folder_is_refused(
    start: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start[4] = str(tmp_path)
    assert main(start) == 2
    assert "holds the images of --rgb" in capsys.readouterr().err


def test_a_covered_camera_gives_no_label(
    start: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rgb" / "frame0.png"
    with Image.open(path) as image:
        Image.new("RGB", image.size).save(path)
    assert main(start) == 2
    assert "frame0" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out" / "labels").iterdir()] == ["frame1.png"]
