"""Finding and matching the files of a prediction."""

from __future__ import annotations

from pathlib import Path

import pytest

from efnet.core.errors import InputError, ManyInputsError
from efnet.inference.inputs import find_pairs


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(pairs) -> list[str]:
    return [pair.name for pair in pairs]


def test_two_files_match_whatever_their_names(tmp_path):
    touch(tmp_path, "day.JPG", "heat.tiff")
    (pair,) = find_pairs(str(tmp_path / "day.JPG"), str(tmp_path / "heat.tiff"))
    assert (pair.name, pair.rgb, pair.thermal) == ("day", tmp_path / "day.JPG", tmp_path / "heat.tiff")


def test_folders_match_by_stem_in_numeric_order(tmp_path):
    touch(tmp_path, "v/f10.png", "v/f9.png", "v/f1.jpg", "i/f9.tif", "i/f10.png", "i/f1.png")
    touch(tmp_path, "v/notes.txt", "v/.hidden.png", "i/Thumbs.db")
    pairs = find_pairs(str(tmp_path / "v"), str(tmp_path / "i"))
    assert names(pairs) == ["f1", "f9", "f10"]
    assert pairs[1].thermal == tmp_path / "i" / "f9.tif"


def test_nested_folders_keep_their_structure(tmp_path):
    touch(tmp_path, "v/a/1.png", "v/b/1.png", "i/a/1.png", "i/b/1.png")
    assert names(find_pairs(str(tmp_path / "v"), str(tmp_path / "i"))) == ["a/1", "b/1"]
    assert names(find_pairs(rgbt=str(tmp_path / "v"))) == ["a/1", "b/1"]


def test_globs(tmp_path):
    touch(tmp_path, "drive1/rgb/1.png", "drive1/thermal/1.png", "drive2/rgb/1.png", "drive2/thermal/1.png")
    pairs = find_pairs(f"{tmp_path}/drive*/rgb/*.png", f"{tmp_path}/drive*/thermal/*.png")
    assert names(pairs) == ["drive1/1", "drive2/1"]
    assert names(find_pairs(rgbt=f"{tmp_path}/**/rgb/*.png")) == ["drive1/rgb/1", "drive2/rgb/1"]


def test_modality_tags_on_names(tmp_path):
    touch(tmp_path, "0001_rgb.png", "0001_th.png", "0002_rgb.png", "0002_th.png")
    pairs = find_pairs(f"{tmp_path}/*_rgb.png", f"{tmp_path}/*_th.png")
    assert [(pair.name, pair.thermal.name) for pair in pairs] == [
        ("0001", "0001_th.png"),
        ("0002", "0002_th.png"),
    ]


def test_tags_stay_where_names_match_as_they_are(tmp_path):
    touch(tmp_path, "v/color_1.png", "v/color_2.png", "i/color_1.png", "i/color_2.png")
    assert names(find_pairs(str(tmp_path / "v"), str(tmp_path / "i"))) == ["color_1", "color_2"]


def test_a_file_beside_a_folder_finds_its_partner(tmp_path):
    touch(tmp_path, "v/1.png", "v/2.png", "i/1.png", "i/2.png", "i/3.png")
    (pair,) = find_pairs(str(tmp_path / "v" / "2.png"), str(tmp_path / "i"))
    assert (pair.name, pair.thermal) == ("2", tmp_path / "i" / "2.png")


def test_one_modality_alone(tmp_path):
    touch(tmp_path, "v/1.png")
    assert find_pairs(rgb=str(tmp_path / "v"))[0].thermal is None
    assert find_pairs(thermal=str(tmp_path / "v"))[0].rgb is None


def test_the_output_folder_is_not_searched(tmp_path):
    touch(tmp_path, "v/1.png", "v/out/color/1.png")
    assert names(find_pairs(rgbt=str(tmp_path / "v"), exclude=tmp_path / "v" / "out")) == ["1"]


def test_dots_in_stems(tmp_path):
    touch(tmp_path, "v/cam.0001.png", "v/cam.0002.png")
    assert names(find_pairs(rgbt=str(tmp_path / "v"))) == ["cam.0001", "cam.0002"]


def test_all_faults_at_once(tmp_path):
    touch(tmp_path, "v/1.png", "v/1.jpg", "v/2.png", "v/3.png", "i/1.png", "i/4.png")
    with pytest.raises(ManyInputsError) as caught:
        find_pairs(str(tmp_path / "v"), str(tmp_path / "i"))
    text = str(caught.value)
    assert len(caught.value.faults) == 4
    assert "1.png: same name as" in text
    assert "2.png: no thermal image" in text
    assert "3.png: no thermal image" in text
    assert "4.png: no RGB image" in text


def test_duplicates_of_four_channel_files(tmp_path):
    touch(tmp_path, "1.png", "1.tif")
    with pytest.raises(ManyInputsError, match="same name as"):
        find_pairs(rgbt=str(tmp_path))


@pytest.mark.parametrize("suffix", ["mp4", "AVI", "mov"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_videos_are_not_images(tmp_path, suffix, kind):
    touch(tmp_path, f"drive.{suffix}")
    given = tmp_path / f"drive.{suffix}" if kind == "file" else tmp_path
    with pytest.raises(InputError, match="a video is not an image; give a pair of videos"):
        find_pairs(rgbt=str(given))


def test_refusals(tmp_path):
    touch(tmp_path, "1.png", "notes.txt", "empty/notes.txt")
    image = str(tmp_path / "1.png")
    for options, message in (
        ({}, "nothing to predict"),
        ({"rgb": image, "rgbt": image}, "already holds both"),
        ({"rgbt": str(tmp_path / "2.png")}, r"2\.png: no such file or folder"),
        ({"rgbt": str(tmp_path / "notes.txt")}, "not an image file"),
        ({"rgbt": str(tmp_path / "empty")}, "no image there"),
        ({"rgbt": f"{tmp_path}/*.jpg"}, "no image there"),
        ({"rgb": image, "thermal": str(tmp_path / "empty")}, "`thermal` .*empty: no image"),
    ):
        with pytest.raises(InputError, match=message):
            find_pairs(**options)
