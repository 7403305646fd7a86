"""`efnet evaluate` and `efnet score` as a user types them."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from scoring_oracle import oracle

import efnet
from efnet.cli.evaluate import input_size
from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.data.layouts import open_split
from efnet.models import InputSpec
from efnet.models.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small MFNet on disk (64x96), and a checkpoint of a fresh network."""
    root = tmp_path_factory.mktemp("world")
    mfnet = root / "mfnet"
    rng = np.random.default_rng(0)
    names = ["00001D", "00002N", "00003D", "00004N"]
    for folder in ("images", "labels"):
        (mfnet / folder).mkdir(parents=True)
    for name in names:
        blocks = rng.integers(0, 9, (4, 6)).astype(np.uint8)
        label = np.kron(blocks, np.ones((16, 16), dtype=np.uint8))
        image = rng.integers(0, 256, (64, 96, 4)).astype(np.uint8)
        Image.fromarray(image, "RGBA").save(mfnet / "images" / f"{name}.png")
        Image.fromarray(label).save(mfnet / "labels" / f"{name}.png")
    for split in ("train", "val", "test"):
        (mfnet / f"{split}.txt").write_text("\n".join(names) + "\n")
    classes = open_split("mfnet", mfnet, "test").classes
    torch.manual_seed(0)
    model = efnet.create_model("efnet_tiny", classes=classes)
    model.training_summary = {"selected_on": "val"}
    model.save_pretrained(root / "checkpoint")
    other = efnet.create_model("efnet_tiny", num_classes=5)
    other.save_pretrained(root / "other")
    return root


def data(world, protocol="native"):
    root = str(world / "mfnet")
    return ["--dataset", "mfnet", "--root", root, "--split", "test", "--protocol", protocol]


def evaluate(world, *options, checkpoint="checkpoint", protocol="native"):
    words = ["--checkpoint", str(world / checkpoint), "--device", "cpu", "--workers", "0", *options]
    return main(["evaluate", *data(world, protocol), *words])


def report_of(path):
    return json.loads(path.read_text())


def test_evaluate_writes_report_tables_and_pictures(world, tmp_path, capsys):
    files = {name: tmp_path / f"out/{name}" for name in ("r.json", "r.md", "r.png")}
    options = ["--json", files["r.json"], "--markdown", files["r.md"], "--sheet", files["r.png"]]
    assert evaluate(world, *map(str, options), "--sheet-rows", "4") == 0
    report = report_of(files["r.json"])
    assert (
        set(report["iou"]) == set(report["acc"]) == set(report["day"]["iou"]) == set(report["night"]["acc"])
    )
    assert report["images"] == 4
    assert report["protocol"]["checkpoint"] == str(world / "checkpoint")
    assert report["protocol"]["selected_on"] == "val"
    assert report["protocol"]["split"] == "test"
    assert report["protocol"]["input_size"] is None
    assert np.array(report["confusion"]).sum() == 4 * 64 * 96
    out = capsys.readouterr().out
    assert f"mIoU {100 * report['miou']:.2f}" in out
    assert "protocol native: mean over 9 of 9 classes" in out
    assert "predicting unlabeled everywhere: mIoU" in out
    assert f"**{100 * report['miou']:.2f}**" in files["r.md"].read_text()
    with Image.open(files["r.png"]) as sheet:
        assert sheet.width == 5 * 320 + 6 * 8
        assert sheet.height > 4 * 213


@pytest.mark.parametrize("options", [[], ["--size", "48x80"], ["--tta", "--batch-size", "3"]])
@pytest.mark.parametrize("protocol", ["native", "mfnet"])
def test_score_gives_the_figures_of_evaluate(world, tmp_path, options, protocol):
    """Predictions at the protocol's size, written by one command and read by the other."""
    maps, first, second = tmp_path / "maps", tmp_path / "evaluate.json", tmp_path / "score.json"
    saving = ["--save-predictions", str(maps), "--json", str(first)]
    assert evaluate(world, *options, *saving, protocol=protocol) == 0
    scoring = ["--predictions", str(maps), *data(world, protocol), "--json", str(second)]
    assert main(["score", *scoring]) == 0
    evaluated, scored = report_of(first), report_of(second)
    for key in ("miou", "macc", "iou", "acc", "day", "night", "confusion", "images", "trivial"):
        assert scored[key] == evaluated[key]
    labels = [read_index(world / "mfnet" / "labels" / path.name) for path in sorted(maps.iterdir())]
    predictions = [read_index(path) for path in sorted(maps.iterdir())]
    if protocol == "native":
        assert scored["miou"] == pytest.approx(oracle(labels, predictions, 9)[0])
    else:
        assert predictions[0].shape == (480, 640)


@pytest.mark.parametrize("size", ["64x96", "48x80", "96x64"])
def test_predict_and_evaluate_write_the_same_maps(world, tmp_path, size):
    """A network made for another size than the images': two ways to one prediction."""
    model = load_checkpoint(world / "checkpoint")
    height, width = (int(side) for side in size.split("x"))
    model.input = InputSpec(size=(height, width))
    model.save_pretrained(tmp_path / "model")
    maps, out = tmp_path / "maps", tmp_path / "out"
    assert evaluate(world, "--save-predictions", str(maps), checkpoint=tmp_path / "model") == 0
    files = ["--rgbt", str(world / "mfnet" / "images"), "--out", str(out), "--save", "index"]
    assert main(["predict", "--checkpoint", str(tmp_path / "model"), *files, "--device", "cpu"]) == 0
    names = sorted(path.name for path in maps.iterdir())
    assert names == sorted(path.name for path in (out / "index").iterdir())
    assert len(names) == 4
    for name in names:
        evaluated, predicted = Image.open(maps / name), Image.open(out / "index" / name)
        assert evaluated.size == (96, 64)
        np.testing.assert_array_equal(np.asarray(evaluated), np.asarray(predicted))
        assert evaluated.getpalette() == predicted.getpalette()
    # `--size` decides as the model's own size does.
    again = tmp_path / "again"
    assert evaluate(world, "--size", size, "--save-predictions", str(again)) == 0
    assert all((again / name).read_bytes() == (maps / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *itertools.product(("evaluate", "score"), ("--json", "--markdown", "--sheet")),
        ("evaluate", "--save-predictions"),
    ],
)
def test_outputs_are_checked_before_the_long_run(world, tmp_path, capsys, command, option):
    """The checkpoint and the label maps are not even there: the output is found wrong first."""
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "report.png"
    of = {"evaluate": ["--checkpoint", "/nowhere"], "score": ["--predictions", "/nowhere"]}[command]
    assert main([command, *data(world), *of, option, str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"efnet: error: {option} {path}: {tmp_path / 'file'} is not a folder")
    assert (tmp_path / "file").read_text() == "in the way"


def read_index(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_default_protocol_is_the_data_set_s(world, tmp_path):
    maps, report = world / "mfnet" / "labels", tmp_path / "r.json"
    words = ["--predictions", str(maps), "--dataset", "mfnet", "--root", str(world / "mfnet")]
    assert main(["score", *words, "--json", str(report)]) == 0
    assert report_of(report)["protocol"]["name"] == "mfnet"
    assert report_of(report)["miou"] == 1.0


def test_as_a_process(world, capsys):
    words = ["score", "--predictions", str(world / "mfnet" / "labels"), *data(world)]
    done = subprocess.run(
        [sys.executable, "-m", "efnet", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "mIoU 100.00 [100.00, 100.00], mAcc 100.00 (percent)" in done.stdout
    assert main([*words[:-1], "fmb"]) == 2
    wrong = capsys.readouterr()
    assert wrong.out == ""
    assert wrong.err.startswith("efnet: error: protocol fmb is for 15 classes, but the data has 9")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "480"], "--size 480: give height x width"),
        (["--size", "16x640"], "at least 32"),
        (["--precision", "16"], "precision '16' is unknown; choose 32 or bf16"),
        (["--batch-size", "0"], "--batch-size 0: give 1 or more"),
        (["--workers", "-1"], "--workers -1: give 0 or more"),
        (["--sheet", "x.pdf"], "--sheet x.pdf: give a file name that ends in .png"),
        (["--sheet-rows", "0"], "--sheet-rows 0: give 1 or more"),
        (["--device", "mps"], "no float64, which clustering tokens needs; use --device cpu"),
        (["--split", "nope"], "nope"),
        (["--protocol", "nope"], "no protocol is called 'nope'"),
        (["--checkpoint", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_wrong_options_are_messages_with_status_2(world, capsys, options, message):
    assert evaluate(world, *options) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("efnet: error: ")
    assert message in captured.err
    assert captured.out == ""


def test_model_of_other_classes_is_refused(world, capsys):
    assert evaluate(world, checkpoint="other") == 2
    error = capsys.readouterr().err
    assert "the model has 5 (class_0" in error
    assert "the data 9 (unlabeled" in error


@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_all_faulty_files_are_named_at_once(world, tmp_path, capsys, damage):
    root = tmp_path / "mfnet"
    for path in sorted((world / "mfnet").rglob("*")):
        if path.is_file():
            copy = root / path.relative_to(world / "mfnet")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    broken = [root / "images" / "00002N.png", root / "labels" / "00003D.png"]
    for path in broken:
        path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:60])
    assert evaluate(world, "--root", str(root)) == 2
    error = capsys.readouterr().err
    for path in broken:
        assert str(path) in error


def test_sizes():
    assert input_size(None, (480, 640)) == (480, 640)
    assert input_size("240x320", (480, 640)) == (240, 320)
    assert input_size("native", (480, 640)) is None
    for wrong in ("240", "240x", "x320", "-1x5", "240x320x3", "31x64"):
        with pytest.raises(InputError, match="--size"):
            input_size(wrong, None)
