"""Journals of any work: one writer, damage at any byte, and manifests of folders."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from efnet.core.errors import InputError
from efnet.core.journal import JournalWriter, changes, find_manifest, read_journal, read_manifest

HEAD = {"settings": {"seed": 0}}


def record(number: int) -> dict[str, Any]:
    return {"name": f"é{number}", "value": number}


def values(path: Path) -> dict[str, int]:
    head, found = read_journal(path, lambda line: line.get("value"))
    assert head == HEAD
    return found


def write(path: Path, numbers: range, resume: bool = False) -> None:
    with JournalWriter(path, HEAD, resume=resume) as journal:
        for number in numbers:
            journal.append(record(number))


def test_records_are_read_back_and_the_last_of_a_name_counts(tmp_path: Path) -> None:
    path = tmp_path / "made" / "journal.jsonl"
    write(path, range(3))
    with JournalWriter(path, HEAD, resume=True, durable=True) as journal:
        journal.append({"name": "é1", "value": 7})
    assert values(path) == {"é0": 0, "é1": 7, "é2": 2}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.integers(1, 90))
def test_a_journal_cut_at_any_byte_loses_its_last_lines_and_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal.jsonl"
    path.unlink(missing_ok=True)
    write(path, range(3))
    content = path.read_bytes()
    begun = len(json.dumps(HEAD)) + 1
    left = content[: max(begun, len(content) - cut)]
    path.write_bytes(left)
    write(path, range(3, 4), resume=True)
    whole = left[: left.rfind(b"\n") + 1]
    assert path.read_bytes() == whole + json.dumps(record(3), ensure_ascii=False).encode() + b"\n"
    assert set(values(path)) == {f"é{number}" for number in range(whole.count(b"\n") - 1)} | {"é3"}


def test_damaged_and_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    lines = [json.dumps(HEAD), "[1]", '{"name": "a"', '{"value": 1}', '{"name": "b"}', "\udcff", ""]
    lines += ['{"name": "c", "value": 4}']
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
    assert values(path) == {"c": 4}
    path.write_text("{")
    assert read_journal(path, lambda line: 1) == (None, {})
    with pytest.raises(InputError, match="cannot be read"):
        read_journal(tmp_path, lambda line: 1)


@pytest.mark.skipif(os.name != "posix", reason="needs file locks")
def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with JournalWriter(path, HEAD, resume=False) as journal:
        journal.append(record(0))
        with (
            pytest.raises(InputError, match=r"another efnet writes.*, or wait$"),
            JournalWriter(path, HEAD, resume=True, remedy=", or wait"),
        ):
            pass
    write(path, range(1, 2), resume=True)
    assert values(path) == {"é0": 0, "é1": 1}


def test_a_journal_that_came_in_between_is_kept_unless_it_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, range(2))
    with pytest.raises(InputError, match="another efnet writes"):
        write(path, range(1))
    assert len(values(path)) == 2
    with JournalWriter(path, HEAD, resume=False, overwrite=True):
        pass
    assert values(path) == {}


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        write(tmp_path / "file" / "journal.jsonl", range(1))


def test_manifests(tmp_path: Path) -> None:
    work = tmp_path / "work"
    assert find_manifest(work, "m.json") is None
    work.mkdir()
    assert find_manifest(work, "m.json") is None
    (work / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"holds other files; choose another folder$"):
        find_manifest(work, "m.json")
    with pytest.raises(InputError, match=r"or write among them with `overwrite`$"):
        find_manifest(work, "m.json", overwrite=False)
    assert find_manifest(work, "m.json", overwrite=True) is None
    (work / "m.json").write_text('{"seed": 1}')
    assert find_manifest(work, "m.json") == {"seed": 1}
    for damaged in ("", "[1]", "{", "[" * 100_000):
        (work / "m.json").write_text(damaged)
        assert find_manifest(work, "m.json") == {}
    with pytest.raises(InputError, match="is a file; choose another folder"):
        find_manifest(work / "thesis.tex", "m.json")
    assert read_manifest(work / "none.json") is None
    assert changes({"seed": 1, "old": 2}, {"seed": 2, "old": 2, "new": 3}) == [
        "seed was 1, now 2",
        "new was None, now 3",
    ]
