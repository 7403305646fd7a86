"""Losses of further outputs: edges by a loop, terms by plain sums, and what changes in training."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor, nn

import efnet
from efnet.cli.main import main
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.data.augment import AugmentConfig
from efnet.data.items import item_set
from efnet.models.base import SegmentationModel
from efnet.models.baselines import BASELINES
from efnet.models.baselines.base import HeadedBaseline
from efnet.models.config import BaselineConfig
from efnet.scenes import write_dataset
from efnet.training.authors import authors_recipe
from efnet.training.config import TrainConfig
from efnet.training.heads import HEADS, EdgeDataset, find_edges, split_marks
from efnet.training.loss import Objective, lovasz_softmax
from efnet.training.step import Learner, build_network

NO_CHANGE = AugmentConfig(flip=0.0, scale=(1.0, 1.0), brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)


def literal_edges(label: np.ndarray) -> np.ndarray:
    """A pixel of a class whose 5x5 neighbourhood holds another one; class 0 beyond the border."""
    edges = np.zeros(label.shape, dtype=bool)
    for row, column in np.ndindex(label.shape):
        seen = set()
        for y in range(row - 2, row + 3):
            for x in range(column - 2, column + 3):
                inside = 0 <= y < label.shape[0] and 0 <= x < label.shape[1]
                seen.add(int(label[y, x]) if inside else 0)
        edges[row, column] = label[row, column] != 255 and len(seen - {255}) > 1
    return edges


LABELS = arrays(
    np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 126, 255])
)


@given(label=LABELS)
def test_edges(label: np.ndarray) -> None:
    assert np.array_equal(find_edges(label), literal_edges(label))


def test_edges_have_the_share_that_the_authors_weights_imply(samples: Path) -> None:
    """1.4459 and 23.7228 are 1 / ln(1.02 + share): 2.3 % of MFNet's pixels are edges, 8 % foreground."""
    from efnet.data.layouts import open_split

    pairs = open_split("mfnet", samples / "mfnet", "train")
    edges = foreground = pixels = 0
    dataset = EdgeDataset(dataclasses.replace(pairs, pairs=pairs.pairs[::5]))
    for index in range(len(dataset)):
        label, found = split_marks(torch.from_numpy(dataset.read(index).label.astype(np.int64)))
        pixels += label.numel()
        edges += int(found.sum())
        foreground += int((label != 0).sum())
    for share, weight in ((edges / pixels, 23.7228), (foreground / pixels, 10.2388)):
        # The share of few pairs varies, so within a third.
        assert share == pytest.approx(math.exp(1 / weight) - 1.02, rel=0.35)


def pairs_of(label: np.ndarray) -> object:
    """One item of a data set whose label is given."""
    rgb, thermal = np.zeros((*label.shape, 3), np.uint8), np.zeros(label.shape, np.uint8)
    return item_set([(rgb, thermal, label)], ClassSet.generic(9), "train")


def test_edges_are_scaled_and_mirrored_with_the_label() -> None:
    label = np.zeros((32, 40), dtype=np.uint8)
    label[5:20, 7:18] = 3
    label[28:, 30:] = 255
    pairs = pairs_of(label)
    for config, size, expected in (
        (NO_CHANGE, (32, 40), (label, literal_edges(label))),
        (dataclasses.replace(NO_CHANGE, flip=1.0), (32, 40), (label[:, ::-1], literal_edges(label)[:, ::-1])),
        # Twice the size: a band twice as wide, not the band of the larger label.
        (
            NO_CHANGE,
            (64, 80),
            tuple(each.repeat(2, 0).repeat(2, 1) for each in (label, literal_edges(label))),
        ),
    ):
        item = EdgeDataset(pairs, size, config)[0]
        found, edges = split_marks(item["label"])
        assert np.array_equal(found.numpy(), expected[0])
        assert np.array_equal(edges.numpy(), expected[1])


class Stub(HeadedBaseline):
    """The outputs of a network, each a layer of its own on single pixels, which no padding reaches."""

    stride = 8

    def _build(self) -> None:
        self.main = nn.Conv2d(6, self.config.num_classes, 1)
        self.terms = [term for term in HEADS[self.architecture] if term.output != "logits"]
        for term in self.terms:
            count = self.config.num_classes if term.target == "classes" else 2
            count = 9 if term.output == "thermal_semantic" else count
            self.add_module(f"head_{term.output}", nn.Conv2d(6, count, 1))

    def score_all(self, rgb: Tensor, thermal: Tensor, auxiliary: bool) -> dict[str, Tensor]:
        images = torch.cat([rgb, thermal], dim=1)
        outputs = {"logits": self.main(images)}
        if auxiliary:
            outputs |= {term.output: self.get_submodule(f"head_{term.output}")(images) for term in self.terms}
        return outputs


def stub(name: str, classes: int = 9) -> Stub:
    """A stub with the outputs of a network."""
    heads = tuple(f"head_{term.output}." for term in HEADS[name])
    kind = type(f"Stub{name}", (Stub,), {"auxiliary": heads}, architecture=name)
    torch.manual_seed(3)
    network: Stub = kind(BaselineConfig(classes), name)
    return network


def weighted(logits: Tensor, target: Tensor, weights: Tensor) -> float:
    """Cross-entropy with the weight of the true class, a mean over known pixels, by its definition."""
    total = mass = 0.0
    logs = logits.detach().double().log_softmax(1)
    for place in torch.nonzero(target != 255).tolist():
        image, row, column = place
        value = int(target[image, row, column])
        total -= float(weights[value] * logs[image, value, row, column])
        mass += float(weights[value])
    return total / mass


def literal_loss(
    name: str, network: Stub, config: TrainConfig, batch: dict[str, Tensor], edges: Tensor
) -> float:
    """The authors' sum, written out for each network."""
    network.eval()
    rgb, thermal = network.normalize(batch["rgb"], batch["thermal"])
    assert rgb is not None
    assert thermal is not None
    outputs = network.score_all(rgb, thermal, auxiliary=True)
    label = batch["label"]
    given = config.loss.class_weights
    classes = torch.tensor(given if isinstance(given, tuple) else [1.0] * 9, dtype=torch.float64)
    ignored = label == 255
    foreground = (label > 0).long().masked_fill(ignored, 255)
    outline = edges.long().masked_fill(ignored, 255)
    of_foreground, of_edges = torch.tensor([1.5121, 10.2388]), torch.tensor([1.4459, 23.7228])
    if name.startswith("eaefnet"):
        whole = Objective(config.loss)
        return sum(float(whole(outputs[key].detach(), label)) for key in ("high", "low"))
    total = weighted(outputs["logits"], label, classes)
    if name in ("lasnet", "sgfnet"):
        total += float(lovasz_softmax(outputs["logits"].detach(), label))
    if name == "lasnet":
        total += weighted(outputs["logits_aux"], label, classes)
        total += 0.5 * weighted(outputs["location"], foreground, of_foreground)
        total += weighted(outputs["edge"], outline, of_edges)
    elif name == "sgfnet":
        total += 0.5 * weighted(outputs["thermal_semantic"], label, classes)
        total += 2 * weighted(outputs["edge"], outline, of_edges)
    elif name == "egfnet":
        total += weighted(outputs["semantic"], label, classes)
        total += sum(weighted(outputs[f"boundary{level}"], outline, of_edges) for level in (1, 2, 3))
    elif name == "gmnet":
        total += weighted(outputs["binary"], foreground, of_foreground)
        total += weighted(outputs["boundary"], outline, of_edges)
    else:
        assert name == "rsfnet"
        total += sum(weighted(outputs[f"aux_{stride}"], label, classes) for stride in (8, 16))
    return total


def make_batch(marked: bool) -> tuple[dict[str, Tensor], Tensor]:
    """Images of 40x44, which need padding, with a label of large parts; also the edges."""
    generator = torch.Generator().manual_seed(5)
    label = torch.zeros(2, 40, 44, dtype=torch.long)
    label[0, 4:20, 6:30], label[1, 10:, 20:], label[1, :6, :9] = 3, 8, 255
    edges = torch.from_numpy(np.stack([literal_edges(each.numpy().astype(np.uint8)) for each in label]))
    images = {
        "rgb": torch.rand(2, 3, 40, 44, generator=generator),
        "thermal": torch.rand(2, 1, 40, 44, generator=generator),
        "index": torch.arange(2),
    }
    return {**images, "label": label | (128 * (edges & (label != 255))) if marked else label}, edges


def make_learner(recipe: TrainConfig, network: SegmentationModel) -> Learner:
    """A network in training, with the class weights of its recipe."""
    learner = Learner(dataclasses.replace(recipe, device="cpu"), network, (), (), 10)
    if isinstance(recipe.loss.class_weights, tuple):
        learner.objective.class_weights = torch.tensor(recipe.loss.class_weights)
    learner.model.train()
    return learner


@pytest.mark.parametrize("name", HEADS)
def test_losses_are_the_authors_sums(name: str) -> None:
    network = stub(name)
    recipe = authors_recipe(name)
    if name == "rsfnet":  # its rate of the decoder needs real encoders
        recipe = dataclasses.replace(recipe, optimizer=dataclasses.replace(recipe.optimizer, decoder_lr=1.0))
    marked = any(term.target == "edges" for term in HEADS[name])
    batch, edges = make_batch(marked)
    plain = batch | {"label": make_batch(marked=False)[0]["label"]}
    expected = literal_loss(name, network, recipe, plain, edges)
    learner = make_learner(recipe, network)
    before = {key: value.detach().clone() for key, value in network.named_parameters()}
    assert learner.step(batch, 0).loss == pytest.approx(expected, rel=1e-4)
    # Every parameter learns, but the main layer where its output is not in the sum.
    still = {key for key, value in network.named_parameters() if torch.equal(before[key], value)}
    assert still == ({"main.weight", "main.bias"} if name.startswith("eaefnet") else set())
    # Nothing is kept, and no further output is computed, where the network is not trained.
    assert network._heads == {}
    network.eval()
    network(batch["rgb"], batch["thermal"])
    assert network._heads == {}


def test_without_heads_the_further_outputs_rest() -> None:
    network = stub("gmnet")
    recipe = authors_recipe("gmnet")
    loss = dataclasses.replace(recipe.loss, heads=False, class_weights=None)
    learner = make_learner(dataclasses.replace(recipe, loss=loss), network)
    before = {key: value.detach().clone() for key, value in network.named_parameters()}
    learner.step(make_batch(marked=False)[0], 0)
    changed = {key for key, value in network.named_parameters() if not torch.equal(before[key], value)}
    assert changed == {"main.weight", "main.bias"}


def test_thermal_semantics_of_fewer_and_of_more_classes() -> None:
    """They have nine channels whatever the data set has: the further ones are never the truth."""
    network = stub("sgfnet", 5)
    recipe = authors_recipe("sgfnet")
    loss = dataclasses.replace(recipe.loss, class_weights=(1.0, 2.0, 3.0, 4.0, 5.0))
    learner = make_learner(dataclasses.replace(recipe, loss=loss), network)
    batch, _ = make_batch(marked=True)
    batch["label"] = torch.where(batch["label"] == 255, 255, batch["label"] & ~8)
    assert math.isfinite(learner.step(batch, 0).loss)
    with pytest.raises(
        InputError, match=r"loss.heads of sgfnet takes at most 9 classes, the data set has 10"
    ):
        make_learner(recipe, stub("sgfnet", 10))


@pytest.mark.parametrize("name", [name for name in HEADS if name != "eaefnet"])
def test_the_outputs_exist_and_all_frozen_parts_learn(name: str) -> None:
    """On the meta device, which computes nothing."""
    with torch.device("meta"):
        model = efnet.create_model(name, 9)
        assert isinstance(model, HeadedBaseline)
        model.train_heads()
        model.train()
        model(torch.empty(2, 3, 64, 96), torch.empty(2, 1, 64, 96))
        outputs = model.take_heads([term.output for term in HEADS[name]], (64, 96))
    assert all(value.requires_grad for value in model.parameters())
    for term in HEADS[name]:
        count = 2 if term.target != "classes" else 9
        assert outputs[term.output].shape == (2, count, 64, 96)


def test_each_network_with_trained_outputs_has_terms_or_is_named_here() -> None:
    """MMSMCNet's authors publish no losses; EAEFNet's for PST900 do not state which output has one."""
    headed = {name for name, kind in BASELINES.items() if issubclass(kind, HeadedBaseline)}
    assert headed - set(HEADS) == {"mmsmcnet", "eaefnet_pst900"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in HEADS if name != "eaefnet"])
def test_a_step_of_a_real_network_changes_every_parameter(name: str) -> None:
    recipe = authors_recipe(name)
    torch.manual_seed(0)
    network, _ = build_network(recipe.network, ClassSet.generic(9))
    learner = make_learner(recipe, network)
    marked = any(term.target == "edges" for term in HEADS[name])
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, 9, (2, 2, 3), generator=generator)
    label = label.repeat_interleave(32, 1).repeat_interleave(32, 2)
    images = {
        "rgb": torch.rand(2, 3, 64, 96, generator=generator),
        "thermal": torch.rand(2, 1, 64, 96, generator=generator),
    }
    batch = {**images, "label": label | (128 * (label > 4)) if marked else label, "index": torch.arange(2)}
    assert learner.step(batch, 0).fault is None
    without = [key for key, value in network.named_parameters() if value.grad is None]
    assert not without


@pytest.mark.slow
def test_lasnet_trains_by_its_authors_recipe_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = tmp_path / "data", tmp_path / "run"
    write_dataset(root, train=4, val=1, test=1, size=(64, 96), seed=1)
    words = ["train", "--recipe", "authors", "--model", "lasnet", "--dataset", "mfnet", "--root", str(root)]
    short = ["--size", "64x96", "--workers", "0", "--device", "cpu", "--validation.samples", "0"]
    assert main([*words, *short, "--out", str(run), "--epochs", "1"]) == 0
    assert "recipe authors of lasnet: thermal images are resized bilinearly" in "".join(capsys.readouterr())
    assert main(["train", "--out", str(run), "--resume", "--epochs", "2", "--quiet"]) == 0


@pytest.mark.parametrize(
    ("model", "words", "message"),
    [
        ("mfnet", ["--loss.heads", "true"], "loss.heads is for eaefnet, eaefnet50, lasnet, sgfnet, egfnet"),
        (
            "mfnet",
            ["--loss.class_weights", "1,2,3"],
            "loss.class_weights has 3 weights, the data set 9 classes; give one for each class, or enet",
        ),
        (
            "lasnet",
            ["--loss.heads", "true", "--augment.rare_crop", "0.5"],
            "loss.heads of lasnet cannot be combined with --augment.rare_crop",
        ),
        ("mfnet", ["--loss.class_weights", "[1, -2]"], "give a weight for each class, 0 or more"),
        ("mfnet", ["--loss.class_offset", "1"], "loss.class_offset is 1.0; give a number above 1"),
        ("mfnet", ["--schedule.warmup_from", "1"], "schedule.warmup_from is 1.0; give a share from 0"),
        (
            "mfnet",
            ["--optimizer.kind", "ranger", "--strategy", "fsdp"],
            "optimizer.kind ranger goes with --parallel.strategy ddp; fsdp shards adamw alone",
        ),
    ],
)
def test_refusals(
    model: str,
    words: list[str],
    message: str,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = ["train", "--dataset", "mfnet", "--root", str(scenes), "--model", model, "--size", "32x48"]
    more = ["--workers", "0", "--device", "cpu", "--quiet", "--out", str(tmp_path / "run"), "--epochs", "1"]
    assert main([*base, *more, *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
