"""The data set as PyTorch sees it: shapes, order of randomness, workers, cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_helpers import make_mfnet, make_pairs, random_rgb, random_thermal, save
from torch.utils.data import DataLoader

from efnet.core.errors import InputError
from efnet.data.augment import AugmentConfig
from efnet.data.dataset import PairDataset, collate
from efnet.data.layouts import open_split
from efnet.data.pairs import PairSet

NAMES = [f"{number:05d}{'DN'[number % 2]}" for number in range(7)]


@pytest.fixture(scope="module")
def pairset(tmp_path_factory: pytest.TempPathFactory) -> PairSet:
    root = make_mfnet(tmp_path_factory.mktemp("mfnet"), {"train": [*NAMES, "00001N_flip"]})
    return open_split("mfnet", root, "train")


def batches(dataset: PairDataset, epochs: tuple[int, ...], **options: Any) -> list[dict[str, Any]]:
    loader = DataLoader(dataset, batch_size=3, collate_fn=collate, **options)
    found = []
    for epoch in epochs:
        dataset.set_epoch(epoch)
        found += list(loader)
    return found


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a
    )


def test_evaluation_item_is_the_file(pairset: PairSet) -> None:
    item = PairDataset(pairset)[2]
    assert item["rgb"].dtype == item["thermal"].dtype == torch.float32
    assert item["label"].dtype == torch.int64
    assert (item["rgb"].shape, item["thermal"].shape, item["label"].shape) == (
        (3, 24, 32),
        (1, 24, 32),
        (24, 32),
    )
    assert np.array_equal((item["rgb"] * 255).round().numpy().transpose(1, 2, 0), random_rgb(2))
    assert np.array_equal((item["thermal"][0] * 255).round().numpy(), random_thermal(2))
    assert item["index"] == 2


def test_evaluation_resizes_images_and_not_labels(pairset: PairSet) -> None:
    item = PairDataset(pairset, size=(12, 20))[0]
    assert (item["rgb"].shape, item["thermal"].shape, item["label"].shape) == (
        (3, 12, 20),
        (1, 12, 20),
        (24, 32),
    )


def test_training_items_depend_on_seed_epoch_and_index_alone(pairset: PairSet) -> None:
    def make(seed: int = 0, **options: Any) -> PairDataset:
        return PairDataset(pairset, (16, 24), AugmentConfig(), seed=seed, **options)

    first = batches(make(), (0, 1))
    assert first[0]["rgb"].shape == (3, 3, 16, 24)
    assert same(first, batches(make(), (0, 1)))
    assert not same(first[:3], first[3:])  # epochs differ
    assert not same(first, batches(make(seed=1), (0, 1)))
    assert same(first[3:], batches(make(), (1,)))  # resumed at epoch 1
    assert same(first, batches(make(cache=True), (0, 1)))


def test_workers_do_not_change_the_batches(pairset: PairSet) -> None:
    dataset = PairDataset(pairset, (16, 24), AugmentConfig())
    alone = batches(dataset, (0, 1))
    assert same(alone, batches(dataset, (0, 1), num_workers=2, persistent_workers=True))


@pytest.mark.slow
def test_workers_started_afresh_see_the_epoch(pairset: PairSet) -> None:
    dataset = PairDataset(pairset, (16, 24), AugmentConfig())
    alone = batches(dataset, (5,))
    assert same(alone, batches(dataset, (5,), num_workers=1, multiprocessing_context="spawn"))


@pytest.mark.parametrize("raw", [random_thermal(0), random_thermal(0).astype(np.uint16) * 3 + 28000])
def test_cache_is_lossless(tmp_path: Path, raw: np.ndarray) -> None:
    make_pairs(tmp_path / "test", ["a"])
    save(tmp_path / "test" / "thermal" / "a.png", raw)
    pairset = open_split("pst900", tmp_path, "test")
    dataset = PairDataset(pairset, cache=True)
    dataset.preload()
    for path in (tmp_path / "test").rglob("*.png"):
        path.unlink()  # from now on memory alone
    plain = dataset[0]
    again = dataset[0]
    assert torch.equal(plain["thermal"], again["thermal"])
    make_pairs(tmp_path / "test", ["a"])
    save(tmp_path / "test" / "thermal" / "a.png", raw)
    fresh = PairDataset(pairset)[0]
    for key in ("rgb", "thermal", "label"):
        assert torch.equal(plain[key], fresh[key])


def test_augmenting_does_not_write_into_the_cache(pairset: PairSet) -> None:
    dataset = PairDataset(pairset, (24, 32), AugmentConfig(scale=(1, 1), flip=0), cache=True)
    dataset.set_epoch(1)
    first = dataset[0]
    dataset.set_epoch(2)
    dataset[0]
    dataset.set_epoch(1)
    assert torch.equal(first["rgb"], dataset[0]["rgb"])


def test_thermal_scale_comes_from_the_set_unless_given(tmp_path: Path) -> None:
    make_pairs(tmp_path, ["a", "b"])
    (tmp_path / "dataset.yaml").write_text("names: [a, b, c, d, e]\nthermal_scale: [0, 510]\n")
    pairset = open_split("folders", tmp_path, "trainval")
    raw = torch.from_numpy(random_thermal(0).astype(np.float32))
    assert torch.allclose(PairDataset(pairset)[0]["thermal"][0], raw / 510)
    assert torch.allclose(PairDataset(pairset, thermal_scale="auto")[0]["thermal"][0], raw / 255)


def test_collate_lists_labels_of_unequal_size() -> None:
    def item(size: tuple[int, int], label: tuple[int, int]) -> dict[str, Any]:
        return {
            "rgb": torch.zeros(3, *size),
            "thermal": torch.zeros(1, *size),
            "index": 0,
            "label": torch.zeros(label, dtype=torch.int64),
        }

    batch = collate([item((4, 4), (8, 8)), item((4, 4), (6, 8))])
    assert batch["rgb"].shape == (2, 3, 4, 4)
    assert [tuple(label.shape) for label in batch["label"]] == [(8, 8), (6, 8)]
    assert collate([item((4, 4), (8, 8))] * 2)["label"].shape == (2, 8, 8)
    with pytest.raises(InputError, match="4x4 and 6x4 in one batch"):
        collate([item((4, 4), (8, 8)), item((6, 4), (8, 8))])


def test_unlabelled_items_have_no_label(tmp_path: Path) -> None:
    home = make_pairs(tmp_path / "test", ["a"])
    (home / "labels").rename(tmp_path / "elsewhere")
    dataset = PairDataset(open_split("pst900", tmp_path, "test"))
    assert "label" not in collate([dataset[0]])


def test_augmentation_needs_a_size(pairset: PairSet) -> None:
    with pytest.raises(InputError, match="`size`"):
        PairDataset(pairset, augment=AugmentConfig())


def test_missing_file_is_an_input_error(tmp_path: Path) -> None:
    root = make_mfnet(tmp_path, {"train": NAMES})
    (root / "images" / f"{NAMES[0]}.png").unlink()
    with pytest.raises(InputError, match=rf"{NAMES[0]}\.png: no such file"):
        PairDataset(open_split("mfnet", root, "train"))[0]
