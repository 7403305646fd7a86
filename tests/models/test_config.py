"""Configurations that no network could compute are refused, and the message names the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import efnet
from efnet.core.errors import InputError
from efnet.models.checkpoint import load_checkpoint
from efnet.models.config import BACKBONES, BackboneConfig, BaselineConfig, EFNetConfig, NetworkOptions
from efnet.models.dbtc import kept
from efnet.models.efnet import EFNet
from efnet.models.fusion import WindowCrossAttention
from efnet.training.config import (
    LossConfig,
    NetworkConfig,
    ParallelConfig,
    ScheduleConfig,
    TrainConfig,
    read_config,
    to_values,
)

SMALL: dict[str, Any] = {
    "depths": (1, 1, 1, 1),
    "widths": (8, 16, 24, 32),
    "heads": (1, 2, 3, 4),
    "mlp_ratios": (2, 2, 2, 2),
}

BACKBONE_FAULTS = [
    ("heads", (1, 3, 5, 8), "heads: 3 do not divide the width 16 of stage 2"),
    ("heads", (1, 2, 3, 5), "heads: 5 do not divide the width 32 of stage 4"),
    ("heads", (1, 1, 1), "heads must be four"),
    ("widths", (8, 15, 24, 32), "the width 15 of stage 2"),
    ("widths", 8, "widths must be four"),
    ("reductions", (16, 4, 2, 1), "reductions: 16 in stage 1"),
    ("reductions", (8, 4, 2, 2), "reductions: 2 in stage 4"),
    ("depths", (1, 1, 1, True), "depths must be four"),
    ("mlp_ratios", (0.5, 1, 1, 1), "mlp_ratios must be four"),
    ("neighbors", 2.0, "neighbors must be a whole number"),
    ("keep", 1e-9, "keep must be from"),
    ("keep", True, "keep must be from"),
    ("keep", "a quarter", "keep must be from"),
    ("keep", float("nan"), "keep must be from"),
    ("drop_path", "0.1", "drop_path must be"),
]


@pytest.mark.parametrize(("field", "value", "message"), BACKBONE_FAULTS)
def test_a_backbone_that_does_not_work_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        BackboneConfig(**{**SMALL, field: value})


@pytest.mark.parametrize(("field", "value", "message"), BACKBONE_FAULTS)
def test_a_checkpoint_that_holds_one_is_refused(
    field: str, value: object, message: str, tmp_path: Path
) -> None:
    EFNet(EFNetConfig(BackboneConfig(**SMALL), 2)).write(tmp_path)
    config = tmp_path / "config.json"
    values = json.loads(config.read_text())
    values["config"]["backbone"][field] = value
    config.write_text(json.dumps(values))
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(tmp_path)
    assert "config.json: not a checkpoint's configuration" in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"keep": 1e-4},
        {"keep": 1},
        {"neighbors": 1000},
        {"reductions": (1, 1, 1, 1)},
        {"widths": (9, 15, 21, 35), "heads": (3, 5, 7, 7)},
        {"widths": (67, 100, 24, 32), "heads": (1, 4, 3, 4)},
        {"mlp_ratios": (1, 1, 1, 1)},
    ],
    ids=str,
)
def test_what_is_accepted_works(changes: dict[str, Any]) -> None:
    """The smallest image that networks take, and one that no stage divides."""
    model = EFNet(EFNetConfig(BackboneConfig(**{**SMALL, **changes}), 3)).eval()
    for size in ((32, 32), (35, 61)):
        with torch.inference_mode():
            assert model(torch.rand(1, 3, *size), torch.rand(1, 1, *size)).isfinite().all()


@pytest.mark.parametrize(("width", "heads"), [(64, 2), (67, 1), (100, 2), (320, 10), (8, 1)])
def test_window_attention_has_heads_that_divide_its_width(width: int, heads: int) -> None:
    assert WindowCrossAttention(width).heads == heads


def test_the_least_share_keeps_a_token() -> None:
    assert [kept(count, 1e-4) for count in (1, 64, 20_000)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fusion", "sum"),
        ("position", None),
        ("tau", 0.5),
        ("tau", (0.1, 0.2, True)),
        ("tau", (0.1, 0.2, -0.1)),
        ("decoder", []),
        ("modality", "both"),
        ("merging", "max"),
    ],
)
def test_an_option_that_there_is_not_is_refused_wherever_it_is_given(field: str, value: object) -> None:
    options: dict[str, Any] = {field: value}
    for make in (
        lambda: NetworkOptions(**options),
        lambda: EFNetConfig(BACKBONES["tiny"], **options),
        lambda: NetworkConfig(**options),
        lambda: efnet.create_model("efnet_tiny", **options),
    ):
        with pytest.raises(InputError, match=field):
            make()


@pytest.mark.parametrize("classes", [1, 256, 2.0, True, "9"])
def test_a_number_of_classes_that_no_label_can_hold_is_refused(classes: Any) -> None:
    for make in (lambda: EFNetConfig(BACKBONES["tiny"], classes), lambda: BaselineConfig(classes)):
        with pytest.raises(InputError, match="num_classes must be"):
            make()


def test_values_of_a_recipe_are_checked_from_python_too() -> None:
    with pytest.raises(InputError, match="precision '16'"):
        TrainConfig(precision="16")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"parallel\.strategy"):
        ParallelConfig(strategy="dp")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"loss\.class_weights"):
        LossConfig(class_weights="log")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"schedule\.power is nan"):
        ScheduleConfig(power=float("nan"))


def test_one_list_of_options() -> None:
    """What one of them has, all have, with the same default."""
    options = NetworkOptions()
    network = EFNetConfig(BACKBONES["tiny"])
    assert network.decoder == "mfad", "None means the network's own"
    for config in (network, NetworkConfig(decoder="mfad")):
        assert {name: getattr(config, name) for name in options.names()} == {
            name: getattr(options, name) or "mfad" for name in options.names()
        }
    changed = NetworkConfig(name="efnet_tiny", tau=(0.5, 0.5, 0.5), drop_path=0.1)
    assert changed.changed() == {"tau": (0.5, 0.5, 0.5)}


def test_a_file_goes_over_its_recipe() -> None:
    config = read_config({"recipe": "scratch", "loss": {"dice": 0.5}, "network": {"tau": [0, 0, 1]}}, "f")
    assert (config.loss.dice, config.network.tau, config.optimizer.lr) == (0.5, (0, 0, 1), 5e-4)
    assert read_config(to_values(config), "f") == config
    with pytest.raises(InputError, match=r"f: .*diec"):
        read_config({"loss": {"diec": 1}}, "f")
