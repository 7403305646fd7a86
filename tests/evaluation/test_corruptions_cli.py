"""`efnet evaluate --corrupt` as a user types it."""

import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import efnet
from efnet.cli.main import main
from efnet.data.layouts import open_split
from efnet.evaluation.corruptions.suite import SUITE


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small MFNet on disk (48x64), and checkpoints of fresh networks for both cameras and for each."""
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    names = ["00001D", "00002N", "00003D"]
    for folder in ("images", "labels"):
        (root / "mfnet" / folder).mkdir(parents=True)
    for name in names:
        label = np.kron(rng.integers(0, 9, (3, 4)), np.ones((16, 16))).astype(np.uint8)
        image = rng.integers(0, 256, (48, 64, 4)).astype(np.uint8)
        Image.fromarray(image, "RGBA").save(root / "mfnet" / "images" / f"{name}.png")
        Image.fromarray(label).save(root / "mfnet" / "labels" / f"{name}.png")
    for split in ("train", "val", "test"):
        (root / "mfnet" / f"{split}.txt").write_text("\n".join(names) + "\n")
    classes = open_split("mfnet", root / "mfnet", "test").classes
    for modality in ("rgbt", "rgb", "thermal"):
        torch.manual_seed(0)
        efnet.create_model("efnet_tiny", classes=classes, modality=modality).save_pretrained(root / modality)
    return root


def evaluate(world, *options, checkpoint="rgbt"):
    data = ["--dataset", "mfnet", "--root", str(world / "mfnet"), "--split", "test", "--protocol", "native"]
    words = ["--checkpoint", str(world / checkpoint), "--device", "cpu", "--workers", "0"]
    return main(["evaluate", *data, *words, *map(str, options)])


def test_table_json_markdown_sheet_and_plot(world, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    files = {name: tmp_path / "out" / f"report.{name}" for name in ("json", "md", "png", "svg")}
    outputs = ["--json", files["json"], "--markdown", files["md"]]
    pictures = ["--sheet", files["png"], "--plot", files["svg"]]
    chosen = ["--corrupt", "fog,thermal_drift, missing", "--severities", "1,4"]
    assert evaluate(world, *chosen, *outputs, *pictures) == 0
    report = json.loads(files["json"].read_text())
    values = report["robustness"]
    assert list(values["corruptions"]) == ["fog", "thermal_drift", "missing_rgb", "missing_thermal"]
    assert values["severities"] == [1, 4]
    assert list(values["corruptions"]["fog"]["severity"]) == ["1", "4"]
    assert values["corruptions"]["fog"]["levels"] == list(SUITE[7].levels)
    assert report["images"] == 3
    out = capsys.readouterr().out
    assert f"clean: mIoU {100 * report['miou']:.2f}" in out
    assert f"{100 * values['corruptions']['fog']['miou']:.2f}" in out
    assert "drawn with seed 0" in out
    assert "**colour camera, mean**" in files["md"].read_text()
    with Image.open(files["png"]) as sheet:
        assert sheet.width == 6 + 6 * 186
    assert "<svg" in files["svg"].read_text()
    # The clean figures are those of the command without --corrupt.
    assert evaluate(world, "--json", files["json"]) == 0
    plain = json.loads(files["json"].read_text())
    del report["robustness"]
    # Boundaries are counted by that command alone.
    for entry in (plain, *plain["per_image"]):
        del entry["boundary"]
    assert plain == report


def test_one_camera_alone_has_its_own_faults(world, tmp_path):
    for modality in ("rgb", "thermal"):
        file = tmp_path / f"{modality}.json"
        assert (
            evaluate(
                world,
                *("--corrupt", "all", "--severities", "2", "--limit", "1", "--json", file),
                checkpoint=modality,
            )
            == 0
        )
        found = json.loads(file.read_text())
        assert set(found["robustness"]["groups"]) == {modality}
        assert found["protocol"]["limit"] == {"pairs": 1, "of": 3}


def test_missing_camera_scores_as_its_predictions_do(world, tmp_path):
    """The figure for a camera that is not there, by the way that users would take: predict, then score."""
    assert evaluate(world, "--corrupt", "missing", "--json", tmp_path / "corrupt.json") == 0
    entries = json.loads((tmp_path / "corrupt.json").read_text())["robustness"]["corruptions"]
    root = str(world / "mfnet")
    assert main(["data", "convert", "--to", "folders", "--root", root, "--out", str(tmp_path / "pairs")]) == 0
    for camera, other in (("rgb", "thermal"), ("thermal", "rgb")):
        out = tmp_path / camera
        given = [f"--{camera}", "none", f"--{other}", str(tmp_path / "pairs" / other)]
        outputs = ["--out", str(out), "--save", "index", "--device", "cpu"]
        assert main(["predict", "--checkpoint", str(world / "rgbt"), *given, *outputs]) == 0
        data = ["--dataset", "mfnet", "--root", root, "--split", "test", "--protocol", "native"]
        file = tmp_path / f"{camera}.json"
        assert main(["score", "--predictions", str(out / "index"), *data, "--json", str(file)]) == 0
        ours = entries[f"missing_{camera}"]["severity"]["any"]
        assert ours["iou"] == json.loads(file.read_text())["iou"]


def test_limit_is_said_and_journal_goes_on(world, tmp_path, capsys):
    chosen = ["--corrupt", "shift", "--severities", "5", "--limit", "2", "--journal", tmp_path / "j.jsonl"]
    assert evaluate(world, *chosen) == 0
    first = capsys.readouterr()
    assert "2 of 3 pairs, at even steps" in first.out
    assert evaluate(world, *chosen) == 0
    again = capsys.readouterr()
    assert again.out == first.out
    assert "2 pairs are done" in again.err
    # Of other figures the same file cannot be the record.
    for changed in (["--corrupt-seed", "1"], ["--size", "64x64"]):
        assert evaluate(world, *chosen, *changed) == 2
        assert "is not a journal of this evaluation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corrupt", "snow"], "no corruption is called 'snow'; there are all, the groups rgb"),
        (["--corrupt", ","], "no corruption is named"),
        (["--corrupt", "fog", "--severities", "0,3"], "severities 0: give whole numbers from 1"),
        (["--corrupt", "fog", "--severities", "x"], "--severities x: give whole numbers from 1 to 5"),
        (["--corrupt", "fog", "--severities", ""], "severities none"),
        (["--corrupt", "fog", "--limit", "0"], "--limit 0: give 1 or more"),
        (["--corrupt", "fog", "--corrupt-seed", "-1"], "--corrupt-seed -1: give 0 or more"),
        (["--corrupt", "fog", "--save-predictions", "maps"], "--save-predictions does not go with --corrupt"),
        (["--corrupt", "fog", "--plot", "x.pdf"], "--plot x.pdf: give a file name that ends in .svg or .png"),
        (
            ["--corrupt", "fog", "--journal", "/dev/null/x"],
            "--journal /dev/null/x: /dev/null is not a folder",
        ),
        (["--severities", "1"], "--severities goes with --corrupt"),
        (["--limit", "1"], "--limit goes with --corrupt"),
        (["--plot", "x.png"], "--plot goes with --corrupt"),
        (["--journal", "x"], "--journal goes with --corrupt"),
        (["--corrupt-seed", "3"], "--corrupt-seed goes with --corrupt"),
    ],
)
def test_wrong_options_are_messages_before_the_long_run(world, capsys, options, message):
    assert evaluate(world, *options, checkpoint="nowhere") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("efnet: error: ")
    assert message in captured.err
    assert captured.out == ""


@pytest.mark.slow
@pytest.mark.skipif(
    os.name != "posix" or not torch.distributed.is_gloo_available(), reason="torchrun on the CPU needs gloo"
)
def test_two_processes_write_the_report_and_the_journal_of_one(world, tmp_path):
    data = ["--dataset", "mfnet", "--root", str(world / "mfnet"), "--protocol", "native"]
    chosen = ["--corrupt", "fog,dead_pixels,missing", "--severities", "2,4", "--batch-size", "3"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    written = []
    for starter in ([], torchrun, torchrun):  # the third goes on from the second's journal
        files = [tmp_path / f"{bool(starter)}.{kind}" for kind in ("json", "jsonl")]
        words = ["evaluate", "--checkpoint", str(world / "rgbt"), "--device", "cpu", "--workers", "0"]
        outputs = ["--json", str(files[0]), "--journal", str(files[1])]
        done = subprocess.run(
            [sys.executable, *starter, "-m", "efnet", *words, *data, *chosen, *outputs],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("clean: mIoU") == 1
        written.append([file.read_text() for file in files])
    assert "3 pairs are done" in done.stderr
    assert written[0] == written[1] == written[2]


def test_a_fault_of_the_other_camera_is_refused(world, capsys):
    assert evaluate(world, "--corrupt", "fog", checkpoint="thermal") == 2
    assert "'fog' does not concern a network of modality thermal" in capsys.readouterr().err


def test_plot_without_matplotlib_names_the_extra(world, capsys, monkeypatch):
    real = importlib.import_module

    def missing(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert evaluate(world, "--corrupt", "fog", "--plot", "x.png") == 2
    assert "--plot needs matplotlib: pip install 'efnet[plot]'" in capsys.readouterr().err


def test_a_damaged_file_is_named(world, tmp_path, capsys):
    root = tmp_path / "mfnet"
    for path in sorted((world / "mfnet").rglob("*")):
        if path.is_file():
            copy = root / path.relative_to(world / "mfnet")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    broken = root / "labels" / "00002N.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert evaluate(world, "--root", root, "--corrupt", "fog") == 2
    assert str(broken) in capsys.readouterr().err
