"""Every fault of a split at once; `efnet data check` and its report."""

from __future__ import annotations

import json
from pathlib import Path

import jsonargparse
import numpy as np
import pytest
from data_helpers import make_mfnet, make_pairs, random_rgb, random_thermal, save

from efnet.cli.data import Check
from efnet.cli.main import main
from efnet.core.errors import InputError, ManyInputsError
from efnet.data.check import check
from efnet.data.layouts import open_split
from efnet.data.verify import verify


def damage(root: Path) -> dict[str, str]:
    """One fault of every kind in a PST900 test split of ten pairs; the expected line for each file."""
    home = make_pairs(root / "test", [f"p{index}" for index in range(10)])
    (home / "thermal" / "p0.png").unlink()
    (home / "rgb" / "p1.png").unlink()
    (home / "labels" / "p2.png").unlink()
    path = home / "rgb" / "p3.png"
    path.write_bytes(path.read_bytes()[:900])
    save(home / "thermal" / "p4.png", random_thermal(4, 12, 16))
    save(home / "labels" / "p5.png", np.full((24, 32), 7, dtype=np.uint8))
    save(home / "thermal" / "p6.png", random_rgb(6))
    (home / "labels" / "p7.png").write_bytes(b"")
    save(home / "labels" / "p8.png", np.zeros((24, 30), dtype=np.uint8))
    return {
        "thermal/p0.png": "no such file",
        "rgb/p1.png": "no such file",
        "labels/p2.png": "no such file",
        "rgb/p3.png": "cannot be read",
        "thermal/p4.png": "16x12 (width x height)",
        "labels/p5.png": "7 (768 pixels)",
        "thermal/p6.png": "channels differ",
        "labels/p7.png": "empty (0 bytes)",
        "labels/p8.png": "30x24 (width x height)",
    }


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    expected = damage(tmp_path)
    with pytest.raises(ManyInputsError) as error:
        verify(open_split("pst900", tmp_path, "test"))
    assert len(error.value.faults) == len(expected)
    for file, reason in expected.items():
        line = next(line for line in error.value.faults if line.startswith(str(tmp_path / "test" / file)))
        assert reason in line
    assert "split 'test', 10 pairs (9 problems)" in str(error.value)


def test_headers_alone_find_what_headers_tell(tmp_path: Path) -> None:
    damage(tmp_path)
    with pytest.raises(ManyInputsError) as error:
        verify(open_split("pst900", tmp_path, "test"), headers_only=True)
    found = " ".join(error.value.faults)
    assert len(error.value.faults) == 6
    assert all(name in found for name in ("p0", "p1", "p2", "p4", "p7", "p8"))


def test_a_sound_split_passes_and_reports_progress(tmp_path: Path) -> None:
    root = make_mfnet(tmp_path, {"train": ["00001D", "00001D_flip", "00002N"]})
    calls: list[tuple[int, int]] = []
    verify(open_split("mfnet", root, "train"), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]  # the mirrored copy shares its files


def test_shared_files_are_blamed_once(tmp_path: Path) -> None:
    root = make_mfnet(tmp_path, {"train": ["00001D", "00001D_flip", "00002N"]})
    (root / "images" / "00001D.png").unlink()
    with pytest.raises(ManyInputsError) as error:
        verify(open_split("mfnet", root, "train"))
    assert len(error.value.faults) == 1


def test_faults_of_names(tmp_path: Path) -> None:
    root = make_mfnet(tmp_path, {"train": ["00001D", "00002N"]})
    (root / "train.txt").write_text("00001D\n00002N\n00001D\n")
    with pytest.raises(ManyInputsError, match="00001D: listed twice in split 'train'"):
        verify(open_split("mfnet", root, "train"))
    (root / "train.txt").write_text("00001D\n")
    (root / "labels").rename(root / "other")
    verify(open_split("mfnet", root, "train"), require_labels=False)
    with pytest.raises(ManyInputsError, match="has no folder of labels"):
        verify(open_split("mfnet", root, "train"))


def test_empty_split(tmp_path: Path) -> None:
    (tmp_path / "test" / "rgb").mkdir(parents=True)
    with pytest.raises(ManyInputsError, match="split 'test' has no pairs"):
        verify(open_split("pst900", tmp_path, "test"))


@pytest.mark.parametrize("headers_only", [False, True])
def test_fourth_channel_that_is_no_thermal(tmp_path: Path, headers_only: bool) -> None:
    root = make_mfnet(tmp_path, {"train": ["00001D", "00002N"]})
    opaque = np.full((24, 32), 255, dtype=np.uint8)
    save(root / "images" / "00001D.png", np.dstack([random_rgb(0), opaque]))
    save(root / "images" / "00002N.png", random_rgb(0))
    with pytest.raises(ManyInputsError) as error:
        verify(open_split("mfnet", root, "train"), headers_only=headers_only)
    assert ("opacity and not thermal" in str(error.value)) is not headers_only
    assert "00002N.png: not a four-channel" in str(error.value)


# --- check ----------------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> int:
    parser = jsonargparse.ArgumentParser()
    Check.add_arguments(parser)
    return Check.run(parser.parse_args([str(argument) for argument in arguments]))


def test_check_of_a_sound_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_mfnet(
        tmp_path / "set", {"train": ["00001D", "00002N"], "val": ["00003D"], "test": ["00004N"]}
    )
    assert run("--dataset", "mfnet", "--root", root, "--json", tmp_path / "report.json") == 0
    out = capsys.readouterr().out
    assert "no problems" in out
    assert "color_cone" in out
    report = json.loads((tmp_path / "report.json").read_text())
    train = report["splits"]["train"]
    assert (train["pairs"], train["labelled"], train["day"], train["night"]) == (2, 2, 1, 1)
    assert train["sizes"] == {"24x32": 2}
    assert train["thermal"] == {"8-bit, fourth channel": 2}
    assert train["labels"] == {"8-bit index": 2}
    assert train["label_values"] == list(range(9))
    assert sum(train["class_pixels"].values()) == 2 * 24 * 32
    assert sum(train["class_share"].values()) == pytest.approx(1)
    assert report["splits"]["test_night"]["pairs"] == 1
    assert report["problems"] == report["warnings"] == []


def test_check_names_problems_and_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = damage(tmp_path)
    assert run("--dataset", "pst900", "--root", tmp_path) == 1
    out = capsys.readouterr().out
    assert "9 problems" in out
    for file, reason in expected.items():
        assert any(file in line and reason in line for line in out.splitlines())


def test_check_warns_of_leaks_and_files_on_no_list(tmp_path: Path) -> None:
    root = make_mfnet(tmp_path, {"train": ["00001D", "00002N"], "test": ["00002N_flip", "00003D"]})
    save(root / "images" / "00009D.png", np.dstack([random_rgb(0), random_thermal(0)]))
    warnings = check("mfnet", root).warnings
    assert any("train and test share 1 images, such as 00002N.png" in line for line in warnings)
    assert any("1 images belong to no pair of any split: 00009D.png" in line for line in warnings)
    assert check("mfnet", root, ["train"]).warnings == ()


def test_check_of_16_bit_thermal(tmp_path: Path) -> None:
    home = make_pairs(tmp_path / "test", ["a"])
    save(home / "thermal" / "a.png", random_thermal(0).astype(np.uint16) + 29000)
    split = check("pst900", tmp_path).splits[0]
    assert split.thermal_kinds == {"16-bit": 1}
    assert split.thermal_range == (29000 + int(random_thermal(0).min()), 29000 + int(random_thermal(0).max()))


def test_wrong_usage_is_an_input_error(tmp_path: Path) -> None:
    for arguments in (("pst9000", tmp_path), ("pst900", tmp_path / "gone"), ("mfnet", tmp_path)):
        with pytest.raises(InputError):
            run("--dataset", arguments[0], "--root", arguments[1])
    make_pairs(tmp_path / "test", ["a"])
    with pytest.raises(InputError, match="no split 'night'"):
        run("--dataset", "pst900", "--root", tmp_path, "--split", "night")


def test_unlabelled_set_is_a_warning(tmp_path: Path) -> None:
    home = make_pairs(tmp_path / "test", ["a"])
    (home / "labels").rename(tmp_path / "other")
    report = check("pst900", tmp_path)
    assert report.problems == ()
    assert any("none of its 1 pairs is labelled" in line for line in report.warnings)


def test_real_sets_are_sound(samples: Path) -> None:
    for dataset in ("fmb", "pst900"):
        report = check(dataset, samples / dataset)
        assert report.problems == ()
    verify(open_split("mfnet", samples / "mfnet", "val"))


def test_exit_status_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_mfnet(tmp_path / "set", {"train": ["00001D", "00002N"]})
    command = ["data", "check", "--dataset", "mfnet", "--root"]
    assert main([*command, str(root)]) == 0
    (root / "labels" / "00001D.png").unlink()
    assert main([*command, str(root)]) == 1
    assert f"problem: {root / 'labels' / '00001D.png'}: no such file" in capsys.readouterr().out
    assert main([*command, str(tmp_path / "gone")]) == 2
    assert "efnet: error:" in capsys.readouterr().err
