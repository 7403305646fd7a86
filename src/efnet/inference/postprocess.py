"""Postprocessing: a label map with its meaning, and the pictures, figures and files made from it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.core.files import replacing, write_image


def thermal_pixels(thermal: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The scaled thermal image (H, W), values in [0, 1], as grey pixels (H, W, 3)."""
    grey = np.rint(np.clip(thermal, 0.0, 1.0) * 255.0).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


OUTPUTS = ("index", "color", "overlay", "probabilities")
"""Outputs that `Prediction.save` can write, each to a folder of that name."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The label map of one pair, at the size of the input image.

    Attributes:
        index: class of every pixel, uint8 (H, W), values 0..K-1.
        classes: names and colours of the K classes.
        probabilities: float32 (K, H, W), summing to one over the classes; None unless asked for.
    """

    index: NDArray[np.uint8]
    classes: ClassSet
    probabilities: NDArray[np.float32] | None = None

    @property
    def confidence(self) -> NDArray[np.float32]:
        """Probability of the predicted class, float32 (H, W).

        Raises:
            InputError: the prediction was made without probabilities.
        """
        confidence: NDArray[np.float32] = self._probabilities().max(axis=0)
        return confidence

    def shares(self) -> dict[str, float]:
        """Fraction of the pixels that each class covers; the values sum to one."""
        counts = np.bincount(self.index.ravel(), minlength=len(self.classes))
        return {name: float(counts[k]) / self.index.size for k, name in enumerate(self.classes.names)}

    def indexed(self) -> Image.Image:
        """The label map as a palette image whose pixel values are the class indices.

        Viewers show it in class colours, and readers that know palettes get the indices back unchanged.
        """
        image = Image.fromarray(np.ascontiguousarray(self.index, dtype=np.uint8))
        image.putpalette(self.classes.flat_palette())
        return image

    def color(self) -> Image.Image:
        """The label map in class colours, RGB."""
        return Image.fromarray(self.classes.colorize(self.index))

    def overlay(self, rgb: Image.Image | NDArray[np.uint8], opacity: float = 0.5) -> Image.Image:
        """Lay the class colours over the image that was predicted.

        A class whose colour is black (the unlabeled or background class of every supported data set) is
        left untinted: veiling most of the picture in black would hide what the picture is for.

        Args:
            rgb: the image, PIL or uint8 (H, W, 3), of the prediction's size.
            opacity: weight of the class colour, 0 (image alone) to 1 (colour alone).

        Raises:
            InputError: the sizes differ or the opacity lies outside 0..1.
        """
        pixels = np.asarray(rgb.convert("RGB")) if isinstance(rgb, Image.Image) else rgb
        if not 0.0 <= opacity <= 1.0:
            raise InputError(f"opacity {opacity} is not between 0 and 1")
        if pixels.shape != (*self.index.shape, 3):
            image, own = (f"{array.shape[1]}x{array.shape[0]}" for array in (pixels, self.index))
            raise InputError(
                f"the image is {image} but the prediction {own} (width x height); pass the image that was "
                "predicted"
            )
        # A 256-entry table in fixed point: one lookup and one integer blend, no float image in between.
        weight = np.full(256, round(opacity * 256), dtype=np.uint16)
        for value, color in enumerate(self.classes.palette):
            if color == (0, 0, 0):
                weight[value] = 0
        share = weight[self.index][..., None]
        blended = (pixels * (256 - share) + self.classes.colorize(self.index) * share + 128) >> 8
        return Image.fromarray(blended.astype(np.uint8))

    def save(
        self,
        folder: str | os.PathLike[str],
        name: str,
        outputs: Sequence[str] = ("index", "color"),
        rgb: Image.Image | NDArray[np.uint8] | None = None,
        opacity: float = 0.5,
    ) -> list[Path]:
        """Write the prediction below `folder`, one sub-folder per kind of output.

        Args:
            folder: made if absent.
            name: file name without suffix; it may contain folders ("drive1/00042").
            outputs: any of `index` (palette PNG holding class indices), `color`, `overlay` (PNG), and
                `probabilities` (`.npy`, float16 (K, H, W)).
            rgb: the image, needed for `overlay`.
            opacity: weight of the class colours in the overlay.

        Returns:
            the files, in the order of `outputs`.

        Raises:
            InputError: an unknown output, `overlay` without an image, `probabilities` of a prediction
                made without them, or a folder that cannot be written.
        """
        paths = output_paths(folder, name, outputs)
        for output, path in zip(outputs, paths, strict=True):
            if output == "probabilities":
                with replacing(path) as temporary:
                    np.save(temporary, self._probabilities().astype(np.float16))
            elif output == "overlay":
                if rgb is None:
                    raise InputError("an overlay needs the RGB image: pass rgb=...")
                write_image(path, self.overlay(rgb, opacity))
            else:
                write_image(path, self.indexed() if output == "index" else self.color())
        return paths

    def _probabilities(self) -> NDArray[np.float32]:
        if self.probabilities is None:
            raise InputError("this prediction has no probabilities; predict with probabilities=True")
        return self.probabilities


def output_paths(folder: str | os.PathLike[str], name: str, outputs: Sequence[str]) -> list[Path]:
    """Return where `Prediction.save` writes each of `outputs`; raises InputError for an unknown one."""
    unknown = [output for output in outputs if output not in OUTPUTS]
    if unknown:
        raise InputError(f"unknown output {', '.join(unknown)}; choose from {', '.join(OUTPUTS)}")
    suffixes = ((output, "npy" if output == "probabilities" else "png") for output in outputs)
    # Not Path.with_suffix: a stem may hold dots ("frame.0001").
    return [Path(folder) / output / f"{name}.{suffix}" for output, suffix in suffixes]
