"""Files of many channels and pages: `channels` and `page` of a dataset.yaml, and numpy files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from data_helpers import HEIGHT, WIDTH, random_label, random_rgb, random_thermal, save
from format_helpers import write_tiff
from PIL import Image

from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.data.bands import Bands
from efnet.data.check import check
from efnet.data.convert import to_folders
from efnet.data.images import open_image, read_header, read_raw_thermal, read_rgb
from efnet.data.layouts import open_split
from efnet.data.pack import pack
from efnet.data.sample import read_sample
from efnet.training.run_folder import fingerprint

NAMES = ["background", "car", "person"]


def describe(root: Path, **keys: object) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.yaml").write_text(yaml.safe_dump({"names": NAMES, **keys}))
    return root


def stack(seed: int, dtype: str, order: str = "rgb-t") -> np.ndarray:
    """Channels in the order of letters; `-` is noise that must not be read."""
    heat = random_thermal(seed)
    parts = {**dict(zip("rgb", np.moveaxis(random_rgb(seed), 2, 0), strict=True)), "t": heat, "-": 255 - heat}
    return np.stack([parts[letter] for letter in order], axis=2).astype(dtype)


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
@pytest.mark.parametrize(
    ("dtype", "order", "channels"),
    [
        ("uint8", "rgb-t", {"rgb": [1, 2, 3], "thermal": 5}),
        ("uint8", "t-bgr", {"rgb": [5, 4, 3], "thermal": 1}),
        ("uint16", "rgbt--", {"rgb": [1, 2, 3], "thermal": 4, "white": 255}),
        ("float32", "-rgb-t", {"rgb": [2, 3, 4], "thermal": 6, "white": 255}),
    ],
)
def test_channels_are_those_that_the_description_names(
    tmp_path: Path, suffix: str, dtype: str, order: str, channels: dict[str, object]
) -> None:
    root = describe(tmp_path, channels=channels, thermal_scale=[0, 255])
    (root / "rgbt").mkdir()
    for seed in range(2):
        if suffix == ".npy":
            np.save(root / f"rgbt/{seed}.npy", stack(seed, dtype, order))
        else:
            write_tiff(root / f"rgbt/{seed}.tif", stack(seed, dtype, order))
        save(root / f"labels/{seed}.png", random_label(seed, 3))
    pairset = open_split("folders", root, "trainval")
    for seed, pair in enumerate(pairset.pairs):
        sample = read_sample(pair, pairset.classes, pairset.thermal_scale)
        assert (sample.rgb == random_rgb(seed)).all()
        expected = random_thermal(seed).astype(np.float64) / 255
        assert np.abs(sample.thermal - expected).max() < 1e-6
    report = check("folders", root)
    assert (report.problems, report.splits[0].sizes) == ((), {(HEIGHT, WIDTH): 1})


def test_many_channels_without_a_choice_are_refused_with_the_list_of_bands(tmp_path: Path) -> None:
    root = describe(tmp_path)
    (root / "rgbt").mkdir()
    write_tiff(
        root / "rgbt/1.tif", np.dstack([np.full((8, 8), value, np.uint8) for value in (1, 2, 3, 4, 5)])
    )
    (problem,) = set(check("folders", root, ["trainval"]).problems)
    assert "1: 1 to 1, 2: 2 to 2, 3: 3 to 3, 4: 4 to 4, 5: 5 to 5" in problem
    assert "channels" in problem


@pytest.mark.parametrize(
    "channels",
    [3, [1, 2], {"rgb": [1, 2, 3]}, {"rgb": [1, 2], "thermal": 3}, {"rgb": [0, 1, 2], "thermal": 3},
     {"rgb": [1, 2, 3], "thermal": "x"}, {"rgb": [1, 2, 3], "thermal": 4, "depth": 5}],
)  # fmt: skip
def test_wrong_channels_are_refused(tmp_path: Path, channels: object) -> None:
    root = describe(tmp_path, channels=channels)
    with pytest.raises(InputError, match=r"dataset\.yaml: 'channels' is such as"):
        open_split("folders", root, "trainval")


@pytest.mark.parametrize(
    ("channels", "fault"),
    [
        ({"rgb": [1, 2, 3], "thermal": 9}, "no channel 9"),
        ({"rgb": [1, 2, 3], "thermal": 4, "white": 100}, "0 to 100"),
    ],
)
def test_channels_that_a_file_lacks_are_problems(
    tmp_path: Path, channels: dict[str, object], fault: str
) -> None:
    root = describe(tmp_path, channels=channels)
    (root / "rgbt").mkdir()
    write_tiff(root / "rgbt/1.tif", stack(1, "uint16", "rgbt-"))
    problems = check("folders", root, ["trainval"]).problems
    assert any(fault in line and "1.tif" in line for line in problems)


def test_pages_of_a_description(tmp_path: Path) -> None:
    root = describe(tmp_path, rgbt="stacks", page={"rgb": 2, "thermal": 3}, thermal_scale=[0, 2550])
    (root / "stacks").mkdir()
    preview, rgb, heat = random_rgb(5), random_rgb(1), random_thermal(1).astype(np.uint16) * 10
    write_tiff(root / "stacks/1.tif", preview, rgb, heat)
    pairset = open_split("folders", root, "trainval")
    sample = read_sample(pairset.pairs[0], pairset.classes, pairset.thermal_scale)
    assert (sample.rgb == rgb).all()
    assert np.abs(sample.thermal - heat / 2550).max() < 1e-6
    other = describe(tmp_path / "other", page=2)
    for folder in ("rgb", "thermal"):
        (other / folder).mkdir()
    write_tiff(other / "rgb/1.tif", preview, rgb)
    save(other / "thermal/1.png", random_thermal(1))  # a file of one page is read whole
    (pair,) = open_split("folders", other, "trainval").pairs
    assert (read_sample(pair, pairset.classes).rgb == rgb).all()
    for wrong in (0, "two", {"heat": 1}):
        describe(other, page=wrong)
        with pytest.raises(InputError, match="'page' is a number from 1"):
            open_split("folders", other, "trainval")


def test_channels_decide_the_fingerprint_and_cannot_be_packed_but_converted(tmp_path: Path) -> None:
    root = describe(tmp_path / "in", channels={"rgb": [1, 2, 3], "thermal": 4})
    (root / "rgbt").mkdir()
    write_tiff(root / "rgbt/1.tif", stack(1, "uint8", "rgbt-"))
    first = fingerprint(train=open_split("folders", root, "trainval"))
    with pytest.raises(InputError, match="efnet data convert"):
        pack(open_split("folders", root, "trainval"), tmp_path / "shards")
    assert to_folders(root, tmp_path / "out") == 1
    assert (read_rgb(tmp_path / "out/rgb/1.png") == random_rgb(1)).all()
    assert (read_raw_thermal(tmp_path / "out/thermal/1.png") == random_thermal(1)).all()
    describe(root, channels={"rgb": [1, 2, 3], "thermal": 5})
    assert fingerprint(train=open_split("folders", root, "trainval")) != first


@pytest.mark.parametrize("dtype", [">f4", "<u2", "?", "i4"])
def test_numpy_files_hold_any_numbers(tmp_path: Path, dtype: str) -> None:
    array = random_thermal(3).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    image = open_image(tmp_path / "a.npy")
    assert (image.samples == array).all()
    assert image.samples.dtype.isnative
    assert (read_header(tmp_path / "a.npy").height, image.header.width) == (HEIGHT, WIDTH)
    np.save(tmp_path / "b.npy", np.moveaxis(random_rgb(1, 40, 50), 2, 0))
    assert (read_rgb(tmp_path / "b.npy") == random_rgb(1, 40, 50)).all()  # channels first


def test_numpy_files_that_are_no_images_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "b.npy", np.zeros(5))
    np.save(tmp_path / "c.npy", random_thermal(1))
    (tmp_path / "c.npy").write_bytes((tmp_path / "c.npy").read_bytes()[:-9])
    (tmp_path / "d.npy").write_bytes(b"\x93NUMPY\x01\x00")
    for name in "abcd":
        with pytest.raises(InputError, match=rf"{name}\.npy"):
            open_image(tmp_path / f"{name}.npy")
    np.save(tmp_path / "e.npy", random_rgb(1))
    with pytest.raises(InputError, match="not an image format"):
        open_image((tmp_path / "e.npy").read_bytes(), formats=("PNG",))  # an upload


def test_a_path_of_channels_is_a_file_where_there_is_one(tmp_path: Path) -> None:
    odd = tmp_path / "bands=1"
    save(tmp_path / "a.png", random_thermal(1)).rename(odd)
    assert (open_image(odd).samples == random_thermal(1)).all()
    assert Bands((1, 2, 3), 1023).of(Path("x.tif")) == Path("x.tif/bands=1,2,3;white=1023")


def test_check_of_channels_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = describe(tmp_path, channels={"rgb": [1, 2, 3], "thermal": 5})
    (root / "rgbt").mkdir()
    write_tiff(root / "rgbt/1.tif", stack(1, "uint16", "rgb-t") + 29000)
    write_tiff(root / "rgbt/2.tif", stack(2, "uint16", "rgb-t") + 29000)
    assert main(["data", "check", "--dataset", "folders", "--root", str(root)]) == 0
    assert "centikelvin" in capsys.readouterr().out


def test_pages_of_one_file_become_folders(tmp_path: Path) -> None:
    colors, heat = (
        Image.fromarray(kind(seed, 20, 24)) for seed, kind in enumerate((random_rgb, random_thermal))
    )
    folder = tmp_path / "in" / "rgbt"
    folder.mkdir(parents=True)
    colors.save(folder / "a.tif", save_all=True, append_images=[heat])
    describe(tmp_path / "in", page={"rgb": 1, "thermal": 2})
    words = f"data convert --to folders --root {tmp_path / 'in'} --out {tmp_path / 'out'}"
    assert main(words.split()) == 0
    pair = open_split("folders", tmp_path / "out", "trainval").pairs[0]
    assert pair.thermal is not None
    assert np.array_equal(read_rgb(pair.rgb), np.asarray(colors))
    assert np.array_equal(read_raw_thermal(pair.thermal), np.asarray(heat))
