"""Tables in Markdown, and the figures in their cells: percent, quantiles, means with deviations."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


def markdown_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, aligned: bool = False
) -> list[str]:
    """Return the lines of a table whose first column is aligned to the left, the others to the right.

    Args:
        headings: of the columns.
        rows: their cells.
        aligned: whether to pad the cells, for a table that is also read on a terminal.
    """
    if not aligned:
        lines = (f"| {' | '.join(cells)} |" for cells in (headings, *rows))
        return [next(lines), f"| --- |{' ---: |' * (len(headings) - 1)}", *lines]
    first, *others = (max(map(len, column)) for column in zip(headings, *rows, strict=True))

    def line(cells: Sequence[str]) -> str:
        right = (cell.rjust(width) for cell, width in zip(cells[1:], others, strict=True))
        return f"| {' | '.join([cells[0].ljust(first), *right])} |"

    rule = "|".join(["-" * (first + 2), *("-" * (width + 1) + ":" for width in others)])
    return [line(headings), f"|{rule}|", *map(line, rows)]


def percent(share: float | None, digits: int = 2) -> str:
    """Return a fraction in percent, without the sign; a dash for None or a value that is not finite."""
    return "-" if share is None or not math.isfinite(share) else f"{100 * share:.{digits}f}"


@dataclass(frozen=True)
class Quantiles:
    """Median, quartiles and outer tenths of repeated measurements.

    Attributes:
        median: the figure to quote.
        low: lower quartile.
        high: upper quartile.
        p10: a tenth of the values are below it.
        p90: a tenth of the values are above it.
        runs: number of values.
    """

    median: float
    low: float
    high: float
    p10: float
    p90: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles:
        """Compute them of one value or more."""
        if len(values) == 1:
            only = values[0]
            return cls(only, only, only, only, only, 1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        tenths = statistics.quantiles(values, n=10, method="inclusive")
        return cls(median, low, high, tenths[0], tenths[-1], len(values))


@dataclass(frozen=True)
class MeanDeviation:
    """Mean and standard deviation of a sample (n - 1); the deviation of a single value is None."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanDeviation | None:
        """Compute both; None if there are no values."""
        if not values:
            return None
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)

    def percent(self) -> str:
        """Return `mean ± deviation` in percent, or the mean alone."""
        return percent(self.mean) + ("" if self.deviation is None else f" ± {percent(self.deviation)}")
