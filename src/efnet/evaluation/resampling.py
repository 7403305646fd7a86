"""How far a figure would move with other images: bootstrap intervals, paired differences, permutation tests.

A figure of a split is a function of sums over its images, so a resampled split is a weighted sum. An image is
reduced to three sums per class, (3, K): pixels right, pixels of truth, pixels predicted, all after what the
protocol ignores. M runs (seeds) of one network have (M, N, 3, K); their figure is the mean over the runs.

- Interval: percentile bootstrap (Efron 1979) over images, or over groups of images such as drives. A paired
  difference draws the same images for both networks.
- Test: the labels of the two networks are swapped image by image (or group by group) at random, which under
  the null hypothesis changes nothing. p counts the swaps whose difference is at least the observed one
  (two-sided); all swaps are enumerated where there are fewer of them than resamples.

Neither covers the choice of the training seed. Sums are whole numbers and drawn indices are integers, so the
same seed gives the same interval on every processor up to the rounding of one division and one mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from efnet.core.errors import InputError
from efnet.evaluation.metrics import PairCounts, counted
from efnet.evaluation.protocols import Protocol

Floats = NDArray[np.float64]
Kind = Literal["iou", "acc"]

_CHUNK = 2_000_000  # drawn numbers at once: bounds the memory


@dataclass(frozen=True)
class Resampling:
    """How to resample.

    Raises:
        InputError: a level outside 0..1 or fewer than 100 resamples.
    """

    level: float = 0.95  # of the intervals
    resamples: int = 10_000
    seed: int = 0
    groups: Mapping[str, str] | None = None  # pair name to its group; None: every image by itself

    def __post_init__(self) -> None:
        if not 0.5 <= self.level < 1.0:
            raise InputError(f"`level` {self.level}: give a share from 0.5 to below 1, such as 0.95")
        if self.resamples < 100:
            raise InputError(f"`resamples` {self.resamples}: give 100 or more")

    def units(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the number of the unit that each image belongs to, (N,), from 0 in order of appearance."""
        keys = names if self.groups is None else [self.groups[name] for name in names]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        return np.array([numbers[key] for key in keys], dtype=np.int64)

    def describe(self) -> dict[str, object]:
        """Return the settings for a report."""
        return {
            "level": self.level,
            "resamples": self.resamples,
            "seed": self.seed,
            "method": "percentile bootstrap",
            "unit": "image" if self.groups is None else "group",
        }


def read_groups(text: str, names: Sequence[str]) -> dict[str, str]:
    """Assign images to groups by a file or by a pattern.

    `text` is a file whose lines are `name,group`, or else a regular expression: the group is what its first
    group, or else the whole expression, matches in the name. Returns a group for each of `names`. Raises
    InputError: an unreadable file or expression, names without a group, or fewer than two groups.
    """
    path = Path(text)
    if path.is_file():
        found = _read_group_file(path)
        remedy = "add a line `name,group` for each"
    else:
        pattern = group_pattern(text)
        matches = {name: pattern.search(name) for name in names}
        found = {
            name: (match[1] or "") if pattern.groups else match[0] for name, match in matches.items() if match
        }
        remedy = "the expression has to match every name"
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(
            f"`groups` {text}: {len(missing)} of {len(names)} pairs have no group (first: {missing[0]}); "
            f"{remedy}"
        )
    groups = {name: found[name] for name in names}
    if len(set(groups.values())) < 2:
        raise InputError(f"`groups` {text}: all pairs are in one group; there is nothing to resample")
    return groups


def group_pattern(text: str) -> re.Pattern[str]:
    """Compile the expression that finds a group in a name; raises InputError for a wrong one."""
    try:
        return re.compile(text)
    except re.error as error:
        raise InputError(
            f"`groups` {text}: neither a file nor a regular expression ({error}); give a file with lines "
            r"name,group or an expression such as ^(\d{3})"
        ) from error


def _read_group_file(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, comma, group = (part.strip() for part in line.partition(","))
        if not comma or not name or not group:
            raise InputError(f"{path}, line {number}: write name,group, such as 00105D,drive1")
        if found.setdefault(name, group) != group:
            raise InputError(f"{path}, line {number}: {name} is in {found[name]} already; keep one line")
    return found


def region_sums(pairs: Sequence[PairCounts], protocol: Protocol) -> Floats:
    """Return what IoU and recall need of each image, (N, 3, K): right, truth, predicted."""
    kept = np.stack([counted(entry.counts, protocol) for entry in pairs]).astype(np.float64)
    return np.stack([np.diagonal(kept, axis1=1, axis2=2), kept.sum(axis=2), kept.sum(axis=1)], axis=1)


def boundary_sums(pairs: Sequence[PairCounts]) -> Floats | None:
    """Return the same of boundary IoU, (N, 3, K); None where an image was not counted so."""
    counts = [entry.boundary for entry in pairs if entry.boundary is not None]
    return np.stack(counts).astype(np.float64) if counts and len(counts) == len(pairs) else None


def figures(sums: Floats, protocol: Protocol, kind: Kind = "iou") -> Floats:
    """Return the mean and the value of each class, (..., 1 + K), of sums (..., 3, K).

    NaN for classes that are not averaged, and for absent ones unless the protocol counts them as 0.
    """
    right, truth, predicted = sums[..., 0, :], sums[..., 1, :], sums[..., 2, :]
    whole = truth if kind == "acc" else truth + predicted - right
    values = np.full(right.shape, 0.0 if protocol.absent == "zero" else np.nan)
    np.divide(right, whole, out=values, where=whole > 0)
    num_classes = sums.shape[-1]
    values[..., sorted(set(range(num_classes)) - set(protocol.averaged(num_classes)))] = np.nan
    return np.concatenate([_mean(values, -1)[..., None], values], axis=-1)


def _mean(values: Floats, axis: int) -> Floats:
    """The mean over an axis without NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    total, count = np.where(known, values, 0.0).sum(axis=axis), known.sum(axis=axis)
    mean = np.full(total.shape, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean


@dataclass(frozen=True)
class Runs:
    """The runs of one network, as sums (M, N, 3, K) over the same N images in the same order."""

    sums: Floats

    @classmethod
    def of(cls, runs: Sequence[Floats]) -> Runs:
        """Stack the sums (N, 3, K) of M runs."""
        return cls(np.stack(runs))

    def figures(self, protocol: Protocol, kind: Kind = "iou") -> Floats:
        """Return mean and classes, (1 + K), averaged over the runs."""
        return _mean(figures(self.sums.sum(axis=1), protocol, kind), 0)

    def by_unit(self, units: NDArray[np.int64]) -> Floats:
        """Return the sums of each unit, (G, M * 3 * K)."""
        flat = np.moveaxis(self.sums, 1, 0).reshape(self.sums.shape[1], -1)
        total = np.zeros((int(units.max()) + 1, flat.shape[1]))
        np.add.at(total, units, flat)
        return total


def bootstrap(
    runs: Runs, units: NDArray[np.int64], protocol: Protocol, plan: Resampling, kind: Kind = "iou"
) -> Floats:
    """Return the figures of resampled splits, (R, 1 + K).

    Two calls with the same plan and units draw the same images, so their differences are paired.
    """
    totals, shape = runs.by_unit(units), (len(runs.sums), *runs.sums.shape[2:])
    found = [
        _mean(figures((weights @ totals).reshape(-1, *shape), protocol, kind), 1)
        for weights in _draws(len(totals), plan)
    ]
    return np.concatenate(found)


def _draws(units: int, plan: Resampling) -> Iterator[Floats]:
    """How often each unit is drawn, (r, G), in all `plan.resamples` rows."""
    generator = np.random.Generator(np.random.PCG64(plan.seed))
    for rows in _chunks(plan.resamples, units):
        drawn = generator.integers(0, units, (rows, units))
        places = drawn + units * np.arange(rows)[:, None]
        yield np.bincount(places.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)


def _chunks(resamples: int, units: int) -> Iterator[int]:
    most = max(1, _CHUNK // units)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)


def interval(drawn: Floats, level: float) -> list[tuple[float, float] | None]:
    """Return the percentile interval of each column of (R, C); None where more than half are NaN."""
    tail = (1.0 - level) / 2
    found: list[tuple[float, float] | None] = []
    for column in drawn.T:
        known = column[~np.isnan(column)]
        if 2 * len(known) <= len(column):
            found.append(None)
        else:
            low, high = np.quantile(known, [tail, 1.0 - tail])
            found.append((float(low), float(high)))
    return found


def swap_test(
    one: Runs, other: Runs, units: NDArray[np.int64], protocol: Protocol, plan: Resampling
) -> list[float | None]:
    """Return the two-sided p of the difference of mIoU and of each class's IoU, 1 + K values.

    Labels are swapped unit by unit, all runs of a unit together; run m of one network changes places with run
    m of the other. None where the difference is undefined. Raises ValueError for unequal numbers of runs.
    """
    if one.sums.shape != other.sums.shape:
        raise ValueError("a label swap needs equally many runs of both networks")
    first, second = one.by_unit(units), other.by_unit(units)
    shape = (len(one.sums), *one.sums.shape[2:])
    change = first - second
    base = second.sum(axis=0)
    whole = base + first.sum(axis=0)
    observed = np.abs(one.figures(protocol) - other.figures(protocol))
    hits, tries = np.zeros(len(observed)), 0
    exact = 2.0 ** len(first) <= plan.resamples
    for swaps in _swaps(len(first), plan, exact):
        mine = base + swaps @ change
        parts = [_mean(figures(sums.reshape(-1, *shape), protocol), 1) for sums in (mine, whole - mine)]
        with np.errstate(invalid="ignore"):
            # A difference that a swap makes undefined counts against an effect.
            less = np.abs(parts[0] - parts[1]) < observed - 1e-12
        hits += (~less).sum(axis=0)
        tries += len(swaps)
    p = hits / tries if exact else (hits + 1) / (tries + 1)
    return [None if np.isnan(seen) else float(value) for seen, value in zip(observed, p, strict=True)]


def _swaps(units: int, plan: Resampling, exact: bool) -> Iterator[Floats]:
    """Which units keep their labels, (r, G) of 0 and 1: all patterns, or random ones."""
    if exact:
        numbers = np.arange(1 << units)
        yield ((numbers[:, None] >> np.arange(units)) & 1).astype(np.float64)
        return
    generator = np.random.Generator(np.random.PCG64(plan.seed))
    for rows in _chunks(plan.resamples, units):
        yield generator.integers(0, 2, (rows, units)).astype(np.float64)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Adjust p values for their number (Holm 1979); None stays None and does not count."""
    order = sorted((value, place) for place, value in enumerate(values) if value is not None)
    adjusted: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (value, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * value))
        adjusted[place] = largest
    return adjusted
