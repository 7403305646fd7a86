"""The predictor: everything between images as users hold them and a label map of the same size."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Self

from efnet.core.devices import Precision, pick_device
from efnet.core.errors import InputError
from efnet.core.shipped import DEFAULT_WEIGHTS
from efnet.data.false_color import PREFIX, is_palette, palette_scale
from efnet.data.pairs import ThermalScale
from efnet.inference.engine import Engine
from efnet.inference.missing_cameras import spared
from efnet.inference.postprocess import Prediction
from efnet.inference.preprocess import ImageLike, Prepared
from efnet.inference.runtime import ExportedModel, Runtime, is_exported, load_exported
from efnet.models.base import SegmentationModel
from efnet.models.checkpoint import load_checkpoint


class Predictor(Engine):
    """Segments RGB-thermal pairs with a trained model.

    Four lines are enough::

        import efnet

        predictor = efnet.Predictor.from_pretrained()
        prediction = predictor("rgb.png", "thermal.png")
        prediction.color().save("classes.png")

    Images are resized to the size the model was made for (`model.input.size`; None: kept as they are),
    the thermal range is scaled as in training, and the logits are resized bilinearly to the image's
    own size before the class is taken. A thermal image of another resolution but the same aspect
    ratio (within 1 %) as its RGB image is resized onto it.

    `tiling`, `homography`, `missing` and the other attributes of `Preparation` may be set.

    Args:
        model: what `efnet.create_model` makes; it is moved to the device and set to evaluation mode.
        device: `auto` (CUDA, else CPU), `cpu`, `cuda` or `cuda:1`. An exported file runs where
            `load_exported` put it.
        precision: `32`, or `bf16` for autocast to bfloat16 (distances stay float32).

    Raises:
        InputError: an unknown or absent device, or an unknown precision.
        TypeError: not a model of this package.
    """

    model: SegmentationModel | ExportedModel

    def __init__(
        self, model: SegmentationModel | ExportedModel, device: str = "auto", precision: Precision = "32"
    ) -> None:
        if not isinstance(model, SegmentationModel | ExportedModel):
            raise TypeError(
                f"the model is a {type(model).__name__}; pass what efnet.create_model or load_checkpoint "
                "returns, or use Predictor.from_pretrained"
            )
        if isinstance(model, ExportedModel):
            if device not in ("auto", "cpu"):
                raise InputError(f"device {device!r}: an exported file gets its device when it is loaded")
            device = "cpu"  # of images and scores
        place = pick_device(device)
        super().__init__(model.to(place).eval(), model.classes, place, precision, model.input.size)
        self.thermal_scale = model.input.thermal_scale
        self._is_palette_given = False
        self.spared = spared(model.training_summary)

    def use_palette(self, palette: str) -> None:
        """Read thermal images in false colours: `auto`, the name of a colour map, or a file of one.

        Raises:
            InputError: no such map (`efnet.data.false_color.palette_scale`), or the network learned raw
                values of a fixed range, of which a colour says nothing.
        """
        self.thermal_scale = self._palette(palette_scale(palette))
        self._is_palette_given = True

    def scale_of(self, data: ThermalScale) -> ThermalScale:
        """Return how this network reads a data set whose own thermal scale is `data`.

        By the palette that `use_palette` was given, else by the data set's, else as the network learned.
        Raises InputError as `use_palette`.
        """
        if self._is_palette_given or not (isinstance(data, str) and is_palette(data)):
            return self.thermal_scale
        return self._palette(data)

    def _palette(self, scale: str) -> str:
        if not isinstance(self.thermal_scale, str):
            low, high = self.thermal_scale
            fault = f"the network learned thermal values from {low:g} to {high:g}, which colours do not give"
            name = scale.removeprefix(PREFIX)[:40]
            raise InputError(f"`thermal_palette` {name}: {fault}; give images with raw values")
        return scale

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | os.PathLike[str] = DEFAULT_WEIGHTS,
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
            path_or_hub_id: a local path, or `owner/name` on the hub; by default the weights that come with
                the package, for streets in the nine classes of MFNet.
            device: see the class, like `precision`.
            precision: see `device`.
            revision: branch, tag or commit of a hub repository; None: its main branch.
            token: for a private repository; None: that of the user's login.
            cache_dir: where fetched files are kept.
            local_files_only: take what was fetched before, and do not go to the network.
            runtime: runs an exported file; None: by its suffix.

        Raises:
            InputError: no checkpoint there, or one that does not load.
        """
        # `torch` runs checkpoints too.
        if is_exported(path_or_hub_id) or runtime not in (None, "torch"):
            return cls(load_exported(path_or_hub_id, runtime, device, precision), precision=precision)
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
            the label map at the size of `rgb`, or of `thermal` for a thermal-only model.

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

        Returns:
            one prediction per pair, in their order, equal to single calls up to rounding.

        Raises:
            InputError: as in a single call; the message names the pair by its number.
            TypeError: an entry is not a pair.
        """
        if batch_size < 1:
            raise InputError(f"`batch_size` {batch_size} is below 1")
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
