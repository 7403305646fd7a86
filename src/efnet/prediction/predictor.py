"""The predictor: everything between images as users hold them and a label map of the same size.

Shapes: B batch, H W size of the image given, h w size that the network sees, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from efnet.classes import ClassSet
from efnet.data.images import ThermalScale
from efnet.devices import Precision, autocast, check_precision, pick_device
from efnet.errors import InputError
from efnet.models.base import SegmentationModel
from efnet.models.checkpoint import load_checkpoint
from efnet.models.config import Modality
from efnet.models.validation import MIN_SIZE
from efnet.prediction.arrays import (
    ImageLike,
    Prepared,
    as_rgb,
    as_rgbt,
    as_thermal,
    check_aspect,
    has_four_channels,
    resize_rgb,
    resize_thermal,
)
from efnet.prediction.render import thermal_pixels
from efnet.prediction.result import Prediction

Value = TypeVar("Value", np.uint8, np.float32)


class Predictor:
    """Segments RGB-thermal pairs with a trained model.

    Four lines are enough::

        import efnet

        predictor = efnet.Predictor.from_pretrained("runs/mine")
        prediction = predictor("rgb.png", "thermal.png")
        prediction.color().save("classes.png")

    Images are resized to the size the model was made for (`model.input.size`; None: kept as they are),
    the thermal range is scaled as in training, and the logits are resized bilinearly to the image's
    own size before the class is taken. A thermal image of another resolution but the same aspect
    ratio (within 1 %) as its RGB image is resized onto it.

    Args:
        model: a network with `classes`, `input` and `modality`, such as `efnet.create_model` makes. It
            is moved to the device and set to evaluation mode.
        device: `auto` (CUDA, else CPU), `cpu`, `cuda` or `cuda:1`.
        precision: `32`, or `bf16` for autocast to bfloat16 (distances stay float32).

    Raises:
        InputError: an unknown or absent device, or an unknown precision.
    """

    def __init__(self, model: SegmentationModel, device: str = "auto", precision: Precision = "32") -> None:
        self.precision: Precision = check_precision(precision)
        self.device = pick_device(device)
        self.model = model.to(self.device).eval()
        self.classes: ClassSet = model.classes
        self.modality: Modality = model.modality
        self.size: tuple[int, int] | None = model.input.size
        self.thermal_scale: ThermalScale = model.input.thermal_scale

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike[str],
        device: str = "auto",
        precision: Precision = "32",
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Load a run folder, a checkpoint folder, or a model of the Hugging Face hub.

        Args:
            path_or_hub_id: a local path, or `owner/name` on the hub.
            device: see the class.
            precision: see the class.
            revision: branch, tag or commit of a hub repository; its main branch if None.
            token: for a private repository; None: the one that the user is logged in with.
            cache_dir: where fetched files are kept.
            local_files_only: take what was fetched before, and do not go to the network.

        Raises:
            InputError: no checkpoint there, or one that does not load.
        """
        model = load_checkpoint(
            path_or_hub_id,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        return cls(model, device=device, precision=precision)

    def __call__(
        self, rgb: ImageLike | None, thermal: ImageLike | None = None, probabilities: bool = False
    ) -> Prediction:
        """Segment one pair.

        Args:
            rgb: a path, a PIL image, or an array (H, W, 3) of uint8 or of floats in [0, 1]. Alone, an
                image with four channels, the last of them thermal. None for a thermal-only model.
            thermal: a path, a PIL image, or an array (H, W), (H, W, 1) or (H, W, 3) with equal channels,
                8-bit, 16-bit or float. None for an RGB-only model.
            probabilities: also return the probability of every class at every pixel.

        Returns:
            the label map at the size of `rgb` (of `thermal` for a thermal-only model).

        Raises:
            InputError: an image is missing, has a wrong rank, type or range, holds values that are not
                finite, is too small, or does not fit its partner.
        """
        return self.run([self.prepare(rgb, thermal)], probabilities)[0]

    def batch(
        self,
        pairs: Sequence[tuple[ImageLike | None, ImageLike | None]],
        probabilities: bool = False,
        batch_size: int = 8,
    ) -> list[Prediction]:
        """Segment several pairs, up to `batch_size` of them in one pass of the network.

        Sizes may differ from pair to pair; pairs that the network sees at one size go together.

        Args:
            pairs: (rgb, thermal), each as in a single call.
            probabilities: as in a single call.
            batch_size: bounds the memory.

        Returns:
            one prediction per pair, in their order, equal to single calls up to rounding.

        Raises:
            InputError: as in a single call; the message tells which pair.
        """
        if batch_size < 1:
            raise InputError(f"batch_size {batch_size} is below 1")
        predictions: list[Prediction] = []
        for start in range(0, len(pairs), batch_size):
            prepared: list[Prepared] = []
            for number, (rgb, thermal) in enumerate(pairs[start : start + batch_size], start):
                try:
                    prepared.append(self.prepare(rgb, thermal))
                except InputError as error:
                    raise InputError(f"pair {number}: {error}") from error
            predictions += self.run(prepared, probabilities)
        return predictions

    def prepare(self, rgb: ImageLike | None, thermal: ImageLike | None = None) -> Prepared:
        """Read, check, scale and resize one pair; no device is touched, so threads may do it ahead.

        Args and errors are those of a call.
        """
        colors, heat = self._read(rgb, thermal)
        if colors is not None and heat is not None:
            check_aspect(colors, heat)
        original = colors if colors is not None else thermal_pixels(_given(heat))
        size = (original.shape[0], original.shape[1])
        network_size = self.size or size
        if min(network_size) < MIN_SIZE:
            raise InputError(
                f"the image is {size[1]}x{size[0]}; the network needs at least {MIN_SIZE} pixels each way, "
                "enlarge it first"
            )
        return Prepared(
            rgb=None if colors is None else resize_rgb(colors, network_size),
            thermal=None if heat is None else resize_thermal(heat, network_size),
            size=size,
            original=original,
        )

    def run(self, prepared: Sequence[Prepared], probabilities: bool = False) -> list[Prediction]:
        """Segment prepared pairs, those of one size in one pass of the network.

        Args:
            prepared: what `prepare` returned.
            probabilities: also return class probabilities.

        Returns:
            one prediction per pair, in their order.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for place, pair in enumerate(prepared):
            groups.setdefault(pair.network_size, []).append(place)
        predictions: dict[int, Prediction] = {}
        for places in groups.values():
            logits = self._logits([prepared[place] for place in places])
            for place, logit in zip(places, logits, strict=True):
                predictions[place] = self._decide(logit, prepared[place].size, probabilities)
        return [predictions[place] for place in range(len(prepared))]

    def _read(
        self, rgb: ImageLike | None, thermal: ImageLike | None
    ) -> tuple[NDArray[np.uint8] | None, NDArray[np.float32] | None]:
        """The images that the model uses, as arrays; an image it does not use is not even read."""
        if self.modality == "thermal":
            if thermal is None and rgb is not None and has_four_channels(rgb):
                return None, as_rgbt(rgb, self.thermal_scale)[1]
            if thermal is None:
                raise InputError("the thermal image is missing, and this model segments thermal images")
            return None, as_thermal(thermal, self.thermal_scale)
        if rgb is None:
            raise InputError("the RGB image is missing, and this model needs it")
        if self.modality == "rgb":
            return as_rgb(rgb), None
        if thermal is None:
            return as_rgbt(rgb, self.thermal_scale)
        return as_rgb(rgb), as_thermal(thermal, self.thermal_scale)

    @torch.inference_mode()
    def _logits(self, pairs: Sequence[Prepared]) -> Tensor:
        """Logits (B, K, h, w) of pairs that have one network size."""
        rgb = thermal = None
        if pairs[0].rgb is not None:
            # 8-bit to the device, float there: a quarter of the transfer.
            pixels = np.stack([_given(pair.rgb) for pair in pairs])  # (B, h, w, 3)
            rgb = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float().div(255.0)
        if pairs[0].thermal is not None:
            heat = np.stack([_given(pair.thermal) for pair in pairs])  # (B, h, w)
            thermal = torch.from_numpy(heat).to(self.device)[:, None]
        with autocast(self.device, self.precision):
            logits: Tensor = self.model(rgb, thermal)
        return logits.float()

    @torch.inference_mode()
    def _decide(self, logit: Tensor, size: tuple[int, int], probabilities: bool) -> Prediction:
        """Class of every pixel of one image, from its logits (K, h, w)."""
        if not torch.isfinite(logit).all():
            raise InputError(
                "the model's logits are not finite: the checkpoint is of a run that diverged; choose another"
            )
        full = logit[None]
        if tuple(full.shape[2:]) != size:
            full = F.interpolate(full, size=size, mode="bilinear", align_corners=False)
        index = full[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
        share = full[0].softmax(dim=0).cpu().numpy() if probabilities else None
        return Prediction(index=index, classes=self.classes, probabilities=share)


def _given(image: NDArray[Value] | None) -> NDArray[Value]:
    """An image that the model's modality makes sure of."""
    assert image is not None
    return image
