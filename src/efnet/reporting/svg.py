"""Charts as inline SVG, without a plotting dependency: a curve, or sorted bars with their mean.

Colours are the CSS variables of the page (ink, muted, line, accent), so charts follow its light and dark
themes. A chart in a file of its own falls back to colours for white paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 440, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 26, 40

_INK, _MUTED = "var(--ink,#16202a)", "var(--muted,#52606d)"
_LINE, _ACCENT = "var(--line,#d5dbe1)", "var(--accent,#1459a8)"


def line_chart(
    points: Sequence[tuple[float, float]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    percent: bool = False,
    mark: tuple[float, str] | None = None,
) -> str:
    """Draw a curve through (x, y) in order of x, above a y axis from zero; points not finite are left out.

    Screen readers read out the title and both ends of the curve. With `percent`, y is a fraction whose axis
    shows percent. `mark` is the x of a point to highlight, and its caption. The result is an `<svg>` element
    as wide as its container.

    Raises:
        ValueError: no finite point.
    """
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        raise ValueError("a chart needs at least one finite point")
    (first, start), (last, end) = finite[0], finite[-1]
    ticks = nice_ticks(0.0, max(y for _, y in finite), 5)

    def label(value: float) -> str:
        return f"{100 * value:g}" if percent else f"{value:g}"

    chart = _Chart((first, last), (min(0.0, *(y for _, y in finite)), ticks[-1]))
    chart.grid({value: label(value) for value in ticks})
    for value in nice_ticks(first, last, 6):
        if first <= value <= last:
            chart.text(chart.x(value), HEIGHT - _BOTTOM + 17, f"{value:g}")
    chart.text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 5, x_label)
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    chart.text(12, middle, y_label, rotate=-90)
    path = " ".join(f"{chart.x(x):.1f},{chart.y(y):.1f}" for x, y in finite)
    chart.add(f'polyline points="{path}"', f"fill:none;stroke:{_ACCENT};stroke-width:2;stroke-linejoin:round")
    if len(finite) == 1:
        chart.dot(first, start)
    if mark is not None:
        chart.note(*min(finite, key=lambda point: abs(point[0] - mark[0])), mark[1])
    return chart.render(
        f"{title}: from {label(round(start, 4))} at {x_label} {first:g} "
        f"to {label(round(end, 4))} at {x_label} {last:g}."
    )


def bar_chart(values: NDArray[np.floating], title: str, noun: str) -> str:
    """Draw values (C,) from 0 to 1 as bars, from the largest to the smallest.

    The title stands above with mean and standard deviation, and screen readers read it out. `noun` is the
    plural name of the values. The result is an `<svg>` element as wide as its container: a band of one
    standard deviation around the mean, the bars, and a dashed line at the mean.
    """
    ordered = np.sort(values.astype(np.float64))[::-1]
    mean, spread = float(ordered.mean()), float(ordered.std())
    heading = f"{title}: mean {mean:.3f}, standard deviation {spread:.3f}"
    chart = _Chart((0.0, len(ordered)), (0.0, 1.0))
    chart.rectangle((0.0, len(ordered)), (max(0.0, mean - spread), min(1.0, mean + spread)), _LINE)
    chart.grid({value: f"{value:g}" for value in (0.0, 0.5, 1.0)})
    for place, value in enumerate(ordered):
        chart.rectangle((place + 0.15, place + 0.85), (0.0, value), _ACCENT)
    chart.level(mean, f"stroke:{_INK};stroke-width:1.5;stroke-dasharray:5 3")
    chart.text(_LEFT, 15, heading, "start", _INK)
    chart.text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 12, f"{len(ordered)} {noun}, sorted")
    return chart.render(heading)


def standalone(*charts: str) -> str:
    """Put charts below each other in one SVG file, on white paper."""
    height = HEIGHT * len(charts)
    nested = "".join(
        chart.replace("<svg ", f'<svg y="{HEIGHT * place}" width="{WIDTH}" height="{HEIGHT}" ')
        for place, chart in enumerate(charts)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{2 * WIDTH}" '
        f'height="{2 * height}"><rect width="{WIDTH}" height="{height}" fill="#fff"/>{nested}</svg>\n'
    )


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round values (1, 2 or 5 times a power of ten) that enclose low..high.

    The first is at most `low` and the last at least `high`; equal bounds are widened.
    """
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


class _Chart:
    """The elements of one chart, placed by their values on both axes."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
        self._x_range, self._y_range = x_range, y_range
        self._parts: list[str] = []

    def x(self, value: float) -> float:
        """Return the pixel column of a value; the middle where the axis has only one."""
        low, high = self._x_range
        share = (value - low) / (high - low) if high > low else 0.5
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Return the pixel row of a value."""
        low, high = self._y_range
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    def add(self, element: str, style: str) -> None:
        self._parts.append(f'<{element} style="{style}"/>')

    def level(self, value: float, style: str) -> None:
        """Add a horizontal line."""
        y = self.y(value)
        self.add(f'line x1="{_LEFT}" y1="{y:.2f}" x2="{WIDTH - _RIGHT}" y2="{y:.2f}"', style)

    def grid(self, labels: dict[float, str]) -> None:
        """Add a line and a label for each value of the y axis."""
        for value, label in labels.items():
            self.level(value, f"stroke:{_LINE}")
            self.text(_LEFT - 7, self.y(value) + 4, label, "end")

    def rectangle(self, across: tuple[float, float], up: tuple[float, float], color: str) -> None:
        left, right, bottom, top = *map(self.x, across), *map(self.y, up)
        size = f'width="{right - left:.2f}" height="{bottom - top:.2f}"'
        self.add(f'rect x="{left:.2f}" y="{top:.2f}" {size}', f"fill:{color}")

    def dot(self, x: float, y: float) -> None:
        self.add(f'circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="4"', f"fill:{_ACCENT}")

    def text(
        self, x: float, y: float, words: str, anchor: str = "middle", color: str = _MUTED, rotate: int = 0
    ) -> None:
        """Add words at a pixel, turned by `rotate` degrees."""
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
        if rotate:
            place += f' transform="rotate({rotate} {x:.1f} {y:.1f})"'
        self._parts.append(f'<text {place} style="fill:{color}">{escape(words)}</text>')

    def note(self, x: float, y: float, words: str) -> None:
        """Add a dot on the curve with words beside it, inside the chart."""
        self.dot(x, y)
        across, down = self.x(x), self.y(y)
        anchor, shift = ("end", -8) if across > WIDTH / 2 else ("start", 8)
        self.text(across + shift, down + (20 if down < _TOP + 10 else -9), words, anchor, _INK)

    def render(self, spoken: str) -> str:
        """Return the `<svg>` element, with the sentence that screen readers read out."""
        return (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(spoken)}" '
            f'style="font:12px system-ui,sans-serif">{"".join(self._parts)}</svg>'
        )
