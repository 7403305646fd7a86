"""Line charts as inline SVG: a few dozen lines instead of a plotting dependency.

Colours come from the page's CSS variables (`--ink`, `--muted`, `--line`, `--accent`), so charts follow
its light and dark themes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 440, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 14, 40


def line_chart(
    points: Sequence[tuple[float, float]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    percent: bool = False,
    from_zero: bool = True,
    mark: tuple[float, str] | None = None,
) -> str:
    """Draw one curve.

    Args:
        points: (x, y) in order of x; at least one. Values that are not finite are left out.
        title: read out by screen readers, with the range of the curve.
        x_label: below the axis.
        y_label: beside the axis.
        percent: y is a fraction, its axis is labelled in percent.
        from_zero: let the y axis begin at zero.
        mark: x of a point to point out, and what to write there.

    Returns:
        an `<svg>` element as wide as its container.

    Raises:
        ValueError: no finite point.
    """
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        raise ValueError("a chart needs at least one finite point")
    xs, ys = [x for x, _ in finite], [y for _, y in finite]
    x_ticks = nice_ticks(min(xs), max(xs), 6)
    y_ticks = nice_ticks(0.0 if from_zero else min(ys), max(ys), 5)
    x_range = (min(xs), max(max(xs), min(xs) + 1e-9))
    y_range = (min(y_ticks[0], 0.0 if from_zero else min(ys)), y_ticks[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_range[0]) / (x_range[1] - x_range[0]) if len(finite) > 1 else 0.5
        up = (y - y_range[0]) / (y_range[1] - y_range[0])
        return (
            _LEFT + across * (WIDTH - _LEFT - _RIGHT),
            HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM),
        )

    def label(value: float) -> str:
        return f"{100 * value:g}" if percent else f"{value:g}"

    spoken = (
        f"{title}: from {label(round(ys[0], 4))} at {x_label} {xs[0]:g} "
        f"to {label(round(ys[-1], 4))} at {x_label} {xs[-1]:g}."
    )
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(spoken)}">']
    for value in y_ticks:
        _, y = place(xs[0], value)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{label(value)}</text>')
    for value in x_ticks:
        if x_range[0] <= value <= x_range[1]:
            x, _ = place(value, y_ticks[0])
            parts.append(
                f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 17}" text-anchor="middle">{value:g}</text>'
            )
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text class="axis" x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 5}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
        f'<text class="axis" x="12" y="{middle}" text-anchor="middle" '
        f'transform="rotate(-90 12 {middle})">{escape(y_label)}</text>'
    )
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in finite))
    parts.append(f'<polyline class="curve" points="{path}"/>')
    if len(finite) == 1:
        x, y = place(*finite[0])
        parts.append(f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
    if mark is not None:
        parts.append(_mark(mark, finite, place(*_nearest(mark[0], finite))))
    return "".join([*parts, "</svg>"])


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round values (1, 2 or 5 times a power of ten) that enclose low..high.

    The first is at most `low` and the last at least `high`; equal bounds are widened.
    """
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _nearest(x: float, points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return min(points, key=lambda point: abs(point[0] - x))


def _mark(mark: tuple[float, str], points: Sequence[tuple[float, float]], at: tuple[float, float]) -> str:
    """A dot on the curve with words beside it, kept inside the chart."""
    x, y = at
    anchor, shift = ("end", -8) if x > WIDTH / 2 else ("start", 8)
    below = y < _TOP + 22
    return (
        f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        f'<text class="note" x="{x + shift:.1f}" y="{y + (20 if below else -9):.1f}" text-anchor="{anchor}">'
        f"{escape(mark[1])}</text>"
    )
