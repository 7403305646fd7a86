"""Recipe `authors`: its figures against the specifications, each ingredient against a plain computation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import efnet
from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.data.augment import AugmentConfig, augment
from efnet.data.sample import Sample
from efnet.models.baselines import BASELINES
from efnet.models.baselines.base import HeadedBaseline
from efnet.scenes import write_dataset
from efnet.studies.experiments.paper_tables import get_table
from efnet.training.authors import NOTES, RECIPES, authors_recipe
from efnet.training.config import (
    LossConfig,
    NetworkConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
    get_recipe,
    to_values,
)
from efnet.training.loss import Objective, dice_loss
from efnet.training.optimizer import learning_rate, make_optimizer, parameter_groups, set_rate
from efnet.training.options import make_config, start_config
from efnet.training.state import read_state
from efnet.training.step import build_network

# Optimizer, rate, decay, batch, epochs, rate after epoch 1 over that of epoch 0.
STATED = {
    "mfnet": ("sgd", 0.01, 5e-4, 8, 100, 0.95),
    "rtfnet50": ("sgd", 0.01, 5e-4, 3, 100, 0.95),
    "rtfnet152": ("sgd", 0.01, 5e-4, 2, 100, 0.95),
    "feanet": ("sgd", 0.03, 5e-4, 5, 100, 0.95),
    "eaefnet": ("sgd", 0.02, 5e-4, 3, 100, 0.95),
    "eaefnet50": ("sgd", 0.02, 5e-4, 3, 100, 0.95),
    "sfafma": ("sgd", 0.02, 5e-4, 4, 200, 0.98 * 0.98),
    "cmx_b2": ("adamw", 6e-5, 0.01, 8, 500, None),
    "cmx_b4": ("adamw", 6e-5, 0.01, 8, 500, None),
    "cmnext_b2": ("adamw", 6e-5, 0.01, 4, 500, None),
    "cmnext_b4": ("adamw", 6e-5, 0.01, 4, 500, None),
    "lasnet": ("ranger", 5e-5, 5e-4, 4, 200, (1 - 1 / 200) ** 0.9),
    "sgfnet": ("ranger", 5e-5, 5e-4, 2, 250, (1 - 1 / 250) ** 0.9),
    "egfnet": ("ranger", 5e-5, 5e-4, 4, 400, (1 - 1 / 400) ** 0.9),
    "gmnet": ("ranger", 5e-5, 5e-4, 4, 400, (1 - 1 / 400) ** 0.9),
    "mdrnet": ("sgd", 0.001, 5e-4, 2, 500, (1 - 1 / 500) ** 0.9),
    "rsfnet": ("sgd", 0.001, 5e-4, 8, 200, (1 - 1 / 200) ** 0.9),
    "segformer_b0": ("adamw", 6e-5, 0.01, 16, 3265, None),
    "segformer_b2": ("adamw", 6e-5, 0.01, 16, 3265, None),
}


@pytest.mark.parametrize("name", STATED)
def test_figures_are_the_authors(name: str) -> None:
    recipe = authors_recipe(name)
    kind, lr, decay, batch, epochs, ratio = STATED[name]
    found = (recipe.optimizer.kind, recipe.optimizer.lr, recipe.optimizer.weight_decay)
    assert found == (kind, lr, decay)
    assert (recipe.data.batch_size, recipe.schedule.epochs, recipe.data.size) == (batch, epochs, (480, 640))
    assert (recipe.recipe, recipe.network.name) == ("authors", name)
    rates = [learning_rate(7 * epoch, 7, lr, recipe.schedule) for epoch in (0, 1)]
    assert ratio is None or rates == pytest.approx([lr, lr * ratio])
    assert recipe.network.mix_pairs == name.startswith("eaefnet")


ENET = (1.5105, 16.6591, 29.4238, 34.6315, 40.0845, 41.4357, 47.9794, 45.3725, 44.9000)

# Cross-entropy, Dice, Lovasz, smoothing, class weights, further outputs.
LOSSES = {
    "feanet": (0.5, 0.5, 0, 0.1, None, False),
    "eaefnet": (0.5, 0.5, 0, 0.1, None, True),
    "eaefnet50": (0.5, 0.5, 0, 0.1, None, True),
    "lasnet": (1, 0, 1, 0, ENET, True),
    "sgfnet": (1, 0, 1, 0, ENET, True),
    "egfnet": (1, 0, 0, 0, ENET, True),
    "gmnet": (1, 0, 0, 0, ENET, True),
    "mdrnet": (1, 0, 0, 0, ENET, False),
    "rsfnet": (1, 0, 0, 0, "enet", True),
}


@pytest.mark.parametrize("name", STATED)
def test_losses_are_the_authors(name: str) -> None:
    loss = authors_recipe(name).loss
    found = (loss.cross_entropy, loss.dice, loss.lovasz, loss.label_smoothing, loss.class_weights, loss.heads)
    assert found == LOSSES.get(name, (1, 0, 0, 0, None, False))
    assert loss.class_offset == (1.05 if name == "rsfnet" else 1.02)


@pytest.mark.parametrize("name", STATED)
def test_augmentation_is_the_authors(name: str) -> None:
    augment = authors_recipe(name).augment
    shared = name in ("lasnet", "sgfnet", "egfnet", "gmnet", "mdrnet")
    assert augment.flip == (0 if name == "mdrnet" else 0.5)
    assert (augment.borders, augment.drop_rgb, augment.rare_crop) == (0.1 if name in BORDERED else 0, 0, 0)
    colours = (augment.brightness, augment.contrast, augment.saturation, augment.hue)
    if name.startswith("segformer"):
        assert colours == (32 / 255, 0.5, 0.5, 0.05)
    else:
        assert colours == ((0.5, 0.5, 0.5, 0) if shared else (0, 0, 0, 0))
    if not name.startswith("cmx"):
        wide = shared or name.startswith(("cmnext", "segformer"))
        assert augment.scale == ((0.5, 2) if wide else (1, 1))


BORDERED = ("mfnet", "rtfnet50", "rtfnet152", "feanet", "eaefnet", "eaefnet50", "sfafma")


def test_rates_of_cmnext_segformer_and_rsfnet() -> None:
    """Warm-up from a tenth; steps in place of epochs; the encoder's rate."""
    cmnext = authors_recipe("cmnext_b4")
    assert (cmnext.data.accumulate, cmnext.optimizer.decoder_lr) == (4, 1)
    first, last = (learning_rate(step, 49, 6e-5, cmnext.schedule) for step in (0, 489))
    assert 6e-6 <= first <= 6.2e-6
    assert last == pytest.approx(6e-5, rel=3e-3)
    segformer = authors_recipe("segformer_b2")
    assert (segformer.network.modality, segformer.optimizer.decoder_lr) == ("rgb", 10)
    assert segformer.schedule.epochs * 49 == pytest.approx(160_000, rel=1e-3)
    assert learning_rate(1499, 49, 1.0, segformer.schedule) == pytest.approx(1, rel=1e-3)
    assert learning_rate(80_000, 49, 1.0, segformer.schedule) == pytest.approx(0.5, rel=1e-3)
    rsfnet = authors_recipe("rsfnet")
    assert learning_rate(7 * 100 + 3, 7, 0.001, rsfnet.schedule) == pytest.approx(
        0.001 * (1 - 703 / 1400) ** 0.9
    )
    assert rsfnet.optimizer.decoder_lr == 10


def test_each_network_is_known() -> None:
    """Every network from another paper has a recipe, or a reason why it has none."""
    assert STATED.keys() == RECIPES.keys() <= set(BASELINES)
    for name in BASELINES.keys() - RECIPES.keys():
        with pytest.raises(InputError, match=rf"there is none for {name} \(its authors .*\); the authors"):
            authors_recipe(name)
    assert NOTES.keys() <= RECIPES.keys()
    assert {name for name in RECIPES if RECIPES[name].optimizer.kind == "ranger"} < NOTES.keys()


def test_decay_that_counts_from_the_first_step() -> None:
    schedule = ScheduleConfig(epochs=500, warmup_epochs=10, from_start=True)
    assert learning_rate(100 * 4, 4, 1.0, schedule) == pytest.approx((1 - 100 / 500) ** 0.9)
    # It begins below the peak that the warm-up reached.
    assert learning_rate(40, 4, 1.0, schedule) == pytest.approx((1 - 10 / 500) ** 0.9)
    assert learning_rate(39, 4, 1.0, schedule) == pytest.approx(40 / 41)


@given(gamma=st.floats(0.5, 1), steps=st.integers(1, 9), epoch=st.integers(0, 19))
def test_the_rate_falls_by_a_factor_after_each_epoch(gamma: float, steps: int, epoch: int) -> None:
    schedule = ScheduleConfig(epochs=20, warmup_epochs=0, gamma=gamma)
    rates = {learning_rate(epoch * steps + step, steps, 0.1, schedule) for step in range(steps)}
    assert len(rates) == 1
    assert rates.pop() == pytest.approx(0.1 * gamma**epoch)


@given(power=st.floats(0.5, 2), steps=st.integers(1, 9), epoch=st.integers(0, 19))
def test_the_polynomial_falls_after_each_epoch(power: float, steps: int, epoch: int) -> None:
    schedule = ScheduleConfig(epochs=20, warmup_epochs=0, power=power, by_epoch=True)
    rates = {learning_rate(epoch * steps + step, steps, 0.1, schedule) for step in range(steps)}
    assert len(rates) == 1
    assert rates.pop() == pytest.approx(0.1 * (1 - epoch / 20) ** power)


def test_warm_up_from_a_share_of_the_rate() -> None:
    schedules = [ScheduleConfig(epochs=100, warmup_epochs=10, warmup_from=share) for share in (0.0, 0.25)]
    for step in (0, 17, 39, 40, 200):
        fresh, raised = (learning_rate(step, 4, 2.0, schedule) for schedule in schedules)
        assert raised == pytest.approx(0.25 * 2.0 + 0.75 * fresh if step < 40 else fresh)


def test_weights_of_classes_with_another_offset(scenes: Path, tmp_path: Path) -> None:
    """1 / ln(c + share of the scored pixels), as the run records it."""
    out = tmp_path / "run"
    more = ["--loss.class_weights", "enet", "--loss.class_offset", "1.05", "--epochs", "1"]
    base = words(scenes, out, "mfnet", *more)
    assert main([word for word in base if word not in ("--recipe", "authors")]) == 0
    facts = yaml.safe_load((out / "run.json").read_text())
    total = sum(facts["class_pixels"].values())
    for name, pixels in facts["class_pixels"].items():
        expected = 1 / np.log(1.05 + pixels / total) if pixels else 1
        assert facts["class_weights"][name] == pytest.approx(expected, abs=1e-4)


def test_descent_equals_the_plain_formula() -> None:
    """Momentum 0.9; the decay is part of the gradient, of norms and biases too."""
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    optimizer = make_optimizer(layer, OptimizerConfig(kind="sgd", lr=0.1, weight_decay=0.01))
    values = [value.detach().double().clone() for value in layer.parameters()]
    speeds = [torch.zeros_like(value) for value in values]
    for step in range(3):
        rate = 0.1 * 0.5**step
        set_rate(optimizer, rate)
        optimizer.zero_grad()
        (layer(torch.ones(4, 3)).square() * torch.arange(2)).sum().backward()
        for value, speed, parameter in zip(values, speeds, layer.parameters(), strict=True):
            assert parameter.grad is not None
            speed.mul_(0.9).add_(parameter.grad.double() + 0.01 * value)
            value.sub_(rate * speed)
        optimizer.step()
    for value, parameter in zip(values, layer.parameters(), strict=True):
        torch.testing.assert_close(parameter.detach().double(), value, rtol=1e-5, atol=1e-6)
    (group,) = parameter_groups(layer, 0.01, spare=False)
    assert len(group["params"]) == 4


def literal_dice(logits: Tensor, label: Tensor) -> float:
    """1 - 2 sum(p y) / sum(p + y) of each class in the labels, zero of the others, mean over all K."""
    probability, losses = logits.double().softmax(1), []
    for value in range(logits.shape[1]):
        truth = (label == value).double()
        p = probability[:, value]
        losses.append(float(1 - 2 * (p * truth).sum() / (p + truth).sum()) if truth.any() else 0.0)
    return sum(losses) / len(losses)


def test_dice_over_all_classes() -> None:
    logits, label = torch.randn(2, 5, 6, 7), torch.randint(0, 3, (2, 6, 7))
    found = dice_loss(logits, label, over_all=True)
    assert float(found) == pytest.approx(literal_dice(logits, label), rel=1e-5)
    assert float(dice_loss(logits, label)) == pytest.approx(float(found) * 5 / 3, rel=1e-5)
    both = Objective(LossConfig(cross_entropy=0.5, dice=0.5, dice_over="all", label_smoothing=0.1))
    smooth = torch.nn.functional.cross_entropy(logits, label, label_smoothing=0.1)
    expected = 0.5 * float(smooth) + 0.5 * literal_dice(logits, label)
    assert float(both(logits, label)) == pytest.approx(expected, rel=1e-5)


def ramp(height: int = 50, width: int = 80) -> Sample:
    """Colour and thermal that state the place of every pixel."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    rgb = np.stack([rows, columns, rows * 0], axis=-1).astype(np.uint8)
    return Sample("ramp", rgb, columns / 100, rows.astype(np.uint8))


PLAIN = {"scale": (1.0, 1.0), "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "flip": 0.0}


@given(seed=st.integers(0, 2**20))
def test_borders_move_inwards_by_up_to_their_share(seed: int) -> None:
    config = AugmentConfig(**PLAIN, borders=0.1)
    result = augment(ramp(), config, (100, 160), np.random.default_rng(seed))
    assert result.rgb.shape == (100, 160, 3)
    assert result.label is not None
    assert result.label[0, 0] <= 5
    assert result.label[-1, 0] >= 49 - 5
    assert result.thermal[0, 0] <= 0.085
    assert result.thermal[0, -1] >= 0.79 - 0.085
    # One geometry: rows of the colour image are those of the label, columns those of the thermal image.
    assert np.abs(result.rgb[..., 0].astype(int) - result.label).max() <= 2
    assert np.abs(result.rgb[..., 1] - 100 * result.thermal).max() <= 2


def test_borders_differ_and_leave_other_draws_alone() -> None:
    firsts = set()
    for seed in range(30):
        jitter = AugmentConfig(flip=0.5, scale=(1.0, 1.0))
        config = dataclasses.replace(jitter, borders=0.1)
        results = [augment(ramp(), each, (50, 80), np.random.default_rng(seed)) for each in (jitter, config)]
        mirrored = [bool(result.thermal[0, 0] > result.thermal[0, -1]) for result in results]
        assert mirrored[0] == mirrored[1]
        assert results[1].label is not None
        firsts.add(int(results[1].label[0, 0]))
    assert firsts == {0, 1, 2, 3, 4, 5}


def test_scales_in_steps() -> None:
    config = AugmentConfig(**(PLAIN | {"scale": (0.5, 1.75)}), scale_steps=(0.5, 1.0))
    filled = set()
    for seed in range(20):
        label = augment(ramp(), config, (50, 80), np.random.default_rng(seed)).label
        assert label is not None
        filled.add(int((label != 255).any(axis=1).sum()))
    assert filled == {25, 50}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"borders": 0.1}, "augment.borders goes with"),
        ({"borders": 0.5, "scale": (1, 1)}, "augment.borders is 0.5; give a share"),
        ({"scale_steps": (0.25,)}, "give scales within"),
    ],
)
def test_wrong_augmentations(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AugmentConfig(**options)


def test_both_heads_of_eaefnet_have_the_loss() -> None:
    classes = efnet.create_model("mfnet", 4).classes
    network, _ = build_network(NetworkConfig(name="eaefnet50", mix_pairs=True), classes)
    assert isinstance(network, HeadedBaseline)
    assert all(module.mixes_pairs for module in network.modules() if hasattr(module, "mixes_pairs"))
    network.train_heads()
    network.train()
    rgb, thermal = torch.rand(2, 3, 64, 48), torch.rand(2, 1, 64, 48)
    with torch.no_grad():
        logits = network(rgb, thermal)
        heads = network.take_heads(("high", "low"), logits.shape[2:])
    assert heads["high"].shape == heads["low"].shape == logits.shape
    torch.testing.assert_close(heads["high"] + heads["low"], logits)
    assert not torch.allclose(heads["high"], heads["low"])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("authors") / "data"
    write_dataset(root, train=9, val=1, test=1, size=(64, 96), seed=1)
    return root


def words(scenes: Path, out: Path, model: str, *more: str) -> list[str]:
    base = ["train", "--recipe", "authors", "--dataset", "mfnet", "--root", str(scenes), "--out", str(out)]
    short = ["--size", "64x96", "--workers", "0", "--device", "cpu", "--validation.samples", "0", "--quiet"]
    return [*base, "--model", model, *short, *more]


def test_a_run_by_the_authors_recipe_is_recorded_and_goes_on(scenes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(words(scenes, run, "mfnet", "--epochs", "1")) == 0
    values = yaml.safe_load((run / "config.yaml").read_text())
    assert values["recipe"] == "authors"
    assert (values["optimizer"]["kind"], values["schedule"]["gamma"]) == ("sgd", 0.95)
    assert values["data"]["batch_size"] == 8
    assert main(["train", "--out", str(run), "--resume", "--epochs", "2", "--quiet"]) == 0
    # The state has the momentum of every parameter, and nothing of AdamW.
    state = read_state(run / "last" / "state.pt")["optimizer"]["state"]
    assert {key for entry in state.values() for key in entry} == {"momentum_buffer"}


@pytest.mark.slow
def test_eaefnet_trains_by_its_authors_recipe(scenes: Path, tmp_path: Path) -> None:
    assert main(words(scenes, tmp_path / "run", "eaefnet50", "--epochs", "1")) == 0


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        (
            "efnet_light",
            [],
            "--recipe authors: there is none for efnet_light; the authors' recipe is known for mfnet",
        ),
        ("tuni_s", [], "there is none for tuni_s (its authors do not name the optimizer); the authors'"),
        ("pstnet", [], "there is none for pstnet (its authors publish inference alone)"),
        ("mfnet", ["--network.mix_pairs", "true"], "mfnet has no network.mix_pairs; leave it out"),
        ("mfnet", ["--schedule.gamma", "1.5"], "schedule.gamma is 1.5; give a factor above 0"),
        ("mfnet", ["--parallel.strategy", "fsdp"], "optimizer.kind sgd goes with --parallel.strategy ddp"),
    ],
)
def test_refusals(
    model: str,
    more: list[str],
    message: str,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words(scenes, tmp_path / "run", model, *more)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_recipe_is_not_given_to_another_network(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its rate and losses would be those of the first one."""
    message = (
        r"`model` rtfnet50, but the configuration is the authors' recipe of mfnet; take that of rtfnet50"
    )
    with pytest.raises(InputError, match=message):
        efnet.train(get_recipe("authors", "mfnet"), out=tmp_path / "run", model="rtfnet50", root=str(scenes))
    file = tmp_path / "mfnet.yaml"
    file.write_text(yaml.safe_dump(to_values(authors_recipe("mfnet"))))
    base = ["train", "--config", str(file), "--root", str(scenes), "--out", str(tmp_path / "run")]
    assert main([*base, "--model", "rtfnet50"]) == 2
    error = capsys.readouterr().err
    assert "--config: --model rtfnet50, but the configuration is the authors' recipe of mfnet" in error
    assert make_config(get_recipe("authors", "mfnet"), {"model": "mfnet", "lr": 0.1}).optimizer.lr == 0.1
    assert start_config("authors", {"model": "rtfnet50"}) == authors_recipe("rtfnet50")
    assert not (tmp_path / "run").exists()


def test_rows_of_tables_take_their_authors_recipe() -> None:
    rows = {row.name: row for row in get_table("table1").rows}
    recipe = rows["rtfnet152"].load("authors")
    assert recipe == dataclasses.replace(authors_recipe("rtfnet152"), data=recipe.data)
    assert recipe.data.batch_size == 2
    assert rows["lasnet"].load("authors").loss.heads
    assert TrainConfig().optimizer.kind == "adamw"
