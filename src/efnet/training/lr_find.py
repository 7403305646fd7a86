"""The learning-rate range test (arXiv 1506.01186): a short run whose rate rises with every step."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from efnet.core.errors import InputError
from efnet.core.progress import Progress, no_progress
from efnet.reporting.plots import figure_class
from efnet.reporting.svg import line_chart, standalone
from efnet.training.config import TrainConfig
from efnet.training.launch import prepare_trainer
from efnet.training.logs import Reporter
from efnet.training.sampler import make_loader
from efnet.training.step import balance_classes

_DIVERGED = 4.0  # times the lowest smoothed loss: further steps teach nothing
_LEAST = 10  # points that a suggestion needs


@dataclass(frozen=True)
class RateCurve:
    """Loss against learning rate, and the rate that it suggests."""

    rates: tuple[float, ...]  # of the steps, rising by a constant factor
    losses: tuple[float, ...]  # of the batches
    smoothed: tuple[float, ...]  # exponential average of the losses, bias-corrected
    suggestion: float  # the rate in the middle of the longest fall
    fall: tuple[float, float]  # rates between which the smoothed loss falls longest
    diverged: bool  # whether the loss rose far above its minimum within the range

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def find_rate(
    config: TrainConfig,
    steps: int = 100,
    low: float = 1e-6,
    high: float = 1.0,
    smoothing: float = 0.9,
    progress: Progress = no_progress,
) -> RateCurve:
    """Train for `steps` steps whose base rate rises from `low` to `high`, and suggest a rate.

    The steps are those of a run of this configuration, without warm-up and decay; nothing is written. They
    end early where the loss diverges. `smoothing` is the share of the average that a step keeps.

    Raises:
        InputError: a wrong range, errors as of `train`, or too few finite losses for a suggestion.
    """
    if steps < _LEAST:
        raise InputError(f"`steps` {steps}: give {_LEAST} or more")
    if not 0 < low < high < math.inf:
        raise InputError(f"`low` {low:g} and `high` {high:g}: give two positive rates, the lower one first")
    if not 0 <= smoothing < 1:
        raise InputError(f"`smoothing` {smoothing:g}: give a share from 0, below 1")
    trainer = prepare_trainer(config, Reporter(quiet=True))
    learner = trainer.learner
    balance_classes(trainer.config, trainer.train_set, trainer.dataset, learner)
    factor = (high / low) ** (1 / (steps - 1))
    learner.schedule = lambda step: low * factor**step
    loader = make_loader(trainer.dataset, trainer.order, config.data.workers, learner.fabric.device)
    rates: list[float] = []
    losses: list[float] = []
    epoch = 0
    learner.model.train()
    while len(losses) < steps:
        trainer.order.set_epoch(epoch)
        trainer.dataset.set_epoch(epoch)
        for batch in loader:
            if isinstance(batch, InputError):
                raise batch
            number = len(losses)
            rates.append(learner.rate(number))
            losses.append(learner.step(batch, number).loss)
            progress(len(losses), steps)
            if len(losses) == steps or _is_over(losses, smoothing):
                return suggest(rates, losses, smoothing)
        epoch += 1
    return suggest(rates, losses, smoothing)


def smooth(losses: list[float], share: float) -> list[float]:
    """Return the bias-corrected exponential average, of which each step keeps `share`."""
    average, smoothed = 0.0, []
    for number, loss in enumerate(losses, 1):
        average = share * average + (1 - share) * loss
        smoothed.append(average / (1 - share**number))
    return smoothed


def _is_over(losses: list[float], share: float) -> bool:
    """Whether the loss is not finite, or the smoothed one far above its minimum."""
    if not math.isfinite(losses[-1]):
        return True
    smoothed = smooth(losses, share)
    return len(losses) > _LEAST and smoothed[-1] > _DIVERGED * min(smoothed)


def suggest(rates: list[float], losses: list[float], share: float) -> RateCurve:
    """Suggest the rate in the middle of the longest fall of the smoothed loss.

    The longest fall is the longest falling subsequence: single rises within do not end it. Its middle is far
    from the rates that teach little and from those at which training diverges. Raises InputError for fewer
    than ten finite losses, or a fall over fewer than a quarter of the steps.
    """
    finite = next((place for place, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    if finite < _LEAST:
        raise InputError(
            f"only {finite} steps have a finite loss; give a lower `low`, or more `steps` between both"
        )
    smoothed = smooth(losses[:finite], share)
    fall = longest_fall(smoothed)
    if len(fall) < finite // 4:
        raise InputError(
            "the loss does not fall in this range; give a lower `low`, more `steps`, or look at the data"
        )
    diverged = finite < len(losses) or smoothed[-1] > _DIVERGED * min(smoothed)
    return RateCurve(
        tuple(rates[:finite]),
        tuple(losses[:finite]),
        tuple(smoothed),
        suggestion=rates[(fall[0] + fall[-1]) // 2],
        fall=(rates[fall[0]], rates[fall[-1]]),
        diverged=diverged,
    )


def longest_fall(values: list[float]) -> list[int]:
    """Return the places of the longest strictly falling subsequence; the first one of several."""
    lengths, before = [1] * len(values), [-1] * len(values)
    for place, value in enumerate(values):
        for earlier in range(place):
            if values[earlier] > value and lengths[earlier] >= lengths[place]:
                lengths[place], before[place] = lengths[earlier] + 1, earlier
    place = lengths.index(max(lengths))
    places = []
    while place >= 0:
        places.append(place)
        place = before[place]
    return places[::-1]


def draw_svg(curve: RateCurve, title: str) -> str:
    """Return the smoothed loss over the power of ten of the rate, with the suggestion, as an SVG file."""
    points = [(math.log10(rate), loss) for rate, loss in zip(curve.rates, curve.smoothed, strict=True)]
    chart = line_chart(
        points,
        title=title,
        x_label="learning rate, power of ten",
        y_label="loss",
        mark=(math.log10(curve.suggestion), f"{curve.suggestion:.2g}"),
    )
    return standalone(chart)


def draw_plot(curve: RateCurve, path: str, title: str) -> None:
    """Draw the same with the single losses to a PNG; errors as `figure_class`."""
    figure = figure_class()(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, color="0.8", label="batches")
    axes.plot(curve.rates, curve.smoothed, label="smoothed")
    axes.axvline(curve.suggestion, linestyle=":", color="black", label=f"suggested: {curve.suggestion:.2g}")
    axes.set_xscale("log")
    low, high = min(curve.smoothed), curve.smoothed[0]
    axes.set_ylim(low - 0.1 * (high - low), high + 0.5 * (high - low))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.set_title(title, fontsize=10)
    axes.legend()
    figure.savefig(path, format="png")
