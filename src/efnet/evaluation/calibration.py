"""Calibration: whether a probability of 0.9 means right nine times in ten, and the temperature that helps.

- Expected calibration error (Naeini et al. 2015; Guo et al. 2017): pixels go into 15 bins of equal width by
  the probability of their class; ECE is the mean of |share right - mean probability| over the bins, weighted
  by pixels. Counted are pixels whose truth the protocol counts, at the scored size, over the whole split.
- Temperature (Guo et al. 2017): the number T > 0 for which softmax(logits / T) has the smallest mean negative
  log-likelihood (NLL). It never changes which class is largest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet.core.classes import IGNORE_INDEX
from efnet.core.distributed import Group
from efnet.core.errors import InputError
from efnet.data.pairs import Pair, PairSet
from efnet.evaluation.evaluate import evaluate
from efnet.evaluation.metrics import LabelMap
from efnet.evaluation.protocols import Protocol
from efnet.inference.engine import Engine

BINS = 15
PIXELS_PER_IMAGE = 4096
"""Pixels of an image that fit a temperature, at even steps over the counted ones."""

_LEAST = 1e-30  # keeps logarithms finite
_RANGE = (0.05, 20.0)  # of a temperature
_STEPS = 60  # halvings of the range of log T: to 1e-16 of it

Shares = NDArray[np.float32]


def scored(truth: LabelMap, protocol: Protocol) -> NDArray[np.bool_]:
    """Return which pixels of truth (H, W) count."""
    return ~np.isin(truth, (*protocol.ignored_truth, IGNORE_INDEX))


@dataclass
class Reliability:
    """Pixels, hits and probabilities by bin, and the NLL, over what was added."""

    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    right: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    confidence: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))  # sums
    loss: float = 0.0  # sum of the negative log-likelihood in nats

    def add(self, shares: NDArray[np.floating[Any]], truth: NDArray[np.integer[Any]]) -> None:
        """Count pixels with probabilities (K, n) and true classes (n,)."""
        top = shares.max(axis=0).astype(np.float64)
        hit = shares.argmax(axis=0) == truth
        # Bin b holds b / BINS < probability <= (b + 1) / BINS.
        bins = np.clip(np.ceil(top * BINS).astype(np.int64) - 1, 0, BINS - 1)
        self.pixels += np.bincount(bins, minlength=BINS)
        self.right += np.bincount(bins[hit], minlength=BINS)
        self.confidence += np.bincount(bins, weights=top, minlength=BINS)
        own = np.take_along_axis(shares, truth[None].astype(np.int64), axis=0)[0]
        self.loss -= float(np.log(np.maximum(own, _LEAST), dtype=np.float64).sum())

    def probe(self, protocol: Protocol) -> Callable[[Pair, Shares, LabelMap], None]:
        """Return the function that `evaluate` calls with the probabilities (K, H, W) of each pair."""

        def add(_: Pair, shares: Shares, truth: LabelMap) -> None:
            kept = scored(truth, protocol)
            self.add(shares[:, kept], truth[kept])

        return add

    def gathered(self, group: Group) -> Reliability:
        """Return the sum over all processes; every process must call this."""
        parts = group.gather(self)
        return Reliability(
            sum((part.pixels for part in parts), np.zeros(BINS, np.int64)),
            sum((part.right for part in parts), np.zeros(BINS, np.int64)),
            sum((part.confidence for part in parts), np.zeros(BINS)),
            sum(part.loss for part in parts),
        )

    @property
    def error(self) -> float | None:
        """Expected calibration error, a fraction; None without a pixel."""
        total = int(self.pixels.sum())
        return float(np.abs(self.right - self.confidence).sum() / total) if total else None

    def to_dict(self, temperature: float) -> dict[str, Any]:
        """Return the values of a report."""
        total = int(self.pixels.sum())
        mean = [
            (None, None) if not count else (float(right / count), float(confidence / count))
            for count, right, confidence in zip(self.pixels, self.right, self.confidence, strict=True)
        ]
        return {
            "ece": self.error,
            "nll": self.loss / total if total else None,
            "temperature": temperature,
            "pixels": total,
            "bins": [
                {"from": number / BINS, "to": (number + 1) / BINS, "pixels": int(count)}
                | {"accuracy": accuracy, "confidence": confidence}
                for number, (count, (accuracy, confidence)) in enumerate(zip(self.pixels, mean, strict=True))
            ],
        }


@dataclass(frozen=True)
class Fit:
    """A fitted temperature, with what it changes on the pixels that it was fitted on."""

    temperature: float
    pixels: int
    before: Reliability  # at temperature 1
    after: Reliability


def fit_temperature(
    engine: Engine,
    pairs: PairSet,
    protocol: Protocol,
    *,
    batch_size: int = 1,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Fit:
    """Fit the temperature of a network on a split, whatever temperature it has now.

    Up to 4096 counted pixels of each image take part, at even steps. Raises InputError: what `evaluate`
    refuses, or a likelihood that keeps rising to the end of the range 0.05 to 20.
    """
    logits: list[NDArray[np.float32]] = []
    truths: list[NDArray[np.int64]] = []

    def keep(_: Pair, shares: Shares, truth: LabelMap) -> None:
        places = np.flatnonzero(scored(truth, protocol))
        places = places[:: max(1, -(-len(places) // PIXELS_PER_IMAGE))]
        chosen = shares.reshape(len(shares), -1)[:, places]
        logits.append(np.log(np.maximum(chosen, _LEAST)))
        truths.append(truth.ravel()[places].astype(np.int64))

    held, engine.temperature = engine.temperature, 1.0
    try:
        evaluate(
            engine, pairs, protocol, batch_size=batch_size, workers=workers, progress=progress, probe=keep
        )
    finally:
        engine.temperature = held
    scores, truth = np.concatenate(logits, axis=1), np.concatenate(truths)
    if not len(truth):
        raise InputError(f"{pairs.root}: no pixel of {pairs.split} counts under protocol {protocol.name}")
    temperature = best_temperature(scores, truth)
    return Fit(temperature, len(truth), _binned(scores, truth, 1.0), _binned(scores, truth, temperature))


def best_temperature(logits: NDArray[np.floating[Any]], truth: NDArray[np.integer[Any]]) -> float:
    """Return the temperature with the smallest mean NLL of logits (K, n) and true classes (n,).

    The NLL is convex in 1 / T, so its slope has one zero, which halving the range of log T finds. Raises
    InputError if that lies outside 0.05 to 20: all pixels are right, or the scores say nothing.
    """
    own = np.take_along_axis(logits, truth[None].astype(np.int64), axis=0)[0].astype(np.float64).mean()

    def slope(scale: float) -> float:
        """Derivative of the NLL by 1 / T."""
        expected = (tempered(logits, 1.0 / scale) * logits).sum(axis=0, dtype=np.float64).mean()
        return float(expected - own)

    low, high = (float(np.log(1.0 / bound)) for bound in reversed(_RANGE))  # of log(1 / T)
    if slope(np.exp(low)) >= 0 or slope(np.exp(high)) <= 0:
        raise InputError(
            f"no temperature from {_RANGE[0]:g} to {_RANGE[1]:g} fits best: on these pairs the network is "
            "always right, or its scores do not help; choose a split it was not trained on"
        )
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if slope(np.exp(middle)) < 0:
            low = middle
        else:
            high = middle
    return float(np.exp(-(low + high) / 2))


def tempered(logits: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.floating[Any]]:
    """Return softmax(logits / T) over the first axis of (K, n)."""
    powers = np.exp((logits - logits.max(axis=0)) / temperature)
    shares: NDArray[np.floating[Any]] = powers / powers.sum(axis=0)
    return shares


def _binned(logits: NDArray[np.float32], truth: NDArray[np.int64], temperature: float) -> Reliability:
    reliability = Reliability()
    reliability.add(tempered(logits, temperature), truth)
    return reliability
