"""Terms of the loss against plain references, their properties, and pixels that do not count."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from efnet.training.loss import dice_loss, hard_pixels, lovasz_softmax, weighted_cross_entropy

TERMS: list[Callable[[Tensor, Tensor], Tensor]] = [weighted_cross_entropy, dice_loss, lovasz_softmax]


def scene(seed: int = 0, classes: int = 4, size: tuple[int, int] = (5, 7)) -> tuple[Tensor, Tensor]:
    """Logits of two images, and labels in which some pixels are ignored and the last class is absent."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, classes, *size, generator=generator)
    label = torch.randint(0, classes - 1, (2, *size), generator=generator)
    return logits, label.masked_fill(torch.rand(label.shape, generator=generator) < 0.2, 255)


def pixels(logits: Tensor, label: Tensor) -> list[tuple[list[float], int]]:
    """Class probabilities and class of each scored pixel, as plain numbers."""
    shares = logits.double().softmax(1).permute(0, 2, 3, 1).reshape(-1, logits.shape[1]).tolist()
    return [
        (share, truth) for share, truth in zip(shares, label.flatten().tolist(), strict=True) if truth != 255
    ]


@given(st.integers(0, 99))
def test_dice_against_its_definition(seed: int) -> None:
    logits, label = scene(seed)
    scored = pixels(logits, label)
    losses = []
    for value in {truth for _, truth in scored}:
        overlap = sum(share[value] for share, truth in scored if truth == value)
        sizes = sum(share[value] for share, _ in scored) + sum(truth == value for _, truth in scored)
        losses.append(1 - 2 * overlap / sizes)
    assert float(dice_loss(logits, label)) == pytest.approx(sum(losses) / len(losses), abs=1e-5)


@given(st.integers(0, 99))
def test_lovasz_against_the_jaccard_loss_of_growing_sets(seed: int) -> None:
    """Its definition (arXiv 1705.08790, eq. 8): each error times what its pixel adds to the loss."""
    logits, label = scene(seed)
    scored = pixels(logits, label)

    def jaccard(mistaken: set[int], value: int) -> float:
        truth = {index for index, (_, true) in enumerate(scored) if true == value}
        return 1 - len(truth - mistaken) / len(truth | mistaken)

    losses = []
    for value in {truth for _, truth in scored}:
        errors = [abs((truth == value) - share[value]) for share, truth in scored]
        order = sorted(range(len(errors)), key=lambda index: -errors[index])
        steps = [
            jaccard(set(order[: place + 1]), value) - jaccard(set(order[:place]), value)
            for place in range(len(order))
        ]
        losses.append(sum(errors[index] * step for index, step in zip(order, steps, strict=True)))
    assert float(lovasz_softmax(logits, label)) == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_of_certain_predictions_lovasz_and_dice_are_one_minus_the_scores() -> None:
    _, label = scene(1)
    prediction = label.roll(1, dims=2) % 4  # 255 becomes 3
    logits = 200.0 * torch.nn.functional.one_hot(prediction, 4).permute(0, 3, 1, 2)
    scored = label != 255
    iou, dice = [], []
    for value in label[scored].unique():
        truth, found = (label == value) & scored, (prediction == value) & scored
        both = (truth & found).sum()
        iou.append(both / (truth | found).sum())
        dice.append(2 * both / (truth.sum() + found.sum()))
    torch.testing.assert_close(lovasz_softmax(logits, label), 1 - torch.stack(iou).mean())
    torch.testing.assert_close(dice_loss(logits, label), 1 - torch.stack(dice).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_cross_entropy_is_pytorch_s_mean(smoothing: float) -> None:
    logits, label = scene()
    weights = torch.tensor([0.2, 1.0, 3.0, 7.0])
    expected = torch.nn.functional.cross_entropy(
        logits, label, weights, ignore_index=255, label_smoothing=smoothing
    )
    torch.testing.assert_close(weighted_cross_entropy(logits, label, weights, smoothing), expected)


@given(st.integers(0, 99), st.floats(0.05, 0.95), st.floats(0.01, 1))
def test_hard_pixels_against_sorting(seed: int, threshold: float, least: float) -> None:
    logits, label = scene(seed)
    hard = hard_pixels(logits, label, threshold, least)
    assert not hard[label == 255].any()
    truth = logits.softmax(1).gather(1, label.clamp_max(3)[:, None])[:, 0]
    scored = label != 255
    kept = max(1, math.ceil(least * int(scored.sum())))
    limit = max(threshold, float(truth[scored].sort().values[kept - 1]))
    clear = scored & ((truth - limit).abs() > 1e-5)  # elsewhere rounding decides
    assert torch.equal(hard[clear], (truth <= limit)[clear])
    assert int(hard.sum()) >= kept


def test_easy_pixels_have_no_gradient() -> None:
    logits, label = scene()
    logits.requires_grad_()
    hard = hard_pixels(logits, label, 0.3, 0.1)
    assert 0 < int(hard.sum()) < int((label != 255).sum())
    weighted_cross_entropy(logits, label, counted=hard).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad.abs().sum(1) > 0, hard)


@pytest.mark.parametrize("term", TERMS)
def test_ignored_pixels_neither_count_nor_learn(term: Callable[[Tensor, Tensor], Tensor]) -> None:
    logits, label = scene()
    ignored = (label == 255)[:, None]
    changed = logits.masked_fill(ignored, 50.0).requires_grad_()
    loss = term(changed, label)
    torch.testing.assert_close(loss.detach(), term(logits, label))
    loss.backward()
    assert changed.grad is not None
    assert not changed.grad.masked_select(ignored).any()
    assert changed.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "term", [*TERMS, lambda a, b: weighted_cross_entropy(a, b, counted=hard_pixels(a, b, 0.7, 0.1))]
)
def test_nothing_to_learn_from_is_zero(term: Callable[[Tensor, Tensor], Tensor]) -> None:
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    loss = term(logits, torch.full((2, 4, 5), 255))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("term", TERMS)
def test_gradients_are_those_of_differences(term: Callable[[Tensor, Tensor], Tensor]) -> None:
    logits, label = scene(2, size=(2, 3))
    assert torch.autograd.gradcheck(lambda values: term(values, label), logits.double().requires_grad_())


@pytest.mark.parametrize("term", TERMS)
def test_learning_by_each_term_alone_succeeds(term: Callable[[Tensor, Tensor], Tensor]) -> None:
    logits, label = scene(3)
    logits.requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        term(logits, label).backward()
        optimizer.step()
    assert torch.equal(logits.argmax(1)[label != 255], label[label != 255])
