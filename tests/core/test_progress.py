"""The progress bar on a terminal and elsewhere, and the count of steps."""

from __future__ import annotations

import pytest

from efnet.core.progress import count_steps, progress_bar


def test_steps_are_counted() -> None:
    seen: list[tuple[int, int]] = []
    step = count_steps(lambda *counts: seen.append(counts), 3)
    for _ in range(3):
        step()
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_files_get_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("reading") as bar:
        bar(1, 2)
        bar.print("a [line]")
    captured = capsys.readouterr()
    assert captured.err == "a [line]\n"
    assert captured.out == ""


def test_a_terminal_gets_a_bar_that_goes_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("reading") as bar:
        bar(1, 2)
    text = capsys.readouterr().err
    assert "reading" in text
    assert "1/2" in text
    assert text.endswith("\x1b[2K")  # the line is erased


def test_a_rate_stays_in_files(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("frames", rate=True) as bar:
        bar(3, None)
        bar(4, 3)  # more than was known before
    assert "4/4" in capsys.readouterr().err
    with progress_bar("frames", rate=True, disable=True) as bar:
        bar(3, 3)
    assert capsys.readouterr().err == ""
