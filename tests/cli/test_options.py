"""Sizes, outputs that can be written, and the option parser's messages."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from efnet.cli.main import main
from efnet.cli.options import check_file_writable, check_folder_writable, parse_size
from efnet.core.errors import InputError, plain_fault
from efnet.data.layouts import layout_names


def test_sizes() -> None:
    assert parse_size("480x640") == (480, 640)
    assert parse_size(" 1X2 ") == (1, 2)
    for wrong in ("", "480", "480x", "x640", "480x640x3", "-1x5", "480 640", "0x5", "4.5x6", "\u0663x4"):
        with pytest.raises(InputError, match="give height x width, such as 480x640"):
            parse_size(wrong)
    assert parse_size("32x32", minimum=32) == (32, 32)
    with pytest.raises(InputError, match="--size 31x32: give height x width, both at least 32, such as"):
        parse_size("31x32", minimum=32)


@pytest.mark.parametrize("check", [check_file_writable, check_folder_writable])
def test_outputs_that_can_be_written(tmp_path: Path, check, monkeypatch: pytest.MonkeyPatch) -> None:
    check("--json", None)
    check("--json", tmp_path / "new.json")
    check("--json", tmp_path / "a" / "b" / "new.json")
    monkeypatch.chdir(tmp_path)
    check("--json", "new.json")
    check("--json", "a/new.json")
    assert list(tmp_path.iterdir()) == [], "a check leaves nothing behind"


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "astray").symlink_to(tmp_path / "nowhere")
    check_file_writable("--json", tmp_path / "file")
    with pytest.raises(InputError, match=r"--json .*: is a folder; give the name of a file"):
        check_file_writable("--json", tmp_path)
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper", tmp_path / "astray"):
        with pytest.raises(InputError, match=r"^--json .* is not a folder; choose another place"):
            check_file_writable("--json", folder / "report.json")
        with pytest.raises(InputError, match=r"^--out .* is not a folder; choose another place"):
            check_folder_writable("--out", folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"--json .* cannot be written; choose another place"):
        check_file_writable("--json", tmp_path / "a" / "report.json")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "the following options are required: --out"),
        (["evaluate"], "the following options are required: --dataset, --root"),
        (["models", "--num-classes", "many"], "--num-classes: expected a whole number, got many"),
        (["models", "--num-classes"], "argument --num-classes: expected one argument"),
        (["models", "--sise", "1x1"], "there is no option --sise 1x1"),
        (["train", "--out", "x", "--fusion", "sum"], "--network.fusion: expected one of 'mif', 'add', 'cat'"),
        (
            ["train", "--out", "x", "--tracker", "aim"],
            "--track.trackers: expected one of 'tensorboard', 'csv'",
        ),
        (
            ["train", "--out", "x", "--loss.class_weights", "x"],
            "--loss.class_weights: expected one of 'enet', ",
        ),
        (["train", "--out", "x", "--size", "wide"], "--data.size: expected a list, got wide"),
        (["data", "convert", "--to", "x", "--root", "r", "--out", "o"], "--to: expected one of 'folders'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_parser_s_errors_have_the_shape_of_all_others(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    command = " ".join(words[:2]) if words[0] == "data" else words[0]
    assert captured.err.startswith(f"efnet: error: {message}")
    assert captured.err.endswith(f" (efnet {command} --help)\n")
    assert captured.err.count("\n") == 1
    assert "usage" not in captured.err


def test_unknown_messages_pass_unchanged() -> None:
    assert plain_fault("Something\n  new") == "Something new"


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_negative_counts_of_scenes(split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scenes"
    assert main(["data", "synthesize", "--out", str(out), f"--{split}", "-1"]) == 2
    assert f"--{split} -1: give 0 or more" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "score", "temperature", "compare", "data check", "data issues"]
)
def test_the_help_names_every_layout(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit, match="0"):
        main([*command.split(), "--help"])
    text = capsys.readouterr().out
    for name in layout_names():
        assert re.search(rf"dataset DATASET[^\n]*\n?[^\n]*\b{name}\b", text), name
