"""Bad input of every command: status 2, one message with the remedy, and nothing left behind."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import table_checkpoints
import table_data
import table_predict
import table_tools
import table_train
from fault_case import Case
from fault_world import World, snapshot

from efnet.cli.main import COMMANDS, main

CASES = [
    case
    for table in (table_predict, table_checkpoints, table_data, table_train, table_tools)
    for case in table.CASES
]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of a case, and of its temporary files; it is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # made as soon as it is imported
        before = signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(120)
        yield Path(folder)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        monkeypatch.undo()


def _too_long(*_: object) -> None:
    raise AssertionError("takes longer than two minutes")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(case: Case, world: World, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    world.copy(home, case.extras)
    case.arrange(home)
    before = snapshot(home)
    capfd.readouterr()
    status = main([word.replace("\\ ", " ") for word in case.line.split()])
    said = capfd.readouterr()
    assert status == case.status, said
    message = said.err if status == 2 else said.out
    for part in case.says:
        assert part in " ".join(message.split()), message
    assert "Traceback" not in said.out + said.err
    assert said.err.count("efnet: error: ") == (status == 2)
    assert "\x1b" not in message
    after = snapshot(home)
    changed = [name for name in before if after.get(name) != before[name]]
    assert not [name for name in changed if not any(fnmatch(name, allowed) for allowed in case.changes)]
    strays = after.keys() - before.keys()
    assert not [name for name in strays if not any(fnmatch(name, allowed) for allowed in case.leaves)]


def test_there_are_150_cases() -> None:
    assert len({(case.name, case.line, case.says) for case in CASES}) == len(CASES) >= 150


def test_every_command_has_its_cases() -> None:
    tried = {name for name in COMMANDS for case in CASES if f"{case.line} ".startswith(f"{name} ")}
    assert tried == set(COMMANDS)
