"""The pictures of one gallery pair, as data URIs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from efnet.classes import ClassSet
from efnet.evaluation.protocols import Protocol
from efnet.evaluation.sheet import SheetRow, error_panel
from efnet.page import data_uri
from efnet.prediction.render import index_image, overlay_image, thermal_pixels

if TYPE_CHECKING:
    from efnet.demo.report import GallerySample


@dataclass(frozen=True)
class Panel:
    """A picture with its caption and its alternative text ("<alt> of pair x")."""

    caption: str
    alt: str
    data_uri: str


def panels(sample: GallerySample, classes: ClassSet, protocol: Protocol) -> list[Panel]:
    """RGB, thermal, overlay, prediction, truth and errors of a pair."""
    row = SheetRow(sample.name, sample.rgb, sample.thermal, sample.prediction, sample.truth)
    overlay = overlay_image(sample.rgb, sample.prediction, classes, opacity=0.6)
    errors = Image.fromarray(error_panel(row, protocol))
    return [
        Panel("RGB", "RGB image", data_uri(Image.fromarray(sample.rgb))),
        Panel("thermal", "Thermal image", data_uri(Image.fromarray(thermal_pixels(sample.thermal)))),
        Panel("overlay", "Prediction laid over the RGB image", data_uri(overlay)),
        Panel("prediction", "Predicted classes", data_uri(index_image(sample.prediction, classes))),
        Panel("truth", "True classes", data_uri(index_image(sample.truth, classes))),
        Panel("errors", "Wrong pixels in red", data_uri(errors)),
    ]
