"""Generated pairs to try the page with; rendered when first asked for, kept in memory."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image

from efnet.data.pairs import Condition
from efnet.data.synthesize import render
from efnet.prediction.render import thermal_pixels
from efnet.service.schemas import ExampleInfo

ImageKind = Literal["rgb", "thermal", "thumbnail"]

SUFFIXES: dict[ImageKind, str] = {"rgb": "png", "thermal": "png", "thumbnail": "jpg"}
SIZE = (480, 640)
THUMBNAIL = (144, 192)
"""Left half colour, right half thermal."""


@dataclass(frozen=True)
class Example:
    """A scene of `efnet.data.synthesize`."""

    title: str
    seed: int
    condition: Condition

    def describe(self, name: str) -> ExampleInfo:
        """As `GET /v1/examples` lists it."""
        files = {kind: f"v1/examples/{name}/{kind}.{suffix}" for kind, suffix in SUFFIXES.items()}
        return ExampleInfo(name=name, title=self.title, **files)


EXAMPLES = {
    "day": Example("A street by day", 20, "day"),
    "night": Example("The same street by night", 20, "night"),
    "dark": Example("People in the dark", 28, "night"),
}


@lru_cache(maxsize=3 * len(EXAMPLES))
def example_image(name: str, kind: ImageKind) -> bytes:
    """One image of an example: PNG, the thumbnail JPEG.

    Raises:
        KeyError: there is no example of that name.
    """
    example = EXAMPLES[name]
    sample = render(example.seed, SIZE, example.condition)
    heat = thermal_pixels(sample.thermal)
    buffer = io.BytesIO()
    if kind == "thumbnail":
        half = SIZE[1] // 2
        both = Image.fromarray(np.concatenate([sample.rgb[:, :half], heat[:, half:]], axis=1))
        both.resize(THUMBNAIL[::-1], Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=85)
    else:
        Image.fromarray(sample.rgb if kind == "rgb" else heat[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()
