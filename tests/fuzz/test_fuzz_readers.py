"""Damaged files of every kind: an `InputError`, or a valid result, and nothing else.

`EFNET_FUZZ_EXAMPLES=5000 pytest tests/fuzz` tries more than the few of every day; `fuzz_coverage.py` breeds
files by what they reach.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from fuzz_targets import READERS, Reader, read_damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from efnet.core.errors import InputError
from efnet.core.safe_parse import parse_json, parse_yaml

EXAMPLES = int(os.environ.get("EFNET_FUZZ_EXAMPLES", "60"))


@st.composite
def damage(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with bytes changed, taken out or put in, or other bytes in its place."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=300))
    spoilt = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(spoilt)))
        kind = draw(st.sampled_from(("change", "cut", "insert", "end")))
        if kind == "end":
            del spoilt[place:]
        elif kind == "insert":
            spoilt[place:place] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "cut":
            del spoilt[place : place + draw(st.integers(1, 8))]
        elif place < len(spoilt):
            spoilt[place] = draw(st.integers(0, 255))
    return bytes(spoilt)


# Pillow warns of truncated and corrupt metadata before it goes on, or fails.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("reader", READERS)
def test_damaged_files(reader: str, tmp_path: Path) -> None:
    content, name, read = READERS[reader]
    read_whole(tmp_path / name, content, read)

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(damage(content))
    def try_one(spoilt: bytes) -> None:
        read_damaged(tmp_path / name, spoilt, read)

    try_one()


def read_whole(path: Path, content: bytes, read: Reader) -> None:
    """What is not damaged can be read; of labels not every value is a class."""
    path.write_bytes(content)
    try:
        read(path)
    except InputError as error:
        assert "outside the" in str(error) or "lossy" in str(error)  # noqa: PT017


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.text(alphabet="[]{}:,&*!|>-?'\"# \n\tab019.~<", max_size=60))
def test_texts(text: str) -> None:
    for parse in (parse_json, parse_yaml):
        with contextlib.suppress(ValueError):
            parse(text)
