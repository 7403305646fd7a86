"""Pairs found by the names that cameras and people give: patterns, tags, sub-folders, links, lists."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path, PurePosixPath

import pytest
import yaml
from data_helpers import random_label, random_rgb, random_thermal, save
from hypothesis import given
from hypothesis import strategies as st

from efnet.cli.main import main
from efnet.core.errors import InputError, ManyInputsError
from efnet.data.check import check
from efnet.data.convert import to_rgbt
from efnet.data.layouts import open_split
from efnet.data.layouts.patterns import NamePattern, is_tagged, suggest, untagged
from efnet.data.sample import read_sample
from efnet.data.unlabelled import open_unlabelled
from efnet.inference.inputs import find_pairs

NAMES = ["background", "car", "person"]


def describe(root: Path, **keys: object) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.yaml").write_text(
        yaml.safe_dump({"names": NAMES, **keys}, allow_unicode=True), encoding="utf-8"
    )
    return root


def write(root: Path, *triples: tuple[str, str, str | None]) -> Path:
    """Images by the names of colour, thermal and label file; their content depends on the place alone."""
    for seed, (rgb, thermal, label) in enumerate(triples):
        save(root / rgb, random_rgb(seed))
        save(root / thermal, random_thermal(seed))
        if label is not None:
            save(root / label, random_label(seed, 3))
    return root


def names_of(root: Path, split: str = "trainval") -> list[str]:
    return [pair.name for pair in open_split("folders", root, split).pairs]


def test_patterns_of_a_description(tmp_path: Path) -> None:
    keys = {"rgb": "rgb/original_{id}.png", "thermal": "thermal/heat_{id}.png", "labels": "masks/{id}.png"}
    root = describe(tmp_path / "set [1]*", **keys)
    write(root, *((f"rgb/original_{n}.png", f"thermal/heat_{n}.png", f"masks/{n}.png") for n in (10, 9, 2)))
    save(root / "rgb/readme_2.png", random_rgb(7))  # fits no pattern
    pairset = open_split("folders", root, "trainval")
    assert [pair.name for pair in pairset.pairs] == ["2", "9", "10"]
    for pair, seed in zip(pairset.pairs, (2, 1, 0), strict=True):
        sample = read_sample(pair, pairset.classes)
        assert (sample.rgb == random_rgb(seed)).all()
        assert (sample.thermal * 255).round().astype(int).tolist() == random_thermal(seed).tolist()
        assert sample.label is not None
        assert (sample.label == random_label(seed, 3)).all()
    report = check("folders", root)
    assert not report.problems
    assert any("readme_2.png" in line for line in report.warnings)


def test_names_that_differ_in_case_do_not_share_a_partner(tmp_path: Path) -> None:
    """One file of another case is found; where two colour images could mean it, both are named."""
    root = write(describe(tmp_path / "one"), ("rgb/A.png", "thermal/a.png", "labels/a.png"))
    assert open_split("folders", root, "trainval").pairs[0].thermal == root / "thermal" / "a.png"
    save(root / "rgb" / "a.png", random_rgb(7))
    with pytest.raises(InputError, match=r"rgb/A\.png and .*rgb/a\.png: both .*thermal/a\.png"):
        open_split("folders", root, "trainval")
    save(root / "thermal" / "A.png", random_thermal(7))
    save(root / "labels" / "A.png", random_label(7, 3))
    pairs = open_split("folders", root, "trainval").pairs
    assert [(pair.rgb.name, pair.thermal and pair.thermal.name) for pair in pairs] == [
        ("A.png", "A.png"),
        ("a.png", "a.png"),
    ]


def test_label_is_another_word_for_labels(tmp_path: Path) -> None:
    root = describe(tmp_path, label="masks/{id}_m.png")
    write(root, ("rgb/1.png", "thermal/1.png", "masks/1_m.png"))
    assert open_split("folders", root, "trainval").pairs[0].label == root / "masks/1_m.png"


@pytest.mark.parametrize(
    ("rgb", "thermal"),
    [
        ("DJI_{n}_V.JPG", "DJI_{n}_T.JPG"),
        ("DJI_{n}_W.JPG", "DJI_{n}_T.JPG"),
        ("FLIR{n}_RGB.jpg", "FLIR{n}_PreviewData.jpg"),
        ("{n}_rgb.png", "{n}_ir.png"),
        ("{n}_visible.png", "{n}_thermal.png"),
        ("vis_{n}.png", "lwir_{n}.png"),
    ],
)
@pytest.mark.parametrize("folders", [("rgb", "thermal"), ("images", "images")])
def test_known_tags_in_two_folders_or_one(
    tmp_path: Path, rgb: str, thermal: str, folders: tuple[str, str]
) -> None:
    root = describe(tmp_path, rgb=folders[0], thermal=folders[1])
    for number in ("0001", "0002"):
        write(
            root,
            *[(f"{folders[0]}/{rgb}".format(n=number), f"{folders[1]}/{thermal}".format(n=number), None)],
        )
    found = [
        (pair.rgb.name, pair.thermal and pair.thermal.name)
        for pair in open_split("folders", root, "trainval").pairs
    ]
    assert found == [(rgb.format(n=n), thermal.format(n=n)) for n in ("0001", "0002")]
    pairs = find_pairs(str(root / folders[0]), str(root / folders[1]))
    assert [(pair.rgb and pair.rgb.name, pair.thermal and pair.thermal.name) for pair in pairs] == found


def test_labels_with_tags_or_named_after_the_colour_image(tmp_path: Path) -> None:
    one = describe(tmp_path / "one", rgb="all", thermal="all", labels="all")
    write(one, ("all/1_rgb.png", "all/1_ir.png", "all/1_mask.png"))
    other = write(describe(tmp_path / "other"), ("rgb/1_rgb.png", "thermal/1_ir.png", "labels/1_rgb.png"))
    for root, label in ((one, "all/1_mask.png"), (other, "labels/1_rgb.png")):
        (pair,) = open_split("folders", root, "trainval").pairs
        assert (pair.name, pair.label) == ("1", root / label)
        assert not check("folders", root, ["trainval"]).problems


def test_sub_folders_and_links_become_part_of_the_name(tmp_path: Path) -> None:
    root = describe(tmp_path / "set")
    write(root, ("rgb/day/1.png", "thermal/day/1.png", "labels/day/1.png"))
    elsewhere = write(tmp_path / "disk", ("rgb/1.png", "thermal/1.png", "labels/1.png"))
    for folder in ("rgb", "thermal", "labels"):
        (root / folder / "night").symlink_to(elsewhere / folder)
        (root / folder / "circle").symlink_to(root / folder)
    assert names_of(root) == ["day/1", "night/1"]
    assert not check("folders", root).problems
    (root / "train.txt").write_text("rgb/night/1.png\nday/1\n")
    assert names_of(root, "train") + names_of(root, "val") == ["day/1", "night/1"] or len(names_of(root)) == 2
    describe(root, rgb="rgb/{id}.png", thermal="thermal/{id}.png")
    assert names_of(root) == ["night/1", "day/1"]


def test_upper_case_suffixes_and_letters(tmp_path: Path) -> None:
    root = describe(tmp_path, rgb="rgb/IMG_{id}.jpg", thermal="thermal/img_{id}")
    write(root, ("rgb/IMG_1.JPG", "thermal/IMG_1.PNG", None))
    (pair,) = open_split("folders", root, "trainval").pairs
    assert pair.rgb.name == "IMG_1.JPG"


def test_accents_composed_and_apart_in_names_patterns_and_lists(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "été")
    root = describe(tmp_path, rgb="rgb/caméra_{id}.png", thermal="thermal/{id}.png")
    write(root, (unicodedata.normalize("NFD", "rgb/caméra_") + f"{apart}.png", "thermal/été.png", None))
    (root / "train.txt").write_text(f"rgb/caméra_{apart}.png\n", encoding="utf-8")
    assert names_of(root) == ["été"]


@pytest.mark.parametrize(
    "line",
    [
        "rgb/original_7.png",
        "original_7",
        "rgb\\original_7.png",
        "rgb/original_7.png masks/7.png",
        "rgb/original_7.png,thermal/heat_7.png,masks/7.png",
        "'rgb/original_7.png'\tmasks/7.png",
        "7",
    ],
)
@pytest.mark.parametrize("ending", [("utf-8", "\n"), ("utf-8-sig", "\r\n"), ("utf-16", "\r\n")])
def test_lists_of_a_set_with_patterns(tmp_path: Path, line: str, ending: tuple[str, str]) -> None:
    keys = {"rgb": "rgb/original_{id}.png", "thermal": "thermal/heat_{id}.png", "labels": "masks/{id}.png"}
    root = describe(tmp_path, **keys)
    write(root, *((f"rgb/original_{n}.png", f"thermal/heat_{n}.png", f"masks/{n}.png") for n in (6, 7)))
    (root / "test.txt").write_bytes(f"{line}{ending[1]}".encode(ending[0]))
    assert names_of(root, "test") == ["7"]


def test_nothing_matches_shows_the_nearest_names_and_the_patterns(tmp_path: Path) -> None:
    root = describe(tmp_path)
    write(root, *((f"rgb/original_{n}.png", f"thermal/heat_{n}.png", None) for n in (1, 2)))
    with pytest.raises(InputError) as caught:
        names_of(root)
    text = str(caught.value)
    assert "original_1.png and heat_1.png" in text
    assert 'rgb: "rgb/original_{id}.png" and thermal: "thermal/heat_{id}.png"' in text
    describe(root, rgb="rgb/original_{id}.png", thermal="thermal/heat_{id}.png")  # as the message advises
    assert names_of(root) == ["1", "2"]
    with pytest.raises(ManyInputsError, match=r'original_\{id\}\.png" and `thermal`') as caught_many:
        find_pairs(str(root / "rgb"), str(root / "thermal"))
    assert "heat_{id}.png" in str(caught_many.value)


def test_folders_of_other_names_are_shown_with_the_patterns(tmp_path: Path) -> None:
    root = write(describe(tmp_path), ("colour/original_1.png", "heat/heat_1.png", None))
    with pytest.raises(InputError, match=r'such as rgb: ".*\{id\}.*" and thermal: ".*\{id\}'):
        names_of(root)


def test_a_pattern_that_fits_nothing_is_refused(tmp_path: Path) -> None:
    root = describe(tmp_path, rgb="rgb/original_{id}.png", thermal="thermal/hot_{id}.png")
    write(root, ("rgb/original_1.png", "thermal/heat_1.png", None))
    with pytest.raises(
        InputError, match=r"hot_\{id\}\.png: fits no file; the nearest name there is heat_1\.png"
    ):
        names_of(root)
    with pytest.raises(InputError, match=r"fits no file; the nearest name there is heat_1\.png"):
        find_pairs(str(root / "rgb/original_{id}.png"), str(root / "thermal/hot_{id}.png"))


def test_two_files_of_one_name_are_refused_by_both_names(tmp_path: Path) -> None:
    root = describe(tmp_path, rgb="rgb/{any}_{id}_V.png", thermal="thermal/{any}_{id}_T.png")
    write(root, ("rgb/DJI_20240101_0001_V.png", "thermal/DJI_20240102_0001_T.png", None))
    assert names_of(root) == ["0001"]  # times of the two cameras may differ
    save(root / "rgb/DJI_20240103_0001_V.png", random_rgb(1))
    with pytest.raises(ManyInputsError, match=r"20240103_0001_V\.png: has the same stem as DJI_20240101"):
        names_of(root)
    with pytest.raises(ManyInputsError, match="same"):
        find_pairs(str(root / "rgb/{any}_{id}_V.png"), str(root / "thermal/{any}_{id}_T.png"))


def test_both_wide_and_visible_of_one_thermal_image_are_refused(tmp_path: Path) -> None:
    root = describe(tmp_path, rgb="DCIM", thermal="DCIM")
    write(
        root, ("DCIM/DJI_1_V.png", "DCIM/DJI_1_T.png", None), ("DCIM/DJI_1_W.png", "DCIM/DJI_1_T.png", None)
    )
    with pytest.raises(ManyInputsError, match=r"DJI_1_W\.png: has the same stem as DJI_1_V\.png"):
        names_of(root)


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("rgb/original.png", "has no {id}"),
        ("{any}/{id}.png", "before"),
        ("rgb/frame{any}{id}.png", "it is open where {id} ends"),
        ("rgb/{id}{any}.png", "it is open where {id} ends"),
    ],
)
def test_wrong_patterns_are_refused(tmp_path: Path, pattern: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        NamePattern.read(tmp_path / pattern)


def test_a_folder_per_pair(tmp_path: Path) -> None:
    root = describe(tmp_path, rgb="{id}/rgb.png", thermal="{id}/ir.png", labels="{id}/mask.png")
    write(root, *((f"{n}/rgb.png", f"{n}/ir.png", f"{n}/mask.png") for n in ("s1/a", "s1/b")))
    assert names_of(root) == ["s1/a", "s1/b"]
    assert not check("folders", root).problems


def test_a_pattern_may_repeat_the_name(tmp_path: Path) -> None:
    pattern = NamePattern(tmp_path, "{id}/{id}_rgb.png")
    assert pattern.name_of(PurePosixPath("a/a_rgb.png")) == "a"
    assert pattern.name_of(PurePosixPath("a/b_rgb.png")) is None


LETTERS = st.text(st.sampled_from("ab1_-.[]*?é({})"), min_size=1, max_size=6)


@given(before=LETTERS, after=LETTERS, name=LETTERS)
def test_a_pattern_finds_the_name_it_was_written_with(before: str, after: str, name: str) -> None:
    """Every other letter stands for itself."""
    if "{id}" in before + after or "{any}" in before + after or set(before) <= {"."}:
        return
    pattern = NamePattern(Path("x"), f"{before}{{id}}{after}.png")
    written = PurePosixPath(f"{before}{name}{after}.png")
    assert pattern.name_of(written) == name
    assert pattern.name_of(PurePosixPath("seq") / written) == f"seq/{name}"
    assert pattern.name_of(PurePosixPath(f"x{written}")) is None or before.startswith("x")


def test_suggested_patterns() -> None:
    assert suggest("original_12.jpg", "heat_12.jpg") == ("original_{id}.jpg", "heat_{id}.jpg")
    assert suggest("a/FLIR_0003_c.jpg", "b/FLIR_0003_q.png") == ("a/{id}_c.jpg", "b/{id}_q.png")
    assert suggest("left.png", "right.png") is None
    assert untagged(PurePosixPath("thermal/7_th.png")) == untagged(PurePosixPath("rgb/7_rgb.png")) == "7"
    assert is_tagged(PurePosixPath("IMG_7_T.jpg"), "thermal")
    assert not is_tagged(PurePosixPath("street.jpg"), "thermal")


def test_conversion_of_a_set_with_patterns_and_sub_folders(tmp_path: Path) -> None:
    root = describe(
        tmp_path / "in", rgb="rgb/o_{id}.png", thermal="thermal/h_{id}.png", labels="masks/{id}.png"
    )
    write(root, *((f"rgb/{s}/o_1.png", f"thermal/{s}/h_1.png", f"masks/{s}/1.png") for s in ("a", "b")))
    (root / "train.txt").write_text("rgb/b/o_1.png\n")
    (root / "test.txt").write_text("rgb/a/o_1.png masks/a/1.png\n")
    assert to_rgbt(root, tmp_path / "out") == 4
    assert names_of(tmp_path / "out", "test") == ["a/1"]
    (pair,) = open_split("folders", tmp_path / "out", "test").pairs
    classes = open_split("folders", root, "test").classes
    before = read_sample(open_split("folders", root, "test").pairs[0], classes)
    after = read_sample(pair, classes)
    assert (before.rgb == after.rgb).all()
    assert (before.thermal == after.thermal).all()
    assert before.label is not None
    assert (before.label == after.label).all()


def test_unlabelled_pairs_take_patterns(tmp_path: Path) -> None:
    like = open_split(
        "folders",
        write(describe(tmp_path / "set"), ("rgb/1.png", "thermal/1.png", "labels/1.png")),
        "trainval",
    )
    folder = write(tmp_path / "more", ("original/o_1.png", "heat/h_1.png", None))
    with pytest.raises(InputError, match="no pairs"):
        open_unlabelled(str(folder), like)
    describe(folder, rgb="original/o_{id}.png", thermal="heat/h_{id}.png")
    assert [pair.name for pair in open_unlabelled(str(folder), like).pairs] == ["1"]


def test_predict_with_patterns_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path, *((f"rgb/original_{n}.png", f"thermal/heat_{n}.png", None) for n in (1, 2)))
    words = ["predict", "--rgb", str(root / "rgb"), "--thermal", str(root / "thermal"), "--save", "index"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 2
    assert "heat_{id}.png" in capsys.readouterr().err
    match = ["--match", "rgb=original_{id}.png", "thermal=heat_{id}.png"]
    assert main([*words, "--out", str(tmp_path / "b"), *match]) == 0
    assert sorted(path.name for path in (tmp_path / "b/index").iterdir()) == ["1.png", "2.png"]
    for wrong in ("rgb", "rgb=original.png", "label={id}.png", "rgbt={id}.png"):
        assert main([*words, "--out", str(tmp_path / "c"), "--match", wrong]) == 2
        assert "--match" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
    shutil.rmtree(tmp_path / "b")
