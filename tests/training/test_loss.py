"""The loss against its definition, and how its terms and options come together."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from efnet.core.errors import InputError
from efnet.training.loss import (
    LossConfig,
    Objective,
    cross_entropy,
    dice_loss,
    hard_pixels,
    lovasz_softmax,
    mask_unscored,
    weighted_cross_entropy,
)


def test_mean_over_counted_pixels() -> None:
    logits = torch.randn(2, 3, 4, 5)
    label = torch.randint(0, 3, (2, 4, 5))
    label[0, :2] = 255
    terms = [
        -logits[b, :, y, x].log_softmax(0)[label[b, y, x]]
        for b in range(2)
        for y in range(4)
        for x in range(5)
        if label[b, y, x] not in (0, 255)
    ]
    torch.testing.assert_close(cross_entropy(logits, label, unscored=(0,)), torch.stack(terms).mean())


def test_nothing_to_learn_from_is_zero() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 2, 2), 255))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_defaults_are_plain_cross_entropy_bit_for_bit() -> None:
    logits, label = torch.randn(2, 5, 6, 7), torch.randint(0, 5, (2, 6, 7))
    label[:, 0] = 255
    ours, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    Objective(LossConfig(), unscored=(3,))(ours, label).backward()
    masked = label.masked_fill(label == 3, 255)
    (F.cross_entropy(plain, masked, ignore_index=255, reduction="sum") / (masked != 255).sum()).backward()
    assert torch.equal(ours.grad, plain.grad)


def test_terms_add_up_with_their_weights() -> None:
    logits, label = torch.randn(2, 4, 6, 7), torch.randint(0, 4, (2, 6, 7))
    label[0, 0] = 255
    weights = torch.tensor([1.0, 2.0, 0.5, 4.0])
    config = LossConfig(
        cross_entropy=0.5, dice=2.0, lovasz=3.0, ohem=0.4, class_weights="enet", label_smoothing=0.1
    )
    value = Objective(config, unscored=(1,), class_weights=weights)(logits, label)
    label = mask_unscored(label, (1,))
    without = torch.tensor([1.0, 0.0, 0.5, 4.0])  # no target for what is never the truth
    hard = hard_pixels(logits, label, 0.4, config.ohem_least)
    expected = (
        0.5 * weighted_cross_entropy(logits, label, without, 0.1, hard)
        + 2 * dice_loss(logits, label)
        + 3 * lovasz_softmax(logits, label)
    )
    torch.testing.assert_close(value, expected)


def test_all_terms_are_zero_without_supervision() -> None:
    config = LossConfig(dice=1, lovasz=1, ohem=0.7, class_weights="median", label_smoothing=0.1)
    logits = torch.randn(2, 3, 8, 9, requires_grad=True)
    objective = Objective(config, unscored=(0,), class_weights=torch.ones(3))
    loss = objective(logits, torch.zeros(2, 8, 9, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))
    assert objective.mass(torch.zeros(2, 8, 9, dtype=torch.int64)) == 0


@pytest.mark.parametrize("weighted", [False, True])
def test_parts_of_a_batch_make_the_whole_by_their_mass(weighted: bool) -> None:
    weights = torch.tensor([1.0, 5.0, 0.3]) if weighted else None
    objective = Objective(
        LossConfig(class_weights="enet" if weighted else None), unscored=(2,), class_weights=weights
    )
    logits, label = torch.randn(5, 3, 6, 7), torch.randint(0, 3, (5, 6, 7))
    label[1, 2:] = 255
    label[4] = 255
    masses = [objective.mass(part) for part in label.split(2)]
    sum_ = sum(
        mass / sum(masses) * objective(*parts)
        for mass, *parts in zip(masses, logits.split(2), label.split(2), strict=True)
    )
    torch.testing.assert_close(sum_, objective(logits, label))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dice": -1}, r"loss\.dice is -1"),
        ({"lovasz": float("nan")}, r"loss\.lovasz is nan"),
        ({"cross_entropy": 0}, "all 0"),
        ({"ohem": 1.0}, r"loss\.ohem is 1.0"),
        ({"ohem_least": 0}, r"loss\.ohem_least"),
        ({"label_smoothing": 1}, r"loss\.label_smoothing"),
        ({"cross_entropy": 0, "dice": 1, "ohem": 0.7}, r"loss\.ohem changes the cross-entropy"),
    ],
)
def test_bad_configuration(values: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LossConfig(**values)
