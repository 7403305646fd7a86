"""Completion scripts, asked as a shell asks them."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from efnet.cli.completion import GROUPS, whole_parser
from efnet.cli.main import COMMANDS, main


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert main(["completion", "bash"]) == 0
    path = tmp_path_factory.mktemp("completion") / "efnet"
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tr"], ["train"]),
        (["data", "c"], ["check", "convert"]),
        (["data", "check", "--ro"], ["--root"]),
        (["predict", "--overw"], ["--overwrite"]),
        (["completion", ""], ["bash", "zsh"]),
    ],
)
def test_bash_completes(script: Path, words: list[str], expected: list[str]) -> None:
    line = " ".join(f"'{word}'" for word in ["efnet", *words])
    asked = (
        f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _shtab_efnet; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected


def test_every_command_is_there() -> None:
    text = whole_parser().format_help()
    assert set(GROUPS) == {name.split()[0] for name in COMMANDS if " " in name}
    for name in COMMANDS:
        assert name.split()[0] in text


def test_zsh_and_wrong_shells(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    assert "#compdef efnet" in capsys.readouterr().out
    assert main(["completion", "tcsh"]) == 2
    assert "bash" in capsys.readouterr().err
