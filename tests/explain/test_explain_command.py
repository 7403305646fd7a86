"""`efnet explain` as a user types it: one pair, folders, taking up again, faults."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from explain_helpers import make_network, make_pair
from PIL import Image

import efnet
from efnet.cli.main import main
from efnet.explain import html_report


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_network().save_pretrained(folder)
    return folder


@pytest.fixture
def scenes(tmp_path) -> Path:
    """Three pairs in `rgb/` and `thermal/`, of two sizes."""
    for number in range(3):
        write_scene(tmp_path, f"drive/{number}", 40 + 9 * number, 64, seed=number)
    return tmp_path


def write_scene(root: Path, name: str, height: int, width: int, seed: int = 0) -> None:
    for folder, image in zip(("rgb", "thermal"), make_pair(height, width, seed), strict=True):
        path = root / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def explain(checkpoint: Path, out: Path, *words: object) -> int:
    return main(
        [
            str(word)
            for word in ("explain", "--checkpoint", checkpoint, "--out", out, "--device", "cpu", *words)
        ]
    )


def test_a_network_without_clusters_is_refused(scenes, capsys):
    make_network(merging="pool").save_pretrained(scenes / "pool")
    assert explain(scenes / "pool", scenes / "out", *one_pair(scenes)) == 2
    error = capsys.readouterr().err
    assert "merges tokens by pool: it has no clusters to draw; explain a network that merges" in error
    assert "--" not in error, "values are not options"


def one_pair(scenes: Path, name: str = "drive/1") -> list[object]:
    return ["--rgb", scenes / "rgb" / f"{name}.png", "--thermal", scenes / "thermal" / f"{name}.png"]


def test_a_pair_of_files_goes_to_the_folder_itself(checkpoint, scenes, capsys):
    out = scenes / "out"
    assert explain(checkpoint, out, *one_pair(scenes)) == 0
    captured = capsys.readouterr()
    assert captured.out == f"explained 1 of 1 pairs: {out}/explain.html\n"
    assert "explain" in captured.err, "progress goes to stderr"
    values = json.loads((out / "explain.json").read_text())
    assert values["name"] == "1"
    assert values["image_size"] == [49, 64]
    predictor = efnet.Predictor.from_pretrained(checkpoint, device="cpu")
    prediction = predictor(scenes / "rgb" / "drive" / "1.png", scenes / "thermal" / "drive" / "1.png")
    assert values["shares"] == prediction.shares()
    shown = np.asarray(Image.open(out / "prediction.png"))
    expected = prediction.overlay(Image.open(scenes / "rgb" / "drive" / "1.png"), 0.6)
    np.testing.assert_array_equal(shown, np.asarray(expected))
    assert all((out / name).is_file() for name in values["pictures"])


def test_folders_give_a_subfolder_for_each_pair_and_are_taken_up_again(
    checkpoint, scenes, capsys, monkeypatch
):
    out = scenes / "out"
    folders = ["--rgb", scenes / "rgb", "--thermal", scenes / "thermal"]
    writing, written = html_report.write_json, []

    def interrupted(path, value):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(path)
        writing(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(html_report, "write_json", interrupted)
        assert explain(checkpoint, out, *folders) == 130
    assert "stopped after 1 of 3 pairs" in capsys.readouterr().err
    first = (out / "drive" / "0" / "explain.html").stat().st_mtime_ns
    assert explain(checkpoint, out, *folders) == 0
    assert f"explained 2 of 3 pairs, 1 finished before: {out}/*/explain.html" in capsys.readouterr().out
    assert (out / "drive" / "0" / "explain.html").stat().st_mtime_ns == first
    for number in range(3):
        values = json.loads((out / "drive" / str(number) / "explain.json").read_text())
        assert values["image_size"] == [40 + 9 * number, 64]
    (out / "drive" / "2" / "explain.html").unlink()
    assert explain(checkpoint, out, *folders) == 0
    assert "explained 1 of 3 pairs, 2 finished before" in capsys.readouterr().out


def test_four_channels_and_one_camera(checkpoint, scenes, tmp_path):
    rgb, thermal = make_pair(40, 64)
    Image.fromarray(np.dstack([rgb, thermal])).save(scenes / "both.png")
    assert explain(checkpoint, scenes / "a", "--rgbt", scenes / "both.png") == 0
    assert explain(checkpoint, scenes / "b", *one_pair(scenes, "drive/0")) == 0
    first, second = (json.loads((scenes / name / "explain.json").read_text()) for name in "ab")
    assert {**first, "name": "0"} == second, "the same pair in two forms"
    make_network(modality="thermal").save_pretrained(tmp_path / "heat")
    assert explain(tmp_path / "heat", scenes / "c", *one_pair(scenes)[2:]) == 0
    assert not (scenes / "c" / "input-rgb.png").exists()
    assert "thermal alone" in (scenes / "c" / "explain.html").read_text()


def test_results_are_never_mixed(checkpoint, scenes, tmp_path, capsys):
    out = scenes / "out"
    assert explain(checkpoint, out, *one_pair(scenes)) == 0
    assert explain(checkpoint, out, *one_pair(scenes, "drive/2")) == 2
    assert "holds the page of 1" in capsys.readouterr().err
    make_network(decoder="mlp").save_pretrained(tmp_path / "other")
    assert explain(tmp_path / "other", out, *one_pair(scenes)) == 2
    assert "another model" in capsys.readouterr().err
    assert explain(tmp_path / "other", out, *one_pair(scenes, "drive/2"), "--overwrite") == 0
    assert json.loads((out / "explain.json").read_text())["name"] == "2"
    assert not list(out.glob("distance-*.png"))


def test_a_pair_that_cannot_be_read_is_left_out(checkpoint, scenes, capsys):
    Image.new("L", (64, 90)).save(scenes / "thermal" / "drive" / "1.png")
    out = scenes / "out"
    assert explain(checkpoint, out, "--rgb", scenes / "rgb", "--thermal", scenes / "thermal") == 2
    captured = capsys.readouterr()
    assert "explained 2 of 3 pairs" in captured.out
    assert "drive/1.png" in captured.err
    assert "differ by more than 1 %" in captured.err
    assert "Traceback" not in captured.err
    assert not (out / "drive" / "1").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--checkpoint": "nowhere/x/y"}, "nowhere/x/y: no such folder"),
        ({"--thermal": None}, "needs --thermal too"),
        ({"--rgb": "none.png"}, "--rgb none.png: no such file"),
        ({"--precision": "8"}, "precision '8' is unknown"),
        ({"--out": "FILE"}, "is not a folder"),
        ({"--colour": "1"}, "there is no option --colour"),
    ],
)
def test_bad_input_is_named(checkpoint, scenes, capsys, change, words):
    (scenes / "file").write_text("x")
    options = dict(zip(one_pair(scenes)[::2], one_pair(scenes)[1::2], strict=True))
    options |= {"--checkpoint": checkpoint, "--out": scenes / "out"} | change
    if options["--out"] == "FILE":
        options["--out"] = scenes / "file"
    argv = [str(word) for key, value in options.items() if value is not None for word in (key, value)]
    assert main(["explain", *argv]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message
    assert not (scenes / "out").exists()
