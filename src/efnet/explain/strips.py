"""MIF's channel weights as a chart: one bar per channel, from the largest to the least."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 440, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 26, 30

# Of the page's theme where there is one, else for white paper.
_INK, _MUTED = "var(--ink,#16202a)", "var(--muted,#52606d)"
_LINE, _BAR = "var(--line,#d5dbe1)", "var(--accent,#1459a8)"


def weight_strip(weights: NDArray[np.float32], title: str) -> str:
    """Draw the channel weights of one modality.

    Args:
        weights: (C,), from 0 to 1.
        title: written above, and read out by screen readers with mean and spread.

    Returns:
        an `<svg>` element as wide as its container: bars, a line at the mean and a band of one standard
        deviation around it.
    """
    ordered = np.sort(weights.astype(np.float64))[::-1]
    mean, spread = float(ordered.mean()), float(ordered.std())
    heading = f"{title}: mean {mean:.3f}, standard deviation {spread:.3f}"
    right = WIDTH - _RIGHT
    step = (right - _LEFT) / len(ordered)
    top, bottom = _y(min(1.0, mean + spread)), _y(max(0.0, mean - spread))
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(heading)}" '
        'style="font:12px system-ui,sans-serif">',
        f'<rect x="{_LEFT}" y="{top:.2f}" width="{right - _LEFT}" height="{bottom - top:.2f}" '
        f'style="fill:{_LINE}"/>',
    ]
    for value in (0.0, 0.5, 1.0):
        parts.append(
            f'<line x1="{_LEFT}" y1="{_y(value):.2f}" x2="{right}" y2="{_y(value):.2f}" '
            f'style="stroke:{_LINE}"/>'
        )
        parts.append(_text(_LEFT - 6, _y(value) + 4, f"{value:g}", "end"))
    for place, value in enumerate(ordered):
        parts.append(
            f'<rect x="{_LEFT + (place + 0.15) * step:.2f}" y="{_y(value):.2f}" width="{0.7 * step:.2f}" '
            f'height="{_y(0) - _y(value):.2f}" style="fill:{_BAR}"/>'
        )
    parts.append(
        f'<line x1="{_LEFT}" y1="{_y(mean):.2f}" x2="{right}" y2="{_y(mean):.2f}" '
        f'style="stroke:{_INK};stroke-width:1.5;stroke-dasharray:5 3"/>'
    )
    parts.append(_text(_LEFT, 15, heading, "start", _INK))
    parts.append(_text((_LEFT + right) / 2, HEIGHT - 8, f"{len(ordered)} channels, sorted", "middle"))
    return "".join([*parts, "</svg>"])


def standalone(*charts: str) -> str:
    """Charts below each other as a file of their own, on white paper."""
    height = HEIGHT * len(charts)
    placed = (
        f'<g transform="translate(0 {HEIGHT * place})">{chart}</g>' for place, chart in enumerate(charts)
    )
    nested = "".join(placed).replace("<svg ", f'<svg width="{WIDTH}" height="{HEIGHT}" ')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{2 * WIDTH}" '
        f'height="{2 * height}"><rect width="{WIDTH}" height="{height}" fill="#fff"/>{nested}</svg>\n'
    )


def _y(value: float) -> float:
    return _TOP + (1 - value) * (HEIGHT - _TOP - _BOTTOM)


def _text(x: float, y: float, words: str, anchor: str, color: str = _MUTED) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill:{color}">{escape(words)}</text>'
