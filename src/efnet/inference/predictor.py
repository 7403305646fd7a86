"""The predictor: everything between images as users hold them and a label map of the same size.

Shapes: B batch, H W size of the image given, h w size that the network sees, K classes.

Before and after a pass of the network: prepared pairs as tensors, and logits as classes of pixels.

Shapes: B batch, H W size of the image given, h w size that the network sees, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from efnet.alignment.homography import Homography
from efnet.core.classes import ClassSet
from efnet.core.devices import Precision, autocast, check_precision, pick_device
from efnet.core.errors import InputError
from efnet.data.images import ThermalScale
from efnet.inference.missing_cameras import Camera, MissingPolicy, spared
from efnet.inference.postprocess import Prediction
from efnet.inference.preprocess import ImageLike, Preparation, Prepared
from efnet.inference.runtime import ExportedModel, Runtime, is_exported, load_exported
from efnet.inference.tiles import Tiling, tiled_logits
from efnet.models.base import SegmentationModel
from efnet.models.checkpoint import load_checkpoint
from efnet.models.config import Modality

Value = TypeVar("Value", np.uint8, np.float32)


def as_tensors(pairs: Sequence[Prepared], device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Pairs that have one network size, as the network takes them.

    Returns:
        (B, 3, h, w) and (B, 1, h, w) in [0, 1], on the device; None for an image that the network does
        not look at.
    """
    rgb = thermal = None
    if pairs[0].rgb is not None:
        # 8-bit to the device, float there: a quarter of the transfer.
        pixels = np.stack([_given(pair.rgb) for pair in pairs])  # (B, h, w, 3)
        rgb = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().div(255.0)
    if pairs[0].thermal is not None:
        heat = np.stack([_given(pair.thermal) for pair in pairs])  # (B, h, w)
        thermal = torch.from_numpy(heat).to(device)[:, None]
    return rgb, thermal


@torch.inference_mode()
def decide(logit: Tensor, classes: ClassSet, size: tuple[int, int], probabilities: bool) -> Prediction:
    """Class of every pixel of one image.

    Args:
        logit: (K, h, w).
        classes: the K classes.
        size: (H, W) of the image; the logits are resized to it, bilinearly.
        probabilities: keep those too.

    Raises:
        InputError: logits that are not finite.
    """
    if not torch.isfinite(logit).all():
        raise InputError(
            "the model's logits are not finite: the checkpoint is of a run that diverged; choose another"
        )
    full = logit[None]
    if tuple(full.shape[2:]) != size:
        full = F.interpolate(full, size=size, mode="bilinear", align_corners=False)
    index = full[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    share = full[0].softmax(dim=0).cpu().numpy() if probabilities else None
    return Prediction(index=index, classes=classes, probabilities=share)


def _given(image: NDArray[Value] | None) -> NDArray[Value]:
    """An image that the model's modality makes sure of."""
    assert image is not None
    return image


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

    Attributes:
        tiling: cut images into tiles, at their own size whatever `model.input.size`; None: do not.
        homography: brings thermal images into the colour camera's view first; None: they are there.
        missing: what is done about an image that shows nothing (`efnet.inference.missing_cameras`); `ignore`
            unless set.
        spared: cameras without which the network was trained to go on; a dead image of such a one is
            replaced by grey, that of another is seen as it is.

    Raises:
        InputError: an unknown or absent device, or an unknown precision.
        TypeError: the model is none of ours.
    """

    def __init__(
        self, model: SegmentationModel | ExportedModel, device: str = "auto", precision: Precision = "32"
    ) -> None:
        if not isinstance(model, SegmentationModel | ExportedModel):
            raise TypeError(
                f"the model is a {type(model).__name__}; pass what efnet.create_model or load_checkpoint "
                "returns, or use Predictor.from_pretrained"
            )
        self.precision: Precision = check_precision(precision)
        if isinstance(model, ExportedModel):
            device = _of_exported(device, self.precision)
        self.device = pick_device(device)
        self.model = model.to(self.device).eval()
        self.classes: ClassSet = model.classes
        self.modality: Modality = model.modality
        self.size: tuple[int, int] | None = model.input.size
        self.thermal_scale: ThermalScale = model.input.thermal_scale
        self.tiling: Tiling | None = None
        self.homography: Homography | None = None
        self.missing: MissingPolicy = "ignore"
        self.spared = spared(model.training_summary)

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
        runtime: Runtime | None = None,
    ) -> Self:
        """Load a run folder, a checkpoint folder, a model of the Hugging Face hub, or an exported file.

        Args:
            path_or_hub_id: a local path, or `owner/name` on the hub; or a file that `efnet export` wrote.
            device: see the class.
            precision: see the class.
            revision: branch, tag or commit of a hub repository; its main branch if None.
            token: for a private repository; None: the one that the user is logged in with.
            cache_dir: where fetched files are kept.
            local_files_only: take what was fetched before, and do not go to the network.
            runtime: what runs an exported file; None: what its suffix says.

        Raises:
            InputError: no checkpoint there, or one that does not load.
        """
        # `torch` runs checkpoints too.
        if is_exported(path_or_hub_id) or runtime not in (None, "torch"):
            return cls(load_exported(path_or_hub_id, runtime), device=device, precision=precision)
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
            TypeError: an entry is no pair.
        """
        if batch_size < 1:
            raise InputError(f"batch_size {batch_size} is below 1")
        predictions: list[Prediction] = []
        for start in range(0, len(pairs), batch_size):
            prepared: list[Prepared] = []
            for number, pair in enumerate(pairs[start : start + batch_size], start):
                if not isinstance(pair, tuple | list) or len(pair) != 2:
                    raise TypeError(f"pair {number} must be (rgb, thermal), got {type(pair).__name__}")
                rgb, thermal = pair
                try:
                    prepared.append(self.prepare(rgb, thermal))
                except InputError as error:
                    raise InputError(f"pair {number}: {error}") from error
            predictions += self.run(prepared, probabilities)
        return predictions

    def prepare(
        self,
        rgb: ImageLike | None,
        thermal: ImageLike | None = None,
        absent: Mapping[Camera, str] | None = None,
    ) -> Prepared:
        """Read, check, scale and resize one pair; no device is touched, so threads may do it ahead.

        Errors are those of a call.

        Args:
            rgb: as in a call.
            thermal: as in a call.
            absent: why an image is not to be looked at, by camera; a model of both sees grey in its place.
        """
        steps = Preparation(
            modality=self.modality,
            thermal_scale=self.thermal_scale,
            size=None if self.tiling is not None else self.size,
            homography=self.homography,
            missing=self.missing,
            spared=self.spared,
        )
        return steps.prepare(rgb, thermal, absent)

    def run(self, prepared: Sequence[Prepared], probabilities: bool = False) -> list[Prediction]:
        """Segment prepared pairs, those of one size in one pass of the network.

        Args:
            prepared: what `prepare` returned.
            probabilities: also return class probabilities.

        Returns:
            one prediction per pair, in their order.
        """
        if probabilities and isinstance(self.model, ExportedModel) and self.model.outputs == "classes":
            raise InputError("this file gives classes alone; export it again without --outputs classes")
        if self.tiling is not None:
            return [self._run_tiled(pair, self.tiling, probabilities, len(prepared)) for pair in prepared]
        groups: dict[tuple[int, int], list[int]] = {}
        for place, pair in enumerate(prepared):
            groups.setdefault(pair.network_size, []).append(place)
        predictions: dict[int, Prediction] = {}
        for places in groups.values():
            logits = self._logits([prepared[place] for place in places])
            for place, logit in zip(places, logits, strict=True):
                predictions[place] = self._decide(logit, prepared[place].size, probabilities)
        return [predictions[place] for place in range(len(prepared))]

    def _run_tiled(self, pair: Prepared, tiling: Tiling, probabilities: bool, batch_size: int) -> Prediction:
        """One pair in tiles; classes are taken as soon as the rows of an image are done."""
        rows = tiled_logits(pair, tiling, self._logits, batch_size)
        parts = [self._decide(part, (part.shape[1], part.shape[2]), probabilities) for part in rows]
        shares = [part.probabilities for part in parts if part.probabilities is not None]
        return Prediction(
            index=np.concatenate([part.index for part in parts]),
            classes=self.classes,
            probabilities=np.concatenate(shares, axis=1) if shares else None,
        )

    @torch.inference_mode()
    def _logits(self, pairs: Sequence[Prepared]) -> Tensor:
        """Logits (B, K, h, w) of pairs that have one network size."""
        rgb, thermal = as_tensors(pairs, self.device)
        with autocast(self.device, self.precision):
            logits: Tensor = self.model(rgb, thermal)
        return logits.float()

    def _decide(self, logit: Tensor, size: tuple[int, int], probabilities: bool) -> Prediction:
        """What one image shows, from its logits (K, h, w)."""
        return decide(logit, self.classes, size, probabilities)


def _of_exported(device: str, precision: Precision) -> str:
    """The device of an exported file: always the CPU."""
    if device not in ("auto", "cpu"):
        raise InputError(f"device {device!r}: exported files run on the CPU here; use --device cpu")
    if precision != "32":
        raise InputError(f"precision {precision!r}: that of an exported file was chosen when it was exported")
    return "cpu"
