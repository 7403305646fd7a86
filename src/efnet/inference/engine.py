"""The inference engine: brings pairs to a network, runs it in batches, and takes the class of each pixel.

Prediction, evaluation, validation during training, the service and explanations all run through `Engine`, so
they give the same label maps bit for bit.

Shapes: B batch, K classes, H W size of an image, h w size that the network sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from efnet.core.classes import ClassSet
from efnet.core.devices import Precision, autocast, check_precision, pick_device
from efnet.core.errors import InputError
from efnet.inference.postprocess import Prediction
from efnet.inference.preprocess import Preparation, Prepared, as_tensors
from efnet.inference.runtime import ExportedModel
from efnet.inference.tiles import Tiling, tiled_logits
from efnet.models.base import MIN_SIZE

TTA_SCALES = (0.75, 1.0, 1.25)
TTA = f"scales {', '.join(f'{scale:g}' for scale in TTA_SCALES)}, each also mirrored; probabilities averaged"
"""Test-time augmentation in words, for reports."""

_LEAST = 1e-30  # keeps logarithms of probabilities finite


class Engine(Preparation):
    """A network or exported file with everything that decides what it makes of a pair.

    The attributes of `Preparation` may be set.

    Args:
        model: `model(rgb (B, 3, h, w), thermal (B, 1, h, w)) -> logits (B, K, h', w')`, on `device`, in
            evaluation mode; None is passed for an image that its `modality` (by default `rgbt`) does not
            look at.
        classes: the K classes.
        device: where images go; None: where the model's parameters are.
        precision: `32`, or `bf16` for autocast to bfloat16 (distances stay float32).
        size: (h, w) that the network sees; None: every image's own.

    Raises:
        InputError: an unknown or absent device, or an unknown precision.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: ClassSet,
        device: torch.device | str | None = None,
        precision: Precision = "32",
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(getattr(model, "modality", "rgbt"), size=size)
        if device is None:
            device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
        self.precision: Precision = check_precision(precision)
        self.device = pick_device(device) if isinstance(device, str) else device
        self.model = model
        self.classes = classes
        # Divides logits before they become probabilities; never changes a label map.
        self.temperature: float = getattr(model, "temperature", 1.0)

    @property
    def preparation(self) -> Preparation:
        """How pairs are brought to the network, without the network: for worker processes."""
        return Preparation(**{field.name: getattr(self, field.name) for field in fields(Preparation)})

    @torch.inference_mode()
    def run(
        self,
        prepared: Sequence[Prepared],
        probabilities: bool = False,
        *,
        sizes: Sequence[tuple[int, int]] | None = None,
        tta: bool = False,
    ) -> list[Prediction]:
        """Segment prepared pairs, those of one size in one pass of the network.

        Args:
            prepared: what `prepare` returned.
            probabilities: also return class probabilities.
            sizes: (H, W) of each label map, to which the logits are resized bilinearly; None: the images'.
            tta: average the probabilities over `TTA_SCALES`, each also mirrored (of tiles: each tile's).

        Returns:
            one prediction per pair, in their order.

        Raises:
            InputError: logits that are not finite, or what an exported file cannot give.
        """
        if probabilities and isinstance(self.model, ExportedModel) and self.model.outputs == "classes":
            raise InputError("this file gives classes alone; export it again with `outputs` logits")
        wanted = [pair.size for pair in prepared] if sizes is None else list(sizes)
        found: dict[int, Prediction] = {}
        if self.tiling is not None:
            for place, pair in enumerate(prepared):
                rows = self._tiled(pair, self.tiling, wanted[place], tta, len(prepared))
                parts = [self._decide(part, pair, probabilities, tta) for part in rows]
                shares = [part.probabilities for part in parts if part.probabilities is not None]
                index = np.concatenate([part.index for part in parts])
                found[place] = Prediction(
                    index, self.classes, np.concatenate(shares, axis=1) if shares else None
                )
        else:
            groups: dict[tuple[int, int], list[int]] = {}
            for place, pair in enumerate(prepared):
                groups.setdefault(pair.network_size, []).append(place)
            for places in groups.values():
                scores = self._scores([prepared[i] for i in places], [wanted[i] for i in places], tta)
                for place, score in zip(places, scores, strict=True):
                    found[place] = self._decide(score[0], prepared[place], probabilities, tta)
        return [found[place] for place in range(len(prepared))]

    @torch.inference_mode()
    def logits(self, prepared: Sequence[Prepared]) -> Tensor:
        """Return the logits (B, K, h', w') of pairs that have one network size, untiled."""
        return self._forward(*as_tensors(prepared, self.device))

    def _forward(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        with autocast(self.device, self.precision):
            logits: Tensor = self.model(rgb, thermal)
        return logits.float()

    def _scores(self, pairs: Sequence[Prepared], sizes: Sequence[tuple[int, int]], tta: bool) -> list[Tensor]:
        """(1, K, H, W) of each pair at its wanted size: logits, or with TTA summed probabilities."""
        if not tta:
            logits = self.logits(pairs)
            return [_resized(logits[place, None], size) for place, size in enumerate(sizes)]
        images = as_tensors(pairs, self.device)
        sums: list[Tensor] = []
        for scale in TTA_SCALES:
            height, width = (max(MIN_SIZE, round(side * scale)) for side in pairs[0].network_size)
            views = [None if image is None else _resized(image, (height, width)) for image in images]
            for mirrored in (False, True):
                seen = [view.flip(-1) if mirrored and view is not None else view for view in views]
                logits = self._forward(*seen)
                logits = logits.flip(-1) if mirrored else logits
                shares = [_resized(logits[i, None], size).softmax(dim=1) for i, size in enumerate(sizes)]
                sums = [sum_ + share for sum_, share in zip(sums, shares, strict=True)] if sums else shares
        return sums

    def _tiled(
        self, pair: Prepared, tiling: Tiling, size: tuple[int, int], tta: bool, batch_size: int
    ) -> Iterator[Tensor]:
        """Scores (K, rows, W) from the top of a pair to its bottom, as soon as these rows are done."""

        def infer(tiles: Sequence[Prepared]) -> Tensor:
            return torch.cat(self._scores(tiles, [tile.size for tile in tiles], tta))

        rows = tiled_logits(pair, tiling, infer, batch_size)
        if size == pair.size:
            yield from rows
        else:  # rows of another size are not known before all of these are
            yield _resized(torch.cat(list(rows), dim=1)[None], size)[0]

    def _decide(self, scores: Tensor, pair: Prepared, probabilities: bool, tta: bool) -> Prediction:
        """Take the class of every pixel from scores (K, H, W)."""
        # The sum is quick and finite in nearly every case; a large one decides nothing.
        if not torch.isfinite(scores.sum()) and not torch.isfinite(scores).all():
            raise InputError(
                f"{f'pair {pair.name}: ' if pair.name else ''}the model's logits are not finite; the "
                "checkpoint is of a run that diverged, or the precision is too low"
            )
        shares = None
        if probabilities:
            shares = self._shares(scores, tta).cpu().numpy()
        # The same first index of the largest as argmax, which takes five times as long on a CPU.
        index = scores.max(dim=0).indices.to(torch.uint8).cpu().numpy()
        return Prediction(index=index, classes=self.classes, probabilities=shares)

    def _shares(self, scores: Tensor, tta: bool) -> Tensor:
        """Probabilities (K, H, W) at the temperature, of logits, or with TTA of summed probabilities."""
        if self.temperature == 1.0:
            return scores / scores.sum(dim=0) if tta else scores.softmax(dim=0)
        # Averaged probabilities have logits too, their logarithms: the order of the classes stays the same.
        logits = scores.clamp_min(_LEAST).log() if tta else scores
        return (logits / self.temperature).softmax(dim=0)


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)
