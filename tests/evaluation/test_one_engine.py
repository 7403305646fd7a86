"""Evaluating is scoring what predict writes: one engine, whatever it is set to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import efnet
from efnet.alignment.homography import Homography
from efnet.cli.main import main
from efnet.core.classes import ClassSet
from efnet.export.export import export_model

HEIGHT, WIDTH = 80, 112
CLASSES = ClassSet.generic(5)
FIGURES = ("miou", "macc", "iou", "acc", "confusion", "images", "trivial")


def smooth(rng: np.random.Generator, size: tuple[int, int], *channels: int) -> np.ndarray:
    """A picture of soft blobs."""
    small = Image.fromarray(rng.integers(0, 256, (5, 7, *channels), dtype=np.uint8))
    return np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC))


def write(root: Path, name: str, rng: np.random.Generator, thermal: np.ndarray) -> None:
    label = np.kron(rng.integers(0, 5, (5, 7)), np.ones((16, 16))).astype(np.uint8)
    for folder, image in (("rgb", smooth(rng, (HEIGHT, WIDTH), 3)), ("thermal", thermal), ("labels", label)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / folder / f"{name}.png")


def describe(root: Path) -> None:
    splits = {"test": "test.txt"}
    (root / "dataset.yaml").write_text(yaml.safe_dump({**CLASSES.to_dict(), "splits": splits}))
    names = sorted(path.stem for path in (root / "rgb").iterdir())
    (root / "test.txt").write_text("".join(f"{name}\n" for name in names))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pairs, the same with a dead thermal camera, and with thermal images of another camera's view."""
    root = tmp_path_factory.mktemp("engine")
    rng = np.random.default_rng(1)
    for number in range(3):
        name = f"frame{number}"
        write(root / "plain", name, rng, smooth(rng, (HEIGHT, WIDTH)))
        dead = np.full((HEIGHT, WIDTH), 90, np.uint8)
        write(root / "dead", name, rng, dead if number else smooth(rng, (HEIGHT, WIDTH)))
        write(root / "apart", name, rng, smooth(rng, (60, 90)))
    for name in ("plain", "dead", "apart"):
        describe(root / name)
    matrix = np.array([[1.2, 0.05, 4.0], [-0.05, 1.3, 2.0], [0, 1e-4, 1]])
    Homography(matrix, (60, 90), (HEIGHT, WIDTH)).save(root / "h.json")
    torch.manual_seed(0)
    model = efnet.create_model("efnet_tiny", classes=CLASSES)
    model.training_summary = {"dropped": ["thermal"]}
    model.save_pretrained(root / "model")
    return root


def figures(file: Path) -> dict[str, object]:
    report = json.loads(file.read_text())
    return {key: report[key] for key in FIGURES}


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ("plain", []),
        ("plain", ["--batch-size=2", "--precision=bf16"]),
        ("plain", ["--tile=48x64", "--overlap=16", "--batch-size=3"]),
        ("apart", ["--homography=h.json"]),
        ("apart", ["--homography=h.json", "--tile=64x64"]),
        ("dead", ["--missing=warn"]),
        pytest.param(
            *("plain", ["--checkpoint=file.onnx", "--runtime=onnx", "--threads=1"]), marks=pytest.mark.slow
        ),
    ],
)
def test_evaluating_is_scoring_what_predict_writes(
    world: Path, data: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    if "--runtime=onnx" in options:
        pytest.importorskip("onnxruntime")
        torch.manual_seed(0)
        network = efnet.create_model("mfnet", classes=CLASSES)
        export_model(network, world / "file.onnx", "onnx", size=(HEIGHT, WIDTH))
    else:
        options = ["--checkpoint=model", *options]
    split = ["--dataset=folders", f"--root={data}", "--split=test", "--protocol=native"]
    files = [f"--json={tmp_path}/evaluated.json", f"--save-predictions={tmp_path}/maps"]
    assert main(["evaluate", *split, *options, *files, "--device=cpu", "--workers=0"]) == 0
    images = [f"--rgb={data}/rgb", f"--thermal={data}/thermal", f"--out={tmp_path}/out", "--save=index"]
    assert main(["predict", *options, *images, "--device=cpu"]) == 0
    scored = [f"--predictions={tmp_path}/out/index", f"--json={tmp_path}/scored.json"]
    assert main(["score", *split, *scored]) == 0
    assert figures(tmp_path / "evaluated.json") == figures(tmp_path / "scored.json")
    for name in ("frame0.png", "frame1.png", "frame2.png"):
        with (
            Image.open(tmp_path / "maps" / name) as ours,
            Image.open(tmp_path / "out/index" / name) as theirs,
        ):
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def evaluated(world: Path, data: str, out: Path, *options: str) -> dict[str, object]:
    words = ["evaluate", f"--checkpoint={world}/model", "--dataset=folders", f"--root={world}/{data}"]
    file = out / "report.json"
    assert main([*words, "--protocol=native", "--device=cpu", "--workers=0", f"--json={file}", *options]) == 0
    return json.loads(file.read_text())


def test_what_was_done_to_the_images_is_reported(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = evaluated(world, "dead", tmp_path)
    assert not {"tile", "homography", "missing"} & set(plain["protocol"])
    capsys.readouterr()
    found = evaluated(world, "dead", tmp_path, "--missing=warn", "--tile=64x64")
    captured = capsys.readouterr()
    assert (found["protocol"]["missing"], found["protocol"]["tile"]) == ("warn", [64, 64, 32])
    assert "tiles of 64x64 that share 32 pixels; dead images: warn" in captured.out
    assert "warning: frame1: the thermal image is of one value; grey takes its place" in captured.err
    assert "note: 2 images without a usable thermal image" in captured.err
    assert found["confusion"] != plain["confusion"]
    aligned = evaluated(world, "apart", tmp_path, f"--homography={world}/h.json", "--corrupt=missing_rgb")
    assert aligned["protocol"]["homography"][0][0] == pytest.approx(1.2, abs=0.1)
    assert aligned["robustness"]["corruptions"]["missing_rgb"]["miou"] != aligned["miou"]


def test_augmentation_of_one_tile_is_that_of_the_image(world: Path, tmp_path: Path) -> None:
    whole = evaluated(world, "plain", tmp_path, "--tta")
    tiled = evaluated(world, "plain", tmp_path, "--tta", f"--tile={HEIGHT}x{WIDTH}")
    assert tiled["confusion"] == whole["confusion"]
    assert evaluated(world, "plain", tmp_path)["confusion"] != whole["confusion"]


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("apart", [], "register the pair"),
        ("dead", ["--missing=error"], "the thermal image is of one value"),
        ("plain", ["--tile=64x64", "--size=64x64"], "leave out --size"),
        ("plain", ["--overlap=8"], "give --tile too"),
        ("plain", ["--missing=maybe"], "missing 'maybe' is unknown"),
        ("plain", ["--runtime=caffe"], "runtime 'caffe' is unknown"),
        ("plain", ["--threads=0"], "--threads 0: give 1 or more"),
        ("plain", ["--homography=none.json"], "none.json"),
    ],
)
def test_what_cannot_be_evaluated(
    world: Path, data: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", f"--checkpoint={world}/model", "--dataset=folders", f"--root={world}/{data}"]
    assert main([*words, "--protocol=native", "--device=cpu", "--workers=0", *options]) == 2
    assert message in capsys.readouterr().err
