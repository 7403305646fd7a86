"""Packed shards: the same pixels, the same order and the same training as from the folder."""

from __future__ import annotations

import itertools
import json
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import make_mfnet, make_pairs, random_label, random_rgb, random_thermal, save

from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.data.dataset import PairDataset
from efnet.data.layouts import open_split, splits_of
from efnet.data.pack import pack
from efnet.data.sample import read_sample
from efnet.training.run_folder import fingerprint

YAML = "names: [a, b, c, d, e]\nthermal_scale: [10, 250]\nconditions: {day: '*1', night: '*2'}\n"


def make(kind: str, root: Path) -> tuple[Path, str]:
    """A small data set, and a split of it."""
    if kind == "mfnet":
        names = ["00001D", "00002N", "00001D_flip", "00003D"]
        return make_mfnet(root, {"train": names, "val": ["00009N"], "test": ["00004D"]}), "train"
    if kind == "pst900":
        return make_pairs(root / "train", [f"frame_{n}" for n in range(9)]).parent, "trainval"
    make_pairs(root, ["scene 1", "szene.ä.2", "x%2Fy", "n" * 120])
    (root / "dataset.yaml").write_text(YAML)
    return root, "trainval"


@pytest.fixture(params=["mfnet", "pst900", "folders"])
def packed(request, tmp_path):
    """A data set and its shards, of two pairs or so each."""
    root, split = make(request.param, tmp_path / "source")
    pairset = open_split(request.param, root, split)
    pack(pairset, tmp_path / "shards", shard_size=6000)
    assert len(list((tmp_path / "shards").glob("*.tar"))) > 1
    return pairset, open_split(request.param, tmp_path / "shards", split)


def test_the_split_is_the_same(packed):
    source, shards = packed
    assert len(shards) == len(source)
    for ours, theirs in zip(shards.pairs, source.pairs, strict=True):
        assert (ours.name, ours.flip, ours.condition) == (theirs.name, theirs.flip, theirs.condition)
        assert (ours.thermal is None) == (theirs.thermal is None)
    empty = {"pairs": (), "root": Path()}
    assert replace(shards, **empty) == replace(source, **empty)
    assert fingerprint(train=shards) == fingerprint(train=source)


def test_pixels_are_the_same(packed):
    source, shards = packed
    for ours, theirs in zip(shards.pairs, source.pairs, strict=True):
        one, other = (read_sample(pair, source.classes, source.thermal_scale) for pair in (ours, theirs))
        for part in ("rgb", "thermal", "label"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


def test_workers_read_shards(packed):
    """Paths travel to other processes as they are, and access is random."""
    _, shards = packed
    again = pickle.loads(pickle.dumps(PairDataset(shards, (24, 32))))
    for place in reversed(range(len(shards))):
        assert torch.equal(again[place]["rgb"], PairDataset(shards, (24, 32))[place]["rgb"])


def test_tars_are_plain_webdataset(packed):
    """One name before the first dot, its files next to each other, no folder, no time, no owner."""
    _, shards = packed
    for path in sorted(shards.root.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        keys = [member.name.split(".")[0] for member in members]
        assert len(set(keys)) == len(list(itertools.groupby(keys)))
        for member in members:
            assert member.isreg()
            assert (member.mtime, member.uid, member.mode) == (0, 0, 0o644)
            assert member.name.split(".", 1)[1] in ("rgbt.png", "rgb.png", "thermal.png", "label.png")


def test_packing_again_gives_the_same_bytes(packed, tmp_path):
    source, shards = packed
    for pairset, name in ((source, "again"), (shards, "from shards")):
        pack(pairset, tmp_path / name, shard_size=6000)
        files = sorted(path.name for path in shards.root.iterdir())
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == files
        for file in files:
            assert (tmp_path / name / file).read_bytes() == (shards.root / file).read_bytes()


def test_mirrored_copies_are_packed_once(tmp_path):
    root, _ = make("mfnet", tmp_path / "source")
    packed = pack(open_split("mfnet", root, "train"), tmp_path / "shards")
    assert (packed.tars, packed.files) == (1, 6)


class TestCommand:
    def test_packs_splits_into_one_folder(self, tmp_path, capsys):
        root, _ = make("mfnet", tmp_path / "source")
        words = ["data", "pack", "--dataset", "mfnet", "--root", str(root), "--out", str(tmp_path / "shards")]
        assert main([*words, "--split", "test,train"]) == 0
        assert capsys.readouterr().out.startswith("test: 1 pairs, 2 files in 1 tars")
        assert main([*words, "--split", "val"]) == 0
        assert splits_of("mfnet", tmp_path / "shards") == ("train", "val", "test")
        assert main([*words, "--split", "val"]) == 2
        assert "val-000000.tar: is there already" in capsys.readouterr().err
        assert main([*words, "--split", "val", "--overwrite"]) == 0
        check = ["data", "check", "--dataset", "mfnet", "--root"]
        capsys.readouterr()
        assert main([*check, str(tmp_path / "shards"), "--json", str(tmp_path / "ours.json")]) == 0
        assert main([*check, str(root), "--json", str(tmp_path / "theirs.json")]) == 0
        ours, theirs = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("ours", "theirs"))
        assert ours["splits"]["train"] == theirs["splits"]["train"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--shard-size", "0"], "--shard-size 0: give 1 or more"),
            (["--split", ","], "--split is empty"),
            (["--split", "tram"], "has no split 'tram'"),
            (["--dataset", "pst900"], "not the pst900 layout"),
        ],
    )
    def test_bad_options(self, tmp_path, capsys, options, message):
        root, _ = make("mfnet", tmp_path / "source")
        words = ["data", "pack", "--dataset", "mfnet", "--root", str(root), "--split", "train"]
        assert main([*words, "--out", str(tmp_path / "shards"), *options]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "shards").exists()

    def test_trains_as_from_the_folder(self, tmp_path):
        """The same weights to the last bit, the same fingerprint; then evaluate and predict."""
        names = {"train": ["00001D", "00002N", "00001D_flip"], "val": ["00003D"], "test": ["00003D"]}
        for index, name in enumerate(("00001D", "00002N", "00003D")):
            rgbt = np.dstack([random_rgb(index, 64, 96), random_thermal(index, 64, 96)])
            save(tmp_path / "source" / "images" / f"{name}.png", rgbt)
            save(tmp_path / "source" / "labels" / f"{name}.png", random_label(index, 9, 64, 96))
        for split, listed in names.items():
            (tmp_path / "source" / f"{split}.txt").write_text("\n".join(listed))
        data = ["--dataset", "mfnet", "--root"]
        pack_words = ["--split", "train,val,test", "--out", str(tmp_path / "shards")]
        assert main(["data", "pack", *data, str(tmp_path / "source"), *pack_words]) == 0
        options = "--model efnet_tiny --size 64x96 --batch-size 2 --epochs 1 --workers 1 --device cpu"
        weights, reports = [], []
        for root in ("source", "shards"):
            run, report = tmp_path / f"run-{root}", tmp_path / f"{root}.json"
            train = ["train", *data, str(tmp_path / root), "--out", str(run), *options.split()]
            assert main([*train, "--validation.samples", "0", "--schedule.warmup_epochs", "0"]) == 0
            weights.append(next(run.rglob("model.safetensors")).read_bytes())
            evaluate = ["evaluate", "--checkpoint", str(run), *data, str(tmp_path / root)]
            assert main([*evaluate, "--json", str(report), "--device", "cpu"]) == 0
            reports.append(json.loads(report.read_text())["confusion"])
        assert weights[0] == weights[1]
        assert reports[0] == reports[1]
        facts = [
            json.loads((tmp_path / f"run-{root}" / "run.json").read_text()) for root in ("source", "shards")
        ]
        assert facts[0]["data"] == facts[1]["data"]


class TestRoots:
    def test_some_tars_hold_some_pairs(self, tmp_path):
        root, _ = make("pst900", tmp_path / "source")
        pack(open_split("pst900", root, "trainval"), tmp_path / "shards", shard_size=6000)
        tars = sorted((tmp_path / "shards").glob("*.tar"))
        everything = open_split("pst900", tmp_path / "shards", "trainval").pairs
        some = open_split("pst900", f"{tars[0]},{tars[2]}", "trainval").pairs
        assert some == tuple(pair for pair in everything if pair.rgb.parent in (tars[0], tars[2]))
        assert 0 < len(some) < len(everything)

    def test_what_is_not_there(self, tmp_path):
        root, _ = make("mfnet", tmp_path / "source")
        shards = tmp_path / "shards"
        pack(open_split("mfnet", root, "train"), shards)
        tar, index = shards / "train-000000.tar", shards / "train.json"
        with pytest.raises(InputError, match="has no split 'val'; it has train"):
            open_split("mfnet", shards, "val")
        with pytest.raises(InputError, match="holds mfnet; give `dataset` mfnet"):
            open_split("pst900", shards, "train")
        with pytest.raises(InputError, match=r"b\.tar: no such tar"):
            open_split("mfnet", f"{tar},{shards}/b.tar", "train")
        index.rename(shards / "train.txt")
        with pytest.raises(InputError, match="no index beside them; write both with efnet data pack"):
            open_split("mfnet", shards, "train")
        (shards / "train.txt").rename(index)
        (shards / "val-000000.tar").write_bytes(tar.read_bytes())
        tar.unlink()
        with pytest.raises(InputError, match="no index beside them"):
            open_split("mfnet", shards, "train")

    def test_a_tar_of_several_is_missing(self, tmp_path):
        root, _ = make("pst900", tmp_path / "source")
        pack(open_split("pst900", root, "trainval"), tmp_path / "shards", shard_size=6000)
        (tmp_path / "shards" / "trainval-000001.tar").unlink()
        with pytest.raises(InputError, match=r"trainval-000001\.tar: is missing"):
            open_split("pst900", tmp_path / "shards", "trainval")

    def test_another_yaml(self, tmp_path):
        root, split = make("folders", tmp_path / "source")
        pack(open_split("folders", root, split), tmp_path / "shards")
        assert open_split(str(root / "dataset.yaml"), tmp_path / "shards", split).pairs
        (root / "dataset.yaml").write_text("names: [v, w, x, y, z]\n")
        with pytest.raises(InputError, match=r"names other classes than .* was packed with"):
            open_split(str(root / "dataset.yaml"), tmp_path / "shards", split)
