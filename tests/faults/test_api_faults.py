"""Bad calls of the Python interface: one of our own errors that names the thing, and nothing written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_world import World, snapshot
from table_api import CASES, Call

from efnet.core.errors import InputError
from efnet.data.images import ImageError


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of a case; it is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        monkeypatch.chdir(folder)
        yield Path(folder)
        monkeypatch.undo()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_call(case: Call, world: World, home: Path) -> None:
    world.copy(home, ())
    case.arrange(home)
    before = snapshot(home)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is looked at below
        case.call(home)
    kind = InputError if isinstance(caught.value, ImageError) else type(caught.value)
    assert kind is case.kind, repr(caught.value)
    for part in case.says:
        assert part in str(caught.value)
    assert snapshot(home) == before


def test_the_users_fault_is_a_value_error_too() -> None:
    assert issubclass(InputError, ValueError)


def test_there_are_25_calls() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 25
