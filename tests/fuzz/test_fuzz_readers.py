"""Damaged files of every kind: an `InputError`, or a valid result, and nothing else.

`EFNET_FUZZ_EXAMPLES=5000 pytest tests/fuzz` tries more than the few of every day.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from efnet.data.homography import Homography
from efnet.data.images import read_label, read_rgb, read_thermal
from efnet.data.layouts.description import Description
from efnet.data.layouts.listing import read_list
from efnet.data.layouts.mfnet import CLASSES
from efnet.errors import InputError
from efnet.models.base import read_config
from efnet.models.weights import read_state_dict
from efnet.prediction.records import read_journal
from efnet.texts import parse_json, parse_yaml

EXAMPLES = int(os.environ.get("EFNET_FUZZ_EXAMPLES", "60"))


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(12, 16)).save(buffer, kind)
    return buffer.getvalue()


def torch_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"a": torch.ones(3)}}, buffer)
    return buffer.getvalue()


def homography() -> bytes:
    return json.dumps(Homography.stretched((48, 64), (48, 64)).to_dict()).encode()


YAML = b"names: [background, person]\npalette: [[0, 0, 0], [1, 2, 3]]\nsplits: {train: a.txt}\n"
IMAGES = {f"{kind.lower()} as {name}": (picture(kind), f"x.{kind.lower()}", read)
          for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM")
          for name, read in (("colour", read_rgb), ("thermal", read_thermal),
                             ("label", lambda path: read_label(path, CLASSES)))}  # fmt: skip
READERS: dict[str, tuple[bytes, str, Callable[[Path], object]]] = {
    **IMAGES,
    "torch weights": (torch_file(), "x.pth", read_state_dict),
    "safetensors": (save({"a": torch.ones(3)}), "x.safetensors", read_state_dict),
    "config.json": (b'{"architecture": "efnet"}', "config.json", lambda path: read_config(path.parent)),
    "homography": (homography(), "x.json", Homography.load),
    "dataset.yaml": (YAML, "dataset.yaml", Description.read),
    "split list": (b"00001D\n00002N.png\n", "x.txt", read_list),
    "journal": (b'{"settings": {}}\n{"name": "a", "files": [], "stamps": []}\n', "x.jsonl", read_journal),
}


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


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files(reader: str, tmp_path: Path) -> None:
    content, name, read = READERS[reader]
    read_whole(tmp_path / name, content, read)

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(damage(content))
    def try_one(spoilt: bytes) -> None:
        (tmp_path / name).write_bytes(spoilt)
        try:
            read(tmp_path / name)
        except InputError as error:
            assert str(error).startswith(str(tmp_path)), "the file is named"  # noqa: PT017

    try_one()


def read_whole(path: Path, content: bytes, read: Callable[[Path], object]) -> None:
    """What is not damaged can be read; of labels not every value is a class."""
    path.write_bytes(content)
    try:
        read(path)
    except InputError as error:
        assert "outside the" in str(error)  # noqa: PT017


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.text(alphabet="[]{}:,&*!|>-?'\"# \n\tab019.~<", max_size=60))
def test_texts(text: str) -> None:
    for parse in (parse_json, parse_yaml):
        with contextlib.suppress(ValueError):
            parse(text)
