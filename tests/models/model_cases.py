"""What every network must do, whatever it is made of: each test module calls these with its own network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from efnet.models import SegmentationModel
from efnet.models.checkpoint import load_checkpoint


def random_pair(height: int = 64, width: int = 96, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Images with structure: noise alone would cluster like nothing a camera sees."""
    coarse = torch.rand(batch, 4, 6, 8)
    both = F.interpolate(coarse, (height, width), mode="bilinear") + 0.05 * torch.rand(
        batch, 4, height, width
    )
    both = both.clamp(0, 1)
    return both[:, :3], both[:, 3:]


def check_shapes(model: SegmentationModel) -> None:
    """Any size from 32 up, any batch."""
    model.eval()
    for height, width, batch in ((32, 32, 1), (33, 47, 2), (64, 32, 3), (97, 130, 1)):
        with torch.inference_mode():
            logits = model(*random_pair(height, width, batch))
        assert logits.shape == (batch, model.num_classes, height, width)
        assert logits.isfinite().all()


def check_gradients(
    model: SegmentationModel,
    precision: torch.dtype,
    inert: tuple[str, ...] = (),
    size: tuple[int, int] = (64, 96),
) -> None:
    """Every parameter that is trained receives a finite gradient; all of them move within three steps.

    Parameters whose names end in one of `inert` need not move: a normalisation behind them undoes them.
    """
    model.train()
    # As training does: behind a classifier that starts near zero, steps of plain descent round to nothing.
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    before = {name: value.detach().clone() for name, value in trained.items()}
    for _ in range(3):
        images = random_pair(*size, 2)
        truth = torch.randint(0, model.num_classes, (2, *size))
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
            logits = model(*images)
        F.cross_entropy(logits.float(), truth).backward()
        for name, value in trained.items():
            assert value.grad is not None, f"{name} has no gradient"
            assert value.grad.isfinite().all(), f"{name} has a gradient that is not finite"
        optimizer.step()
    still = [
        name
        for name, value in trained.items()
        if torch.equal(value, before[name]) and not (inert and name.endswith(inert))
    ]
    assert not still, f"never moved: {still}"


def check_determinism(model: SegmentationModel) -> None:
    """The same pair twice gives the same bits; alone and in a batch it agrees to rounding."""
    model.eval()
    rgb, thermal = random_pair(64, 96, 3)
    with torch.inference_mode():
        together = model(rgb, thermal)
        assert torch.equal(together, model(rgb, thermal))
        for index in range(3):
            alone = model(rgb[index : index + 1], thermal[index : index + 1])
            torch.testing.assert_close(alone[0], together[index], rtol=1e-3, atol=1e-3)


def check_round_trip(model: SegmentationModel, folder: Path) -> None:
    """Saved and loaded by what a user calls it, a network answers with the same bits."""
    model.eval().save_pretrained(folder)
    again = load_checkpoint(folder)
    assert type(again) is type(model)
    assert (again.name, again.config, again.classes) == (model.name, model.config, model.classes)
    pair = random_pair(64, 64)
    with torch.inference_mode():
        assert torch.equal(model(*pair), again(*pair))
