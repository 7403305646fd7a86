"""From a prediction to what a client asked for: JSON with a mask inside, a mask, or an overlay."""

from __future__ import annotations

import base64
import io
import time
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efnet.inference.postprocess import Prediction, thermal_pixels
from efnet.inference.preprocess import Prepared
from efnet.service.batcher import Outcome
from efnet.service.schemas import ClassShare, Encoded, Runs, Segmentation, Size, Timing, Views

Format = Literal["json", "png", "overlay"]
MaskChoice = Literal["png", "runs", "both", "none"]
ConfidenceChoice = Literal["none", "png", "deflate"]

_MEDIA_TYPES: dict[str, Format] = {"application/json": "json", "image/png": "png", "*/*": "json"}


@dataclass(frozen=True)
class Wanted:
    """What a client asked for; see the parameters of `POST /v1/segment`."""

    format: Format = "json"
    mask: MaskChoice = "png"
    confidence: ConfidenceChoice = "none"
    probabilities: bool = False
    views: bool = False
    opacity: float = 0.5

    @property
    def needs_probabilities(self) -> bool:
        """Whether the network's probabilities are needed at all."""
        return self.format == "json" and (self.probabilities or self.confidence != "none")


@dataclass
class Clock:
    """Moments of one request, in seconds of `time.monotonic`."""

    arrived: float
    uploaded: float = 0.0
    decoded: float = 0.0

    def timing(self, outcome: Outcome, encoding_since: float) -> Timing:
        """Spans in milliseconds, up to now."""
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
    """A finished answer: its body, its type, and where the time went."""

    content: bytes
    media_type: str
    timing: Timing


def format_of(accept: str) -> Format:
    """The format that an Accept header prefers; JSON where it names nothing that we have.

    Of equal weights the first counts, as does a named type before `*/*`.
    """
    best: tuple[float, Format] = (0.0, "json")
    for entry in accept.lower().split(","):
        kind, _, parameters = entry.strip().partition(";")
        weight = _weight(parameters) - (0.0001 if kind.strip() == "*/*" else 0.0)
        if kind.strip() in _MEDIA_TYPES and weight > best[0]:
            best = (weight, _MEDIA_TYPES[kind.strip()])
    return best[1]


def compose(
    name: str,
    prepared: Prepared,
    heat: NDArray[np.float32] | None,
    outcome: Outcome,
    wanted: Wanted,
    clock: Clock,
) -> Answer:
    """Encode one answer; heavy enough for a thread.

    Args:
        name: of the model.
        prepared: the pair.
        heat: thermal image (H, W) in [0, 1] for views; None where there is none or no view is wanted.
        outcome: what became of it.
        wanted: what was asked for.
        clock: when things happened.
    """
    started = time.monotonic()
    prediction = outcome.prediction
    if wanted.format == "png":
        content = _png(prediction.indexed())
    elif wanted.format == "overlay":
        content = _png(prediction.overlay(prepared.original, wanted.opacity))
    else:
        answer = _segmentation(name, prepared, heat, outcome, wanted)
        answer.timing = clock.timing(outcome, started)
        return Answer(answer.model_dump_json().encode(), "application/json", answer.timing)
    return Answer(content, "image/png", clock.timing(outcome, started))


def runs_of(index: NDArray[np.uint8]) -> Runs:
    """Runs of equal pixels of a label map (H, W), row by row; runs go on over the end of a row."""
    flat = index.ravel()
    starts = np.concatenate(([0], np.flatnonzero(np.diff(flat)) + 1))
    lengths = np.diff(np.append(starts, flat.size))
    return Runs(values=flat[starts].tolist(), lengths=lengths.tolist())


def shares_of(prediction: Prediction, probabilities: bool) -> list[ClassShare]:
    """What each class covers, and how sure the network is of it, if asked."""
    counts = np.bincount(prediction.index.ravel(), minlength=len(prediction.classes))
    shares = [
        ClassShare(
            index=k,
            name=name,
            color=color,
            pixels=int(counts[k]),
            share=int(counts[k]) / prediction.index.size,
        )
        for k, (name, color) in enumerate(
            zip(prediction.classes.names, prediction.classes.palette, strict=True)
        )
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


def _segmentation(
    name: str,
    prepared: Prepared,
    heat: NDArray[np.float32] | None,
    outcome: Outcome,
    wanted: Wanted,
) -> Segmentation:
    prediction = outcome.prediction
    height, width = prediction.index.shape
    return Segmentation(
        model=name,
        size=Size(height=height, width=width),
        classes=shares_of(prediction, wanted.probabilities),
        mask=_encoded(prediction.indexed()) if wanted.mask in ("png", "both") else None,
        runs=runs_of(prediction.index) if wanted.mask in ("runs", "both") else None,
        confidence=_confidence(prediction, wanted.confidence),
        views=_views(prepared, heat) if wanted.views else None,
        batch=outcome.batch,
        timing=Timing(upload_ms=0, decode_ms=0, queue_ms=0, network_ms=0, encode_ms=0, total_ms=0),
    )


def _confidence(prediction: Prediction, choice: ConfidenceChoice) -> Encoded | None:
    if choice == "none":
        return None
    levels = np.rint(prediction.confidence * 255.0).astype(np.uint8)
    if choice == "png":
        return _encoded(Image.fromarray(levels))
    return Encoded(encoding="deflate", data=_base64(zlib.compress(levels.tobytes(), 6)))


def _views(prepared: Prepared, heat: NDArray[np.float32] | None) -> Views:
    rgb = None if prepared.rgb is None else _encoded(Image.fromarray(prepared.original), "JPEG")
    thermal = None if heat is None else _encoded(Image.fromarray(thermal_pixels(heat)[..., 0]), "JPEG")
    return Views(rgb=rgb, thermal=thermal)


def _encoded(image: Image.Image, kind: Literal["PNG", "JPEG"] = "PNG") -> Encoded:
    if kind == "PNG":
        return Encoded(encoding="png", data=_base64(_png(image)))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return Encoded(encoding="jpeg", data=_base64(buffer.getvalue()))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _weight(parameters: str) -> float:
    """The q of an Accept entry."""
    for parameter in parameters.split(";"):
        key, _, value = parameter.strip().partition("=")
        if key == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
