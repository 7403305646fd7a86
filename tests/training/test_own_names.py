"""A user's folder as cameras and people name files, from `data check` to label maps, without renaming one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from efnet.cli.main import main
from efnet.data.images import read_rgb, read_thermal
from efnet.data.labels import read_label
from efnet.data.layouts import open_split
from efnet.scenes import write_dataset

COUNT = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`original_N.jpg`, `heat_N.jpg` (grey, as JPEG) and masks with a palette, of generated scenes."""
    made = tmp_path_factory.mktemp("scenes") / "set"
    write_dataset(
        made, train=COUNT, val=0, test=0, size=(64, 64), night_share=0.5, seed=3, layout="folders", workers=1
    )
    pairset = open_split("folders", made, "trainval")
    root = tmp_path_factory.mktemp("mine")
    for name in ("photos", "heat", "masks"):
        (root / name).mkdir()
    for number, pair in enumerate(pairset.pairs, 1):
        assert pair.thermal is not None
        assert pair.label is not None
        Image.fromarray(read_rgb(pair.rgb)).save(root / f"photos/original_{number}.jpg", quality=95)
        grey = (read_thermal(pair.thermal) * 255).round().astype(np.uint8)
        Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(
            root / f"heat/heat_{number}.jpg", quality=95
        )
        mask = Image.fromarray(read_label(pair.label, pairset.classes)).convert("P")
        mask.putpalette(pairset.classes.flat_palette())
        mask.save(root / f"masks/{number}.png")
    classes = pairset.classes.to_dict()
    lines = [f"{key}: {value}" for key, value in classes.items()]
    lines += ['rgb: "photos/original_{id}.jpg"', 'thermal: "heat/heat_{id}.jpg"', 'label: "masks/{id}.png"']
    (root / "dataset.yaml").write_text("\n".join(lines) + "\n")
    return root


def test_from_check_to_maps(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    data = ["--dataset", "folders", "--root", str(folder)]
    assert main(["data", "check", *data]) == 0
    assert "no problems" in capsys.readouterr().out
    run = tmp_path / "run"
    options = ["--model", "efnet_tiny", "--recipe", "scratch", "--size", "64x64", "--epochs", "1"]
    options += ["--batch-size", "3", "--workers", "0", "--device", "cpu", "--quiet"]
    assert main(["train", *data, *options, "--out", str(run)]) == 0
    assert main(["evaluate", *data, "--checkpoint", str(run), "--split", "val", "--device", "cpu"]) == 0
    out = tmp_path / "out"
    given = ["--rgb", str(folder / "photos"), "--thermal", str(folder / "heat"), "--out", str(out)]
    match = ["--match", "rgb=original_{id}.jpg,thermal=heat_{id}.jpg"]
    assert (
        main(["predict", "--checkpoint", str(run), *given, *match, "--save", "index", "--device", "cpu"]) == 0
    )
    maps = sorted(path.name for path in (out / "index").iterdir())
    assert maps == sorted(f"{number}.png" for number in range(1, COUNT + 1))
    score = ["score", "--predictions", str(out / "index"), *data, "--split", "trainval"]
    assert main(score) == 0
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert after == before


def test_without_patterns_the_message_leads_to_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = folder.parent / "plain.yaml"
    names = [line for line in (folder / "dataset.yaml").read_text().splitlines() if "{id}" not in line]
    own.write_text("\n".join([*names, "rgb: photos", "thermal: heat", "labels: masks"]))
    assert main(["data", "check", "--dataset", str(own), "--root", str(folder)]) == 2
    message = capsys.readouterr().err
    assert re.search(r"original_(\d+)\.jpg and heat_\1\.jpg", message)
    assert 'rgb: "photos/original_{id}.jpg" and thermal: "heat/heat_{id}.jpg"' in message
