"""A disk that fills up or cannot be written while a run is under way: said clearly, nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_killed import assert_same, finish, words

from efnet.training.run_folder import RunFolder
from efnet.training.state import read_state


def mount(folder: Path, options: str) -> bool:
    """Whether a memory file system with these options is there now."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that takes less than a run of two epochs needs."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.name != "posix" or not mount(folder, "size=60m"):
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def train(scenes: Path, out: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "efnet", *words(scenes, out)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_full_disk_ends_a_run_that_can_go_on(scenes: Path, disk: Path, whole: dict[str, object]) -> None:
    out = disk / "run"
    ended = train(scenes, out)
    assert ended.returncode == 2, ended.stderr
    assert "No space left on device" in ended.stderr
    assert "free some space" in ended.stderr
    assert str(out) in ended.stderr
    assert "Traceback" not in ended.stderr
    assert RunFolder(out).has_state()
    assert not [path for path in out.rglob(".*") if path.is_file()]
    subprocess.run(["mount", "-o", "remount,size=500m", str(disk)], check=True)
    assert_same(finish(scenes, out), whole)


@pytest.mark.slow
def test_disk_that_cannot_be_written_ends_a_run_that_can_go_on(
    scenes: Path, disk: Path, tmp_path: Path
) -> None:
    """As a network drive turns read-only: first before a run begins, then before it goes on."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    refused = train(scenes, disk / "run")
    assert refused.returncode == 2
    assert "Read-only file system" in refused.stderr
    assert "Traceback" not in refused.stderr
    subprocess.run(["mount", "-o", "remount,rw,size=500m", str(disk)], check=True)
    expected = finish(scenes, disk / "run")
    facts = RunFolder(disk / "run").facts
    facts.write_text(facts.read_text().replace('"result"', '"former"'))  # something is left to be done
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    again = train(scenes, disk / "run")
    assert again.returncode == 2, again.stderr
    assert "Read-only file system" in again.stderr
    assert "Traceback" not in again.stderr
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert_same(read_state(RunFolder(disk / "run").state), expected)
