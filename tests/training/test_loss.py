"""The loss against its definition."""

from __future__ import annotations

import torch

from efnet.training.loss import cross_entropy


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
