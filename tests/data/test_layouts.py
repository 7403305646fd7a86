"""Layouts: which files make a pair, in every set's own folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from data_helpers import make_mfnet, make_pairs, random_rgb, save

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.data.layouts import layout_names, open_split, splits_of
from efnet.data.layouts.listing import read_list
from efnet.data.sample import read_sample

LISTS = {
    "train": ["00001D", "00001D_flip", "00002N"],
    "val": ["00003D"],
    "test": ["00004D", "00005N", "00006N"],
}


@pytest.fixture
def mfnet_root(tmp_path: Path) -> Path:
    return make_mfnet(tmp_path / "mfnet", LISTS)


def names(dataset: str, root: Path, split: str) -> list[str]:
    return [pair.name for pair in open_split(dataset, root, split).pairs]


def test_layout_names() -> None:
    described = ("cart", "sus", "semanticrt", "kaist")
    assert layout_names() == ("mfnet", "pst900", "fmb", "msrs", *described, "folders")


# --- MFNet ----------------------------------------------------------------------------------------------


def test_mfnet_splits(mfnet_root: Path) -> None:
    assert splits_of("mfnet", mfnet_root) == ("train", "val", "test", "test_day", "test_night", "trainval")
    assert names("mfnet", mfnet_root, "train") == LISTS["train"]
    assert names("mfnet", mfnet_root, "trainval") == LISTS["train"] + LISTS["val"]
    assert names("mfnet", mfnet_root, "test_night") == ["00005N", "00006N"]  # no list of its own
    (mfnet_root / "test_night.txt").write_text("00006N\n")
    assert names("mfnet", mfnet_root, "test_night") == ["00006N"]


def test_mfnet_flip_mirrors_all_three(mfnet_root: Path) -> None:
    split = open_split("mfnet", mfnet_root, "train")
    plain, flipped = (read_sample(pair, split.classes) for pair in split.pairs[:2])
    assert (split.pairs[0].flip, split.pairs[1].flip) == (False, True)
    assert split.pairs[1].rgb == split.pairs[0].rgb
    assert np.array_equal(flipped.rgb, plain.rgb[:, ::-1])
    assert np.array_equal(flipped.thermal, plain.thermal[:, ::-1])
    assert np.array_equal(flipped.label, plain.label[:, ::-1])
    assert split.pairs[1].condition == "day"


def test_mfnet_flip_file_is_used_as_it_is(mfnet_root: Path) -> None:
    save(mfnet_root / "images" / "00001D_flip.png", np.dstack([random_rgb(9), random_rgb(9)[..., 0]]))
    pair = open_split("mfnet", mfnet_root, "train").pairs[1]
    assert pair.rgb.name == "00001D_flip.png"
    assert not pair.flip


def test_mfnet_lists_as_people_have_them(mfnet_root: Path) -> None:
    (mfnet_root / "val.txt").write_bytes(b"\xef\xbb\xbf00003d.png \r\n\r\n  00001D\r\n")
    (mfnet_root / "val.txt").rename(mfnet_root / "Val.TXT")
    pairs = open_split("mfnet", mfnet_root, "val").pairs
    assert [pair.rgb.name for pair in pairs] == ["00003D.png", "00001D.png"]
    assert [pair.condition for pair in pairs] == ["day", "day"]


@pytest.mark.parametrize(
    "text",
    [
        "rgb/0001.png labels/0001.png\n",
        "rgb/0001.png\tthermal/0001.tif\r\n",
        "0001.jpg,0001.png",
        "./rgb/0001.png",
        "rgb\\0001.PNG\n",
        "mine/train/rgb/0001.png\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_list_may_hold_paths_and_columns(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "list.txt").write_bytes(text.encode(encoding))
    assert read_list(tmp_path / "list.txt") == ("0001",)


def test_names_of_a_list_keep_blanks_and_unknown_folders(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("my frame 1.png\nseq1/0001.png\ncafe\u0301.png\n", encoding="utf-8")
    assert read_list(tmp_path / "list.txt") == ("my frame 1", "seq1/0001", "caf\u00e9")


def test_a_line_that_names_two_pairs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("0001\nrgb/0002.png labels/0003.png\n")
    with pytest.raises(InputError, match=r"list\.txt: line 2 names 0002 and 0003; a line holds one name"):
        read_list(tmp_path / "list.txt")


def test_quotes_around_a_name_alone(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\"0001\"\n'rgb/my frame.png'\n")
    assert read_list(tmp_path / "list.txt") == ("0001", "my frame")


def test_a_list_in_utf_16_without_its_mark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("0001\n".encode("utf-16-le"))
    with pytest.raises(InputError, match=r"list\.txt: is not a text file, or UTF-16 without its mark"):
        read_list(tmp_path / "list.txt")


def test_accents_composed_and_apart_are_one_name(tmp_path: Path) -> None:
    make_pairs(tmp_path, ["cafe\u0301"])
    (tmp_path / "thermal" / "cafe\u0301.png").rename(tmp_path / "thermal" / "caf\u00e9.png")
    (tmp_path / "dataset.yaml").write_text("names: [a, b]\n")
    (pair,) = open_split("folders", tmp_path, "trainval").pairs
    assert pair.name == "caf\u00e9"
    assert all(path.is_file() for path in (pair.rgb, pair.thermal, pair.label) if path)


def test_mfnet_missing_list_and_folders(mfnet_root: Path, tmp_path: Path) -> None:
    (mfnet_root / "train.txt").unlink()
    with pytest.raises(InputError, match=r"train\.txt: the split's list is missing.*one image name per line"):
        open_split("mfnet", mfnet_root, "train")
    with pytest.raises(
        InputError, match=r"no split 'dev'; it has train, val, test, test_day, test_night, trainval"
    ):
        open_split("mfnet", mfnet_root, "dev")
    with pytest.raises(InputError, match=r"no such folder.*`root`"):
        open_split("mfnet", tmp_path / "nowhere", "train")
    with pytest.raises(InputError, match=r"not the mfnet layout: expected images/ .*found mfnet"):
        open_split("mfnet", tmp_path, "train")
    (mfnet_root / "val.txt").write_text("\n \n")
    with pytest.raises(InputError, match=r"val\.txt: the split list is empty"):
        open_split("mfnet", mfnet_root, "val")
    (mfnet_root / "val.txt").write_bytes(b"\xff\x00\x9f")
    with pytest.raises(InputError, match=r"val\.txt: is not a text file"):
        open_split("mfnet", mfnet_root, "val")


def test_mfnet_in_separate_folders(tmp_path: Path) -> None:
    make_pairs(tmp_path, ["00001D", "00002N"])
    (tmp_path / "train.txt").write_text("00001D\n00002N_flip\n")
    pairs = open_split("mfnet", tmp_path, "train").pairs
    assert pairs[1].thermal == tmp_path / "thermal" / "00002N.png"
    assert pairs[1].flip


def test_two_files_of_one_stem_are_refused(mfnet_root: Path) -> None:
    save(mfnet_root / "images" / "00001D.jpg", random_rgb(0))
    with pytest.raises(InputError, match=r"00001D\.png: has the same stem as 00001D\.jpg"):
        open_split("mfnet", mfnet_root, "train")


# --- train/ and test/ -----------------------------------------------------------------------------------

TRAIN_TEST = {
    "pst900": (("rgb", "thermal", "labels"), 5, "pst900", ()),
    "fmb": (("Visible", "Infrared", "Label"), 15, "fmb", (0,)),
    "msrs": (("vi", "ir", "Segmentation_labels"), 9, "mfnet", ()),
}


@pytest.mark.parametrize("dataset", TRAIN_TEST)
def test_train_test_layouts(tmp_path: Path, dataset: str) -> None:
    folders, count, protocol, unscored = TRAIN_TEST[dataset]
    stems = [f"{number:05d}{'DN'[number % 2]}" for number in range(1, 21)]
    make_pairs(tmp_path / "train", stems, folders, count)
    make_pairs(tmp_path / "test", ["00099D"], folders, count)
    assert splits_of(dataset, tmp_path) == ("train", "val", "trainval", "test")
    train, val = names(dataset, tmp_path, "train"), names(dataset, tmp_path, "val")
    assert sorted(train + val) == names(dataset, tmp_path, "trainval") == stems
    assert len(val) == 2
    split = open_split(dataset, tmp_path, "test")
    assert (len(split), len(split.classes), split.protocol, split.unscored) == (1, count, protocol, unscored)
    assert split.pairs[0].condition == ("day" if dataset == "msrs" else None)
    sample = read_sample(split.pairs[0], split.classes)
    assert np.array_equal(sample.rgb, random_rgb(0))
    with pytest.raises(InputError, match="no split 'test_day'; it has train, val, trainval, test"):
        open_split(dataset, tmp_path, "test_day")


def test_pairs_without_a_partner_stay_for_verify(tmp_path: Path) -> None:
    home = make_pairs(tmp_path / "test", ["a", "b", "c"])
    (home / "thermal" / "a.png").unlink()
    (home / "rgb" / "b.png").unlink()
    (home / "labels" / "c.png").unlink()
    save(home / "labels" / "only.png", np.zeros((4, 4), dtype=np.uint8))
    (home / "rgb" / ".DS_Store").touch()
    (home / "rgb" / "._a.png").touch()
    pairs = open_split("pst900", tmp_path, "test").pairs
    assert [pair.name for pair in pairs] == ["a", "b", "c"]
    missing = [path for pair in pairs for path in (pair.rgb, pair.thermal, pair.label) if not path.exists()]
    assert missing == [home / "thermal" / "a.png", home / "rgb" / "b.png", home / "labels" / "c.png"]


def test_unlabelled_split(tmp_path: Path) -> None:
    home = make_pairs(tmp_path / "test", ["a"])
    for path in (home / "labels").iterdir():
        path.unlink()
    (home / "labels").rmdir()
    assert open_split("pst900", tmp_path, "test").pairs[0].label is None


def test_suffixes_may_differ_and_numbers_sort_as_numbers(tmp_path: Path) -> None:
    home = make_pairs(tmp_path / "test", ["f10", "f9"])
    (home / "thermal" / "f9.png").rename(home / "thermal" / "F9.TIF")
    pairs = open_split("pst900", tmp_path, "test").pairs
    assert [pair.name for pair in pairs if pair.rgb.exists()] == ["f9", "f10"]


def test_palettes_of_the_sets() -> None:
    from efnet.data.layouts import public

    assert public.MFNET_CLASSES.names[4:6] == ("curve", "car_stop")
    assert public.MFNET_CLASSES.palette[7] == (192, 128, 128)
    assert public.MSRS_CLASSES == public.MFNET_CLASSES
    assert public.PST900_CLASSES.names == (
        "background",
        "fire_extinguisher",
        "backpack",
        "hand_drill",
        "survivor",
    )
    assert public.PST900_CLASSES.palette[1] == (255, 0, 0)
    assert public.FMB_CLASSES.names[13] == "bicycle"
    assert public.FMB_CLASSES.palette[14] == (135, 113, 90)


# --- your own -------------------------------------------------------------------------------------------


def describe(root: Path, **values: object) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    path = root / "dataset.yaml"
    path.write_text(yaml.safe_dump({"names": ["background", "person", "car", "dog", "tree"], **values}))
    return path


STEMS = [f"walk{walk}_{frame:03d}" for walk in range(5) for frame in range(4)]


def test_folders_without_any_split(tmp_path: Path) -> None:
    make_pairs(tmp_path, STEMS)
    describe(tmp_path)
    train, val = names("folders", tmp_path, "train"), names("folders", tmp_path, "val")
    assert sorted(train + val) == names("folders", tmp_path, "trainval") == STEMS
    assert len({name[:5] for name in val}) == 1  # one walk, whole
    with pytest.raises(InputError, match="no split 'test'; it has train, val, trainval"):
        open_split("folders", tmp_path, "test")
    split = open_split("folders", tmp_path, "val")
    assert (split.protocol, split.classes.names[3], split.thermal_scale) == ("native", "dog", "auto")
    assert split.classes.palette == ClassSet.generic(5).palette


def test_folders_with_lists(tmp_path: Path) -> None:
    make_pairs(tmp_path, STEMS)
    describe(tmp_path)
    (tmp_path / "train.txt").write_text("\n".join(STEMS[:15]))
    (tmp_path / "test.txt").write_text("\n".join(STEMS[15:]))
    assert splits_of("folders", tmp_path) == ("train", "val", "test", "trainval")
    assert names("folders", tmp_path, "test") == STEMS[15:]
    assert sorted(names("folders", tmp_path, "train") + names("folders", tmp_path, "val")) == STEMS[:15]
    (tmp_path / "val.txt").write_text("walk0_000\n")
    assert names("folders", tmp_path, "train") == STEMS[:15]
    assert names("folders", tmp_path, "val") == ["walk0_000"]
    assert names("folders", tmp_path, "trainval") == [*STEMS[:15], "walk0_000"]


def test_folders_with_split_folders_and_own_names(tmp_path: Path) -> None:
    own = ("colour", "ir16", "mask")
    for split, stems in (("train", STEMS[:3]), ("val", STEMS[3:5])):
        make_pairs(tmp_path / split, stems, own)
    describe(tmp_path, rgb="colour", thermal="ir16", labels="mask", thermal_scale=[100, 200])
    split = open_split("folders", tmp_path, "val")
    assert [pair.name for pair in split.pairs] == STEMS[3:5]
    assert split.thermal_scale == (100.0, 200.0)
    assert names("folders", tmp_path, "train") == STEMS[:3]


def test_folders_with_given_splits_four_channels_and_conditions(tmp_path: Path) -> None:
    make_mfnet(tmp_path, {"a": ["x1N", "x2D"], "b": ["x2D_flip"]})
    path = describe(
        tmp_path,
        rgbt="images",
        splits={"train": "a.txt", "later": "b.txt"},
        conditions={"day": "*D", "night": "*N"},
    )
    assert splits_of("folders", tmp_path) == ("train", "val", "later", "trainval")
    pair = open_split("folders", tmp_path, "later").pairs[0]
    assert (pair.thermal, pair.flip, pair.condition) == (None, True, "day")
    moved = path.rename(tmp_path / "mine.yaml")
    assert names(str(moved), tmp_path, "later") == ["x2D_flip"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a, b]\npallete: []\n", "unknown key 'pallete'; did you mean 'palette'"),
        ("names: [a, b]\nxyzzy: 1\n", "unknown key 'xyzzy'; the keys are names"),
        ("names: [a, b\n", "not valid YAML"),
        ("names: 3\n", "'names' must be a list"),
        ("- a\n", "holds no keys"),
        ("", "holds no keys"),
        ("names: [a]\n", "2 to 255 classes"),
        ("names: [a, a]\n", "given twice: a"),
        ("names: [a, b]\npalette: [[0, 0, 0]]\n", "2 class names but 1 colours"),
        ("names: [a, b]\npalette: [[0, 0, 0], [0, 0]]\n", "one .red, green, blue. per name"),
        ("names: [a, b]\npalette: 7\n", "one .red, green, blue. per name"),
        ("names: [a, b]\nthermal_scale: [5, 5]\n", "'auto' or .low, high."),
        ("names: [a, b]\nthermal_scale: wide\n", "'auto' or .low, high."),
        ("names: [a, b]\nrgb: 3\n", "'rgb' must be a name"),
        ("names: [a, b]\nsplits: [a]\n", "'splits' must be a mapping"),
        ("names: [a, b]\nconditions: {dusk: '*'}\n", "knows day and night, not dusk"),
        ("names: [a, b]\nsplits: {train: gone.txt}\n", "gone.txt: no such list or folder"),
        ("names: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path: Path, text: str, message: str) -> None:
    make_pairs(tmp_path, ["a", "b"])
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        open_split("folders", tmp_path, "train")


def test_folders_without_yaml_or_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset\.yaml: no such file; write one with 'names"):
        open_split("folders", tmp_path, "train")
    describe(tmp_path)
    with pytest.raises(InputError, match=r"not the folders layout: expected rgb/ and thermal/ or rgbt/"):
        open_split("folders", tmp_path, "train")
    with pytest.raises(InputError, match="unknown dataset 'cityscapes'; give one of mfnet"):
        open_split("cityscapes", tmp_path, "train")


# --- real samples ---------------------------------------------------------------------------------------


def test_real_sets(samples: Path) -> None:
    sizes = {
        ("mfnet", "train"): 100,
        ("mfnet", "val"): 20,
        ("mfnet", "test"): 40,
        ("mfnet", "test_day"): 20,
        ("mfnet", "test_night"): 20,
        ("fmb", "trainval"): 6,
        ("fmb", "test"): 2,
        ("pst900", "test"): 1,
    }
    for (dataset, split), size in sizes.items():
        pairset = open_split(dataset, samples / dataset, split)
        assert len(pairset) == size
        sample = read_sample(pairset.pairs[0], pairset.classes, pairset.thermal_scale)
        assert sample.rgb.shape[:2] == sample.thermal.shape == sample.label.shape
        assert sample.thermal.std() > 0.01
