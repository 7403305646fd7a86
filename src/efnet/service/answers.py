"""Encode a prediction as the client asked: JSON with a mask inside, a mask alone, or an overlay."""

from __future__ import annotations

import base64
import time
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efnet.inference.postprocess import Prediction, thermal_pixels
from efnet.inference.preprocess import Prepared
from efnet.reporting.html import image_bytes
from efnet.service import schemas
from efnet.service.batcher import Outcome
from efnet.service.schemas import Encoded, Format, Timing, Wanted

_MEDIA_TYPES: dict[str, Format] = {"application/json": "json", "image/png": "png", "*/*": "json"}


@dataclass
class Clock:
    """Times of one request, in seconds of `time.monotonic`."""

    arrived: float
    uploaded: float = 0.0
    decoded: float = 0.0

    def timing(self, outcome: Outcome, encoding_since: float) -> Timing:
        """Return the spans in milliseconds, up to now."""
        now = time.monotonic()
        spans = {
            "upload_ms": self.uploaded - self.arrived,
            "decode_ms": self.decoded - self.uploaded,
            "queue_ms": outcome.queue_seconds,
            "network_ms": outcome.network_seconds,
            "encode_ms": now - encoding_since,
            "total_ms": now - self.arrived,
        }
        return Timing(**{name: round(1000 * seconds, 2) for name, seconds in spans.items()})


@dataclass(frozen=True)
class Answer:
    """A response body, its media type, and the time that each step took."""

    content: bytes
    media_type: str
    timing: Timing


def format_of(accept: str) -> Format:
    """Return the format that an Accept header prefers; JSON if it names none of ours.

    Among equal weights the first wins, and a named type wins over `*/*`.
    """
    best: tuple[float, Format] = (0.0, "json")
    for entry in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        try:
            weight = float(next((part[2:] for part in parameters if part.startswith("q=")), 1.0))
        except ValueError:
            weight = 0.0
        weight -= 0.0001 if kind == "*/*" else 0.0
        if kind in _MEDIA_TYPES and weight > best[0]:
            best = (weight, _MEDIA_TYPES[kind])
    return best[1]


def compose(
    name: str,
    prepared: Prepared,
    heat: NDArray[np.float32] | None,
    outcome: Outcome,
    wanted: Wanted,
    clock: Clock,
) -> Answer:
    """Encode one answer of the model `name`; heavy enough for a thread.

    `heat` is the thermal image (H, W) in [0, 1] for views; None without one, or if no view is wanted.
    """
    started = time.monotonic()
    prediction = outcome.prediction
    if wanted.format != "json":
        overlay = wanted.format == "overlay"
        image = prediction.overlay(prepared.original, wanted.opacity) if overlay else prediction.indexed()
        return Answer(image_bytes(image, "PNG"), "image/png", clock.timing(outcome, started))
    height, width = prediction.index.shape
    answer = schemas.Segmentation(
        model=name,
        size=schemas.Size(height=height, width=width),
        classes=shares_of(prediction, wanted.probabilities),
        mask=_encoded(prediction.indexed()) if wanted.mask in ("png", "both") else None,
        runs=runs_of(prediction.index) if wanted.mask in ("runs", "both") else None,
        confidence=_confidence(prediction, wanted.confidence),
        views=_views(prepared, heat) if wanted.views else None,
        batch=outcome.batch,
        timing=clock.timing(outcome, started),  # last: the parts above are encoded by now
    )
    return Answer(answer.model_dump_json().encode(), "application/json", answer.timing)


def runs_of(index: NDArray[np.uint8]) -> schemas.Runs:
    """Return runs of equal pixels of a label map (H, W), row by row; a run may cross the end of a row."""
    flat = index.ravel()
    starts = np.concatenate(([0], np.flatnonzero(np.diff(flat)) + 1))
    lengths = np.diff(np.append(starts, flat.size))
    return schemas.Runs(values=flat[starts].tolist(), lengths=lengths.tolist())


def shares_of(prediction: Prediction, probabilities: bool) -> list[schemas.ClassShare]:
    """Return the share of each class and, with `probabilities`, its mean probability and confidence."""
    counts = np.bincount(prediction.index.ravel(), minlength=len(prediction.classes))
    shares = [
        schemas.ClassShare(
            index=k,
            name=name,
            color=prediction.classes.palette[k],
            pixels=int(counts[k]),
            share=int(counts[k]) / prediction.index.size,
        )
        for k, name in enumerate(prediction.classes.names)
    ]
    if probabilities and prediction.probabilities is not None:
        sums = np.bincount(
            prediction.index.ravel(), weights=prediction.confidence.ravel(), minlength=len(shares)
        )
        means = prediction.probabilities.mean(axis=(1, 2), dtype=np.float64)
        for share in shares:
            share.mean_probability = float(means[share.index])
            share.mean_confidence = float(sums[share.index]) / share.pixels if share.pixels else None
    return shares


def _confidence(prediction: Prediction, choice: schemas.ConfidenceChoice) -> Encoded | None:
    if choice == "none":
        return None
    levels = np.rint(prediction.confidence * 255.0).astype(np.uint8)
    if choice == "png":
        return _encoded(Image.fromarray(levels))
    return Encoded(encoding="deflate", data=_base64(zlib.compress(levels.tobytes(), 6)))


def _views(prepared: Prepared, heat: NDArray[np.float32] | None) -> schemas.Views:
    rgb = None if prepared.rgb is None else _encoded(Image.fromarray(prepared.original), "JPEG")
    thermal = None if heat is None else _encoded(Image.fromarray(thermal_pixels(heat)[..., 0]), "JPEG")
    return schemas.Views(rgb=rgb, thermal=thermal)


def _encoded(image: Image.Image, kind: Literal["PNG", "JPEG"] = "PNG") -> Encoded:
    if kind == "PNG":
        return Encoded(encoding="png", data=_base64(image_bytes(image, kind)))
    return Encoded(encoding="jpeg", data=_base64(image_bytes(image, kind, quality=88)))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
