"""Charts of scores as inline SVG: differences with intervals, reliability diagrams, confusion matrices.

Colours are those of `svg`: the variables of the page, and colours for white paper in a file of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from efnet.reporting.svg import nice_ticks

_INK, _MUTED = "var(--ink,#16202a)", "var(--muted,#52606d)"
_LINE, _ACCENT = "var(--line,#d5dbe1)", "var(--accent,#1459a8)"
_FONT = "font:12px system-ui,sans-serif"

Interval = tuple[str, float, float, float]  # a name, and in percent the value and both ends of its interval


def interval_chart(rows: Sequence[Interval], title: str) -> str:
    """Draw differences in percentage points as dots with their intervals, one row each, and a line at zero.

    An interval that excludes zero has the accent colour. Returns an `<svg>` element as wide as its container.
    Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("a chart needs at least one row")
    left, width, top, pitch = 150, 640, 34, 24
    ends = [value for row in rows for value in row[1:]]
    ticks = nice_ticks(min(0.0, *ends), max(0.0, *ends), 7)
    height = top + pitch * len(rows) + 34

    def across(value: float) -> float:
        return left + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (width - left - 20)

    parts = [_text(left, 16, title, "start", _INK)]
    bottom = top + pitch * len(rows)
    for tick in ticks:
        color = _INK if tick == 0 else _LINE
        parts.append(_line(across(tick), top - 6, across(tick), bottom, color))
        parts.append(_text(across(tick), bottom + 16, f"{tick:g}", "middle"))
    for number, (name, value, low, high) in enumerate(rows):
        y = top + pitch * number + pitch / 2
        color = _ACCENT if low > 0 or high < 0 else _MUTED
        parts.append(_text(left - 8, y + 4, name, "end", _INK))
        parts.append(_line(across(low), y, across(high), y, color, 2))
        parts.append(f'<circle cx="{across(value):.1f}" cy="{y:.1f}" r="4" style="fill:{color}"/>')
    spoken = "; ".join(f"{name} {value:+.2f}, {low:+.2f} to {high:+.2f}" for name, value, low, high in rows)
    return _render(width, height, f"{title}: {spoken}", parts)


def reliability_chart(bins: Sequence[tuple[float, float, int]], title: str) -> str:
    """Draw a reliability diagram of bins: mean probability, share right (fractions), and pixels.

    A bin's dot lies below the diagonal where the network is too sure. Bars show the share of all pixels. Bins
    without pixels are left out. Returns an `<svg>` element.
    """
    left, top, side, right = 56, 34, 300, 16
    total = sum(count for *_, count in bins) or 1
    size = len(bins)

    def place(x: float, y: float) -> tuple[float, float]:
        return left + side * x, top + side * (1 - y)

    parts = [_text(left, 16, title, "start", _INK)]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = place(tick, tick)
        parts += [_line(left, y, left + side, y, _LINE), _text(left - 7, y + 4, f"{tick:g}", "end")]
        parts.append(_text(x, top + side + 16, f"{tick:g}", "middle"))
    for number, (_, _, count) in enumerate(bins):
        x, y = place(number / size, count / total)
        height = top + side - y
        parts.append(
            f'<rect x="{x + 1:.1f}" y="{y:.1f}" width="{side / size - 2:.1f}" height="{height:.1f}" '
            f'style="fill:{_LINE}"/>'
        )
    parts.append(_line(*place(0, 0), *place(1, 1), _MUTED))
    known = [place(mean, share) for mean, share, count in bins if count]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in known)
    parts.append(f'<polyline points="{path}" style="fill:none;stroke:{_ACCENT};stroke-width:2"/>')
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" style="fill:{_ACCENT}"/>' for x, y in known]
    parts.append(_text(left + side / 2, top + side + 34, "mean probability of the predicted class", "middle"))
    parts.append(_text(14, top + side / 2, "share right (dots), share of pixels (bars)", "middle", turn=-90))
    spoken = "; ".join(f"at {mean:.2f} right {share:.2f}" for mean, share, count in bins if count)
    return _render(left + side + right, top + side + 44, f"{title}: {spoken}", parts)


def confusion_chart(counts: Sequence[Sequence[int]], names: Sequence[str], title: str) -> str:
    """Draw a confusion matrix (K, K), rows truth, columns prediction, in percent of each row.

    Rows without pixels have dashes. Returns an `<svg>` element.
    """
    left, top, cell = 110, 126, 46
    side = cell * len(names)
    parts = [_text(10, 18, title, "start", _INK)]
    parts.append(_text(10, 36, "rows: truth; columns: prediction; percent of the row", "start"))
    for number, name in enumerate(names):
        middle = cell * number + cell / 2
        parts.append(_text(left - 8, top + middle + 4, name, "end", _INK))
        parts.append(_text(left + middle + 4, top - 8, name, "start", _INK, turn=-60))
    for row, values in enumerate(counts):
        total = sum(values)
        for column, value in enumerate(values):
            share = value / total if total else 0.0
            x, y = left + cell * column, top + cell * row
            parts.append(
                f'<rect x="{x + 1}" y="{y + 1}" width="{cell - 2}" height="{cell - 2}" '
                f'style="fill:{_ACCENT};fill-opacity:{0.04 + 0.8 * share:.3f}"/>'
            )
            label = f"{100 * share:.1f}" if total else "-"
            color = "#fff" if share > 0.5 else _INK
            parts.append(_text(x + cell / 2, y + cell / 2 + 4, label, "middle", color))
    own = [f"{name} {100 * row[place] / sum(row):.1f}" for place, (name, row) in _filled(names, counts)]
    spoken = f"{title}: right in percent of truth: {', '.join(own)}"
    return _render(left + side + 60, top + side + 14, spoken, parts)


def _filled(
    names: Sequence[str], counts: Sequence[Sequence[int]]
) -> list[tuple[int, tuple[str, Sequence[int]]]]:
    rows = enumerate(zip(names, counts, strict=True))
    return [(place, (name, row)) for place, (name, row) in rows if sum(row)]


def chart_file(chart: str) -> str:
    """Return a chart as the contents of an SVG file of its own, on white paper."""
    opening, _, rest = chart.partition(">")
    opening = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f'{opening}><rect width="100%" height="100%" fill="#fff"/>{rest}\n'


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1) -> str:
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} style="stroke:{color};stroke-width:{width:g}"/>'


def _text(x: float, y: float, words: str, anchor: str, color: str = _MUTED, turn: int = 0) -> str:
    turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place}{turned} style="fill:{color}">{escape(words)}</text>'


def _render(width: float, height: float, spoken: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(spoken)}" '
        f'style="{_FONT}">{"".join(parts)}</svg>'
    )
