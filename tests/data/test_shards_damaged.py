"""Shards and indices that are cut off, altered or made up: an error with the file, never other pixels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_helpers import make_mfnet, make_pairs

from efnet.core.errors import InputError, ManyInputsError
from efnet.data.layouts import open_split
from efnet.data.pack import pack
from efnet.data.sample import read_sample

NAMES = ["00001D", "00002N", "00001D_flip", "00003D"]


def members(held: dict) -> dict:
    return held["tars"]["train-000000.tar"]["members"]


CHANGES = {
    "a tar elsewhere": lambda held: held["tars"].update({"../train-000000.tar": {"size": 0, "members": {}}}),
    "an absolute tar": lambda held: held["tars"].update({"/x-000000.tar": {"size": 0, "members": {}}}),
    "another format": lambda held: held.update(format="efnet-shards-9"),
    "no format": lambda held: held.pop("format"),
    "beyond the end": lambda held: members(held).update(x=[0, 10**15, "0" * 64]),
    "negative": lambda held: members(held).update(x=[-5, 5, "0" * 64]),
    "no number": lambda held: members(held).update(x=["0", 5, "0" * 64]),
    "true": lambda held: members(held).update(x=[True, 5, "0" * 64]),
    "no checksum": lambda held: members(held).update(x=[0, 5, None]),
    "not three": lambda held: members(held).update(x=[0, 5]),
    "a pair elsewhere": lambda held: held["pairs"][0].update(files=["../../secret", None, None]),
    "a pair of another tar": lambda held: held["pairs"][0].update(files=["y-000000.tar/x", None, None]),
    "a pair without colour": lambda held: held["pairs"][0].update(files=[None, None, None]),
    "flip": lambda held: held["pairs"][0].update(flip="yes"),
    "condition": lambda held: held["pairs"][0].update(condition="dusk"),
    "pairs": lambda held: held.update(pairs=7),
    "classes": lambda held: held["classes"].update(names=["one"]),
    "thermal scale": lambda held: held.update(thermal_scale=[1]),
}


@pytest.fixture
def shards(tmp_path) -> Path:
    root = make_mfnet(tmp_path / "source", {"train": NAMES})
    pack(open_split("mfnet", root, "train"), tmp_path / "shards")
    return tmp_path / "shards"


def test_cut_off(shards):
    tar = shards / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-700])
    with pytest.raises(InputError, match=r"train-000000\.tar: has \d+ bytes, but \d+ were packed; copy it"):
        open_split("mfnet", shards, "train")


def test_one_bit(shards):
    pair = open_split("mfnet", shards, "train").pairs[0]
    tar = shards / "train-000000.tar"
    content = bytearray(tar.read_bytes())
    content[900] ^= 1
    tar.write_bytes(content)
    with pytest.raises(InputError, match=r"00001D\.rgbt\.png: is not what was packed \(its SHA-256"):
        read_sample(pair, open_split("mfnet", shards, "train").classes)


def test_replaced_while_it_is_used(shards):
    pairset = open_split("mfnet", shards, "train")
    read_sample(pairset.pairs[0], pairset.classes)
    (shards / "train-000000.tar").write_bytes(b"short")
    with pytest.raises(InputError, match="were packed; copy it again"):
        read_sample(pairset.pairs[0], pairset.classes)
    (shards / "train-000000.tar").unlink()
    with pytest.raises(InputError, match="no such file"):
        read_sample(pairset.pairs[0], pairset.classes)


@pytest.mark.parametrize("change", CHANGES)
def test_an_index_that_makes_no_sense(shards, change):
    held = json.loads((shards / "train.json").read_text())
    CHANGES[change](held)
    (shards / "train.json").write_text(json.dumps(held))
    with pytest.raises(InputError, match=r"train\.json: is not an index of packed shards .*efnet data pack"):
        open_split("mfnet", shards, "train")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 100_000, "\x00", '{"format": 1e999}'])
def test_an_index_that_is_none(shards, text):
    (shards / "train.json").write_text(text)
    with pytest.raises(InputError, match=r"train\.json: is not an index of packed shards"):
        open_split("mfnet", shards, "train")


def test_a_source_with_faults_is_not_packed(tmp_path):
    root = make_mfnet(tmp_path / "source", {"train": NAMES})
    (root / "images" / "00002N.png").write_bytes(b"not an image")
    (root / "labels" / "00003D.png").unlink()
    with pytest.raises(ManyInputsError, match="2 problems"):
        pack(open_split("mfnet", root, "train"), tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_a_failure_leaves_no_tar(tmp_path, monkeypatch):
    root = make_pairs(tmp_path / "source" / "train", [f"frame_{n}" for n in range(9)]).parent
    calls: list[int] = []

    def progress(done: int, total: int) -> None:
        calls.append(done)
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(open_split("pst900", root, "trainval"), tmp_path / "shards", shard_size=1, progress=progress)
    assert len(calls) == 9
    assert list((tmp_path / "shards").iterdir()) == []
