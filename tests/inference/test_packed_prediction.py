"""`efnet predict` on tars of pairs: the maps that the files give, and tars made to do harm."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prediction_helpers import make_pair

from efnet.cli.main import main
from efnet.inference.resume import FILE_NAME


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "png")
    return stream.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def pair_files(name: str, seed: int) -> dict[str, bytes]:
    rgb, thermal = make_pair(seed)
    return {f"{name}.rgb.png": png(rgb), f"{name}.thermal.png": png(thermal)}


@pytest.fixture
def command(checkpoint, tmp_path):
    words = ["predict", f"--checkpoint={checkpoint}", "--device=cpu", "--save=index"]
    return lambda rgbt, *more: main([*words, f"--out={tmp_path / 'out'}", f"--rgbt={rgbt}", *more])


@pytest.fixture
def tars(tmp_path) -> Path:
    """Three pairs in two tars, of which one holds four channels."""
    folder = tmp_path / "tars"
    folder.mkdir()
    rgb, thermal = make_pair(2)
    write_tar(folder / "b.tar", {"drive/c%2E1.rgbt.png": png(np.dstack([rgb, thermal])), "c.json": b"{}"})
    write_tar(folder / "a.tar", pair_files("a", 0) | {"a.cls": b"3"} | pair_files("b", 1))
    return folder


def maps(out: Path) -> dict[str, np.ndarray]:
    return {
        path.relative_to(out).as_posix(): np.asarray(Image.open(path)) for path in sorted(out.rglob("*.png"))
    }


@pytest.mark.parametrize("how", ["glob", "list"])
def test_maps_are_those_of_files(command, tars, tmp_path, predictor, how, capsys):
    pattern = f"{tars}/*.tar" if how == "glob" else f"{tars}/b.tar,{tars}/a.tar"
    assert command(pattern) == 0
    found = maps(tmp_path / "out" / "index")
    assert list(found) == ["a.png", "b.png", "drive/c.1.png"]
    for seed, index in enumerate(found.values()):
        np.testing.assert_array_equal(index, predictor(*make_pair(seed)).index)
    capsys.readouterr()
    assert command(pattern) == 0
    assert "predicted 0 of 3 images, 3 finished before" in capsys.readouterr().out
    write_tar(tars / "a.tar", pair_files("a", 0) | pair_files("b", 9))
    assert command(pattern) == 0
    assert "predicted 2 of 3 images" in capsys.readouterr().out, "the tar is another"


def test_a_packed_split(command, folders, tmp_path, predictor):
    for number in range(3):
        label = folders / "labels" / f"frame{number}.png"
        label.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((48, 64), np.uint8)).save(label)
    (folders / "dataset.yaml").write_text("names: [a, b]\n")
    words = ["data", "pack", "--dataset", "folders", "--root", str(folders), "--split", "trainval"]
    assert main([*words, "--out", str(tmp_path / "shards")]) == 0
    assert command(tmp_path / "shards") == 0
    for number in range(3):
        index = maps(tmp_path / "out" / "index")[f"frame{number}.png"]
        np.testing.assert_array_equal(index, predictor(*make_pair(number)).index)
    record = json.loads((tmp_path / "out" / FILE_NAME).read_text().splitlines()[1])
    assert record["files"][1].endswith("shards/trainval-000000.tar/frame0.thermal.png")


@pytest.mark.parametrize("key", ["%2E%2E%2Fx", "%2Fetc%2Fx", "a%2F%2E%2E%2F%2E%2E%2Fx", "x%00", "%5Cx"])
def test_names_stay_below_the_folder(command, tmp_path, key):
    write_tar(tmp_path / "a.tar", pair_files(key, 0))
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "out")}
    assert command(tmp_path / "a.tar") == 0
    assert list(maps(tmp_path / "out" / "index")) == [f"{key}.png"]
    assert before == {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "out")}


def test_faults(command, tars, tmp_path, capsys):
    def refused(pattern: object, message: str) -> None:
        assert command(pattern) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
        assert not (tmp_path / "out").exists()

    refused(tars / "none.tar", "none.tar: cannot be read")
    refused(f"{tars}/x*.tar", "no such tar")
    refused(write_tar(tmp_path / "a.tar", {"notes.txt": b"x"}), "no NAME.rgb.png and NAME.thermal.png")
    refused(
        write_tar(tmp_path / "b.tar", {"x.thermal.png": b"x"}), "x.thermal.png: no RGB image of that name"
    )
    write_tar(tmp_path / "a.tar", pair_files("a", 0))
    refused(f"{tars}/a.tar,{tmp_path}/a.tar", "same name as")
    (tars / "a.tar").write_bytes((tars / "a.tar").read_bytes()[:1500])
    refused(tars / "a.tar", "a.tar: is cut off")
    refused(write_tar(tmp_path / "c.tar", {"../x.rgb.png": b"x"}), "leads out of it")


def test_a_damaged_image_is_named(command, tmp_path, capsys):
    write_tar(tmp_path / "a.tar", pair_files("a", 0) | {"b.rgbt.png": b"not an image", "c.rgbt.png": b""})
    assert command(tmp_path / "a.tar") == 2
    captured = capsys.readouterr()
    assert "predicted 1 of 3 images" in captured.out
    assert "a.tar/b.rgbt.png: cannot be read (not an image format" in captured.err
    assert "a.tar/c.rgbt.png: is empty (0 bytes)" in captured.err
