"""Conversions: bit-exact there and back, resumable, and careful with what is there."""

from __future__ import annotations

from pathlib import Path

import jsonargparse
import numpy as np
import pytest
import yaml
from data_helpers import make_mfnet, make_pairs, random_label, save
from PIL import Image

from efnet.cli.data import Convert
from efnet.core.errors import InputError, ManyInputsError
from efnet.data.convert import to_folders, to_index, to_rgbt
from efnet.data.labels import read_label
from efnet.data.layouts import open_split, public, splits_of
from efnet.data.sample import read_sample

LISTS = {"train": ["00001D", "00001D_flip", "00002N"], "val": ["00003D"], "test": ["00004D", "00005N"]}


@pytest.fixture
def mfnet_root(tmp_path: Path) -> Path:
    return make_mfnet(tmp_path / "mfnet", LISTS)


def assert_same_pairs(one: tuple[str, Path], other: tuple[str, Path], split: str) -> None:
    first, second = open_split(*one, split), open_split(*other, split)
    assert [(p.name, p.flip, p.condition) for p in first.pairs] == [
        (p.name, p.flip, p.condition) for p in second.pairs
    ]
    assert first.classes == second.classes
    for a, b in zip(first.pairs, second.pairs, strict=True):
        left, right = read_sample(a, first.classes), read_sample(b, second.classes)
        assert np.array_equal(left.rgb, right.rgb)
        assert np.array_equal(left.thermal, right.thermal)
        assert np.array_equal(left.label, right.label)


def test_folders_read_as_both_layouts(mfnet_root: Path, tmp_path: Path) -> None:
    assert to_folders(mfnet_root, tmp_path / "out") == 10  # five images, five labels
    for dataset in ("mfnet", "folders"):
        for split in ("train", "val", "test"):
            assert_same_pairs(("mfnet", mfnet_root), (dataset, tmp_path / "out"), split)
    assert splits_of("folders", tmp_path / "out") == ("train", "val", "test", "trainval")
    assert not list((tmp_path / "out").glob(".*"))


def test_there_and_back_is_bit_exact(mfnet_root: Path, tmp_path: Path) -> None:
    to_folders(mfnet_root, tmp_path / "folders")
    to_rgbt(tmp_path / "folders", tmp_path / "back")
    for path in (mfnet_root / "images").iterdir():
        back = Image.open(tmp_path / "back" / "images" / path.name)
        assert back.mode == "RGBA"
        assert np.array_equal(np.asarray(back), np.asarray(Image.open(path)))
    for path in (mfnet_root / "labels").iterdir():
        assert (tmp_path / "back" / "labels" / path.name).read_bytes() == path.read_bytes()
    for dataset in ("mfnet", "folders"):
        assert_same_pairs(("mfnet", mfnet_root), (dataset, tmp_path / "back"), "train")


def test_own_set_keeps_its_description(tmp_path: Path) -> None:
    root = make_pairs(tmp_path / "own", ["a", "b"])
    (root / "dataset.yaml").write_text(
        "names: [n, o, p, q, r]\nthermal_scale: [0, 100]\nsplits: {test: t.txt}\nrgb: rgb\n"
    )
    (root / "t.txt").write_text("a\nb\n")
    to_rgbt(root, tmp_path / "four")
    assert_same_pairs(("folders", root), ("folders", tmp_path / "four"), "test")
    to_folders(tmp_path / "four", tmp_path / "again")
    assert_same_pairs(("folders", root), ("folders", tmp_path / "again"), "test")
    assert open_split("folders", tmp_path / "again", "test").thermal_scale == (0, 100)


def test_labels_become_palette_indices(tmp_path: Path) -> None:
    label = random_label(1, 5)
    label[0] = 255
    save(tmp_path / "labels" / "a.png", public.PST900_CLASSES.colorize(label))
    save(tmp_path / "labels" / "b.png", label)
    assert to_index(tmp_path / "labels", tmp_path / "out", public.PST900_CLASSES) == 2
    for name in ("a", "b"):
        image = Image.open(tmp_path / "out" / f"{name}.png")
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), label)
        assert np.array_equal(np.asarray(image.convert("RGB")), public.PST900_CLASSES.colorize(label))
        assert np.array_equal(read_label(tmp_path / "out" / f"{name}.png", public.PST900_CLASSES), label)


def test_faults_are_named_at_once_and_the_rest_is_written(tmp_path: Path) -> None:
    root = make_pairs(tmp_path / "own", ["a", "b", "c", "d"])
    save(root / "thermal" / "a.png", np.full((24, 32), 30000, dtype=np.uint16))
    save(root / "thermal" / "b.png", np.zeros((4, 4), dtype=np.uint8))
    (root / "thermal" / "c.png").unlink()
    with pytest.raises(ManyInputsError) as error:
        to_rgbt(root, tmp_path / "out")
    assert [
        reason in str(error.value)
        for reason in ("is 16-bit, and a four-channel PNG has 8 bits", "is 4x4", "c.png: no such file")
    ] == [True] * 3
    assert [path.name for path in (tmp_path / "out" / "images").iterdir()] == ["d.png"]
    # Mended, the same command goes on where it stopped.
    make_pairs(root, ["a", "b", "c", "d"])
    before = (tmp_path / "out" / "images" / "d.png").stat().st_mtime_ns
    assert to_rgbt(root, tmp_path / "out") == 3
    assert (tmp_path / "out" / "images" / "d.png").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="is not empty"):
        to_rgbt(root, tmp_path / "out")  # complete now


def test_interrupted_conversion_goes_on(mfnet_root: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        to_folders(mfnet_root, tmp_path / "out", progress=interrupt)
    assert to_folders(mfnet_root, tmp_path / "out") < 10
    assert_same_pairs(("mfnet", mfnet_root), ("folders", tmp_path / "out"), "train")


def test_what_is_there_is_not_overwritten(mfnet_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "rgb").mkdir(parents=True)
    (out / "rgb" / "00001D.png").write_text("mine")
    with pytest.raises(InputError, match=r"out: is not empty; .*`overwrite`"):
        to_folders(mfnet_root, out)
    assert (out / "rgb" / "00001D.png").read_text() == "mine"
    to_folders(mfnet_root, out, overwrite=True)
    assert_same_pairs(("mfnet", mfnet_root), ("mfnet", out), "train")
    with pytest.raises(InputError, match="is the folder that is read"):
        to_folders(mfnet_root, mfnet_root, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        to_folders(mfnet_root, tmp_path / "file")


def test_nothing_to_convert(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no four-channel images"):
        to_folders(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="holds no colour images"):
        to_rgbt(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def run(*arguments: str | Path) -> int:
    parser = jsonargparse.ArgumentParser()
    Convert.add_arguments(parser)
    return Convert.run(parser.parse_args([str(argument) for argument in arguments]))


def test_command_line(mfnet_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--to", "folders", "--root", mfnet_root, "--out", tmp_path / "a") == 0
    assert "10 files written" in capsys.readouterr().out
    assert run("--to", "rgbt", "--root", tmp_path / "a", "--out", tmp_path / "b") == 0
    colours = tmp_path / "colours"
    save(colours / "x.png", public.PST900_CLASSES.colorize(random_label(0, 5)))
    assert run("--to", "index", "--root", colours, "--out", tmp_path / "c", "--dataset", "pst900") == 0
    assert (
        run("--to", "index", "--root", colours, "--out", tmp_path / "c", "--dataset", "pst900", "--overwrite")
        == 0
    )
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(public.PST900_CLASSES.to_dict()))
    assert run("--to", "index", "--root", colours, "--out", tmp_path / "d", "--dataset", own) == 0
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "c" / "x.png")), np.asarray(Image.open(tmp_path / "d" / "x.png"))
    )


def test_real_images_there_and_back(samples: Path, tmp_path: Path) -> None:
    root = tmp_path / "mfnet"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
        for name in ("00101D.png", "00706N.png"):
            (root / folder / name).symlink_to(samples / "mfnet" / folder / name)
    (root / "train.txt").write_text("00101D\n00706N\n")
    to_folders(root, tmp_path / "folders")
    to_rgbt(tmp_path / "folders", tmp_path / "back")
    for name in ("00101D.png", "00706N.png"):
        original = np.asarray(Image.open(root / "images" / name))
        assert np.array_equal(np.asarray(Image.open(tmp_path / "back" / "images" / name)), original)
