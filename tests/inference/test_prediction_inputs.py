"""Finding and matching the files of a prediction."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from efnet.core.errors import InputError, ManyInputsError
from efnet.data.images import read_raw_thermal
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


@pytest.mark.parametrize(
    ("rgb", "thermal"),
    [("V", "T"), ("W", "T"), ("RGB", "PreviewData"), ("rgb", "ir"), ("visible", "thermal")],
)
def test_names_of_cameras(tmp_path, rgb, thermal):
    touch(tmp_path, *(f"DJI_2024_{number}_{tag}.JPG" for number in range(2) for tag in (rgb, thermal)))
    pairs = find_pairs(f"{tmp_path}/*_{rgb}.JPG", f"{tmp_path}/*_{thermal}.JPG")
    assert [(pair.name, pair.thermal.name) for pair in pairs] == [
        (f"DJI_2024_{number}", f"DJI_2024_{number}_{thermal}.JPG") for number in range(2)
    ]


def test_brackets_in_the_names_of_folders(tmp_path):
    touch(
        tmp_path,
        "night [2]/rgb/1.png",
        "night [2]/thermal/1.png",
        "night 2/rgb/3.png",
        "night 2/thermal/3.png",
    )
    pairs = find_pairs(f"{tmp_path}/night [2]/rgb/*.png", f"{tmp_path}/night [2]/thermal/*.png")
    assert [pair.rgb for pair in pairs] == [tmp_path / "night [2]" / "rgb" / "1.png"]
    pairs = find_pairs(f"{tmp_path}/night [0-9]/rgb/*.png", f"{tmp_path}/night [0-9]/thermal/*.png")
    assert names(pairs) == ["night 2/3"]


def test_linked_folders_are_searched_but_no_circle(tmp_path):
    touch(tmp_path, "v/a/1.png", "i/a/1.png", "more/v/2.png", "more/i/2.png")
    for kind in "vi":
        (tmp_path / kind / "b").symlink_to(tmp_path / "more" / kind)
        (tmp_path / kind / "a" / "up").symlink_to(tmp_path / kind)
        (tmp_path / kind / "self").symlink_to(tmp_path / kind / "self")
    assert names(find_pairs(str(tmp_path / "v"), str(tmp_path / "i"))) == ["a/1", "b/2"]


def test_accents_match_composed_and_apart(tmp_path):
    touch(tmp_path, "v/caf\u00e9.png", "i/cafe\u0301.png")
    assert names(find_pairs(str(tmp_path / "v"), str(tmp_path / "i"))) == ["caf\u00e9"]


def test_the_nearest_names_are_shown_where_nothing_matches(tmp_path):
    touch(tmp_path, "v/original_1.jpg", "v/original_2.jpg", "i/heat_2.jpg", "i/heat_11.jpg")
    with pytest.raises(ManyInputsError, match=r"the nearest are original_\d\.jpg and heat_\d+\.jpg"):
        find_pairs(str(tmp_path / "v"), str(tmp_path / "i"))


def test_a_page_is_that_of_files_with_several(tmp_path):
    grey = [Image.new("L", (8, 8), number) for number in range(3)]
    for folder in "vi":
        (tmp_path / folder).mkdir()
    grey[0].save(tmp_path / "v" / "1.tif")
    grey[0].save(tmp_path / "i" / "1.tif", save_all=True, append_images=grey[1:])
    (pair,) = find_pairs(str(tmp_path / "v"), str(tmp_path / "i"), page=2)
    assert (pair.name, pair.rgb) == ("1", tmp_path / "v" / "1.tif")
    assert (read_raw_thermal(pair.thermal) == 1).all()
    with pytest.raises(InputError, match="`page` 0: give a number from 1"):
        find_pairs(str(tmp_path / "v"), str(tmp_path / "i"), page=0)
