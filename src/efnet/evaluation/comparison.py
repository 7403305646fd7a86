"""Networks compared on the same images: figures side by side, paired intervals and label-swap tests.

The first network is the one that the others are compared with. A network may have several runs (seeds): its
figure is then the mean over them. Figures are fractions; tables show percent and percentage points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet.core.errors import InputError
from efnet.evaluation.intervals import class_units, occupied
from efnet.evaluation.metrics import PairCounts, Tally
from efnet.evaluation.protocols import Protocol
from efnet.evaluation.resampling import (
    Floats,
    Resampling,
    Runs,
    bootstrap,
    boundary_sums,
    holm,
    interval,
    region_sums,
    swap_test,
)
from efnet.reporting.html import render_page, table
from efnet.reporting.score_charts import interval_chart
from efnet.reporting.tables import markdown_table, percent

Comparison = dict[str, Any]


@dataclass(frozen=True)
class Contender:
    """A network with the counts of one run or several over the same images."""

    name: str
    tallies: tuple[Tally, ...]
    sources: tuple[str, ...]  # where each run's counts are from


def align(contenders: Sequence[Contender]) -> list[Contender]:
    """Bring all runs to the same images in the same order.

    Raises InputError: fewer than two networks, equal names, other classes, protocol, images or truth.
    """
    names = [contender.name for contender in contenders]
    if len(names) < 2:
        raise InputError("a comparison needs two networks or more")
    if len(set(names)) < len(names):
        raise InputError(f"two networks are called the same ({', '.join(names)}); name them as NAME=PATH")
    first, known = contenders[0].tallies[0], contenders[0].sources[0]
    order = [entry.pair.name for entry in first.pairs]
    if len(set(order)) < len(order):
        raise InputError(f"{known}: several images have one name; their counts cannot be paired")
    return [
        replace(
            contender,
            tallies=tuple(
                _aligned(tally, source, first, known, order)
                for tally, source in zip(contender.tallies, contender.sources, strict=True)
            ),
        )
        for contender in contenders
    ]


def _aligned(tally: Tally, source: str, first: Tally, known: str, order: list[str]) -> Tally:
    both = f"{source} and {known}"
    if tally.classes.names != first.classes.names:
        raise InputError(f"{both}: have other classes; compare networks for one class set")
    if tally.protocol.name != first.protocol.name:
        raise InputError(
            f"{both}: were scored by {tally.protocol.name} and {first.protocol.name}; evaluate both by one "
            "`protocol`"
        )
    entries = {entry.pair.name: entry for entry in tally.pairs}
    other = set(entries) ^ set(order)
    if other or len(tally.pairs) != len(order):
        raise InputError(
            f"{both}: were evaluated on other images ({len(tally.pairs)} and {len(order)}; only in one: "
            f"{', '.join(sorted(other)[:3]) or 'none'}); evaluate both on one split"
        )
    pairs = [entries[name] for name in order]
    for one, reference in zip(pairs, first.pairs, strict=True):
        if not np.array_equal(one.counts.sum(axis=1), reference.counts.sum(axis=1)):
            raise InputError(
                f"{both}: the true labels of {one.pair.name} differ; evaluate both on the same files"
            )
    return replace(tally, pairs=pairs)


def compare(contenders: Sequence[Contender], plan: Resampling) -> Comparison:
    """Compare aligned networks with the first of them.

    Returns plain values: `resampling` (settings and `units`), `images`, `protocol`, `networks` (`name`,
    `runs`, `sources` and by part of the images the figures with intervals) and `differences`, one for each
    other network (`network`, `to`, and by part the differences with intervals, `p`, and for classes `p_holm`,
    adjusted for their number). Parts are `all`, `day`, `night` where known, and `boundary` (boundary IoU of
    all images) where all counted it. A difference is None where either figure is, an interval where fewer
    than two units have the class in truth, p where the networks have unequal numbers of runs.
    """
    contenders = align(contenders)
    first = contenders[0].tallies[0]
    parts = {"all": first.pairs}
    for condition in first.conditions():
        parts[condition] = [entry for entry in first.pairs if entry.pair.condition == condition]
    networks: list[dict[str, Any]] = [
        {"name": each.name, "runs": len(each.tallies), "sources": list(each.sources)} for each in contenders
    ]
    differences: list[dict[str, Any]] = [
        {"network": each.name, "to": contenders[0].name} for each in contenders[1:]
    ]
    for part, chosen in [*parts.items(), ("boundary", first.pairs)]:
        places = {entry.pair.name for entry in chosen}
        runs = [_runs(each, places, part == "boundary") for each in contenders]
        if any(each is None for each in runs):
            continue
        _add_part(
            part, [each for each in runs if each is not None], chosen, first, plan, networks, differences
        )
    return {
        "resampling": {**plan.describe(), "units": int(plan.units(_names(first.pairs)).max()) + 1},
        "images": len(first.pairs),
        "protocol": first.protocol.to_dict(first.classes),
        "networks": networks,
        "differences": differences,
    }


def _names(pairs: Sequence[PairCounts]) -> list[str]:
    return [entry.pair.name for entry in pairs]


def _runs(contender: Contender, names: set[str], edges: bool) -> Runs | None:
    """Sums of the images with these names; None where boundary IoU is wanted and was not counted."""
    found = []
    for tally in contender.tallies:
        pairs = [entry for entry in tally.pairs if entry.pair.name in names]
        sums = boundary_sums(pairs) if edges else region_sums(pairs, tally.protocol)
        if sums is None:
            return None
        found.append(sums)
    return Runs.of(found)


def _add_part(
    part: str,
    runs: Sequence[Runs],
    pairs: Sequence[PairCounts],
    first: Tally,
    plan: Resampling,
    networks: list[dict[str, Any]],
    differences: list[dict[str, Any]],
) -> None:
    """Add the figures of one part of the images to every network and difference."""
    units, protocol, names = plan.units(_names(pairs)), first.protocol, first.classes.names
    sums = region_sums(pairs, protocol)
    seen = class_units(sums, units)
    kept = (occupied(sums, units) > 1, *(count > 1 for count in seen))
    drawn = [bootstrap(each, units, protocol, plan) for each in runs]
    figures = [each.figures(protocol) for each in runs]
    for network, values, samples in zip(networks, figures, drawn, strict=True):
        network[part] = {
            "images": len(pairs),
            "units": int(units.max()) + 1,
            **_named(_figures(values, samples, kept, units, plan), names),
        }
    for difference, each, values, samples in zip(differences, runs[1:], figures[1:], drawn[1:], strict=True):
        found = _figures(values - figures[0], samples - drawn[0], kept, units, plan)
        for entry, p in zip(found, _tests(runs[0], each, units, protocol, plan), strict=True):
            entry["p"] = p
        for entry, p in zip(found[1:], holm([entry["p"] for entry in found[1:]]), strict=True):
            entry["p_holm"] = p
        for entry, count in zip(found[1:], seen, strict=True):
            entry["with"] = count
        difference[part] = _named(found, names)


def _tests(
    one: Runs, other: Runs, units: NDArray[np.int64], protocol: Protocol, plan: Resampling
) -> list[float | None]:
    if one.sums.shape != other.sums.shape or units.max() < 1:
        return [None] * (1 + one.sums.shape[-1])
    return swap_test(one, other, units, protocol, plan)


def _figures(
    values: Floats, samples: Floats, kept: Sequence[bool], units: NDArray[np.int64], plan: Resampling
) -> list[dict[str, Any]]:
    bounds = interval(samples, plan.level) if units.max() > 0 else [None] * len(values)
    return [
        {
            "value": None if np.isnan(value) else float(value),
            "interval": None if np.isnan(value) or not common or found is None else list(found),
        }
        for value, found, common in zip(values, bounds, kept, strict=True)
    ]


def _named(entries: list[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    return {"miou": entries[0], "iou": dict(zip(names, entries[1:], strict=True))}


_PARTS = {"all": "mIoU", "day": "mIoU, day", "night": "mIoU, night", "boundary": "boundary mIoU"}


def verdict(difference: Comparison) -> str:
    """One sentence on the difference of mIoU, and whether its interval excludes zero."""
    found = difference["all"]["miou"]
    value, bounds = found["value"], found["interval"]
    if value is None:
        return f"{difference['network']} and {difference['to']} have no mIoU in common."
    relation = f"{abs(100 * value):.2f} points {'above' if value >= 0 else 'below'} {difference['to']}"
    text = f"mIoU of {difference['network']} is {relation}"
    if bounds is None:
        return f"{text}; there is one unit alone, so no interval."
    p = found["p"]
    if bounds[0] <= 0 <= bounds[1]:
        shown = "includes zero: no difference is shown"
    elif p is not None and p > 0.05:
        shown = "excludes zero, but the test does not reject equal networks at 0.05: no difference is shown"
    else:
        shown = "excludes zero"
    return f"{text}, interval {_points(bounds)}, p {_p(p)}. The interval {shown}."


def notes(comparison: Comparison) -> list[str]:
    """Sentences on what the intervals and tests mean."""
    plan = comparison["resampling"]
    unit = plan["unit"]
    independent = (
        "Images are taken as independent. Frames of one drive are alike, so that intervals over images are "
        "too narrow for other drives; resample by drive with `groups` where the drives are known."
        if unit == "image"
        else f"Groups are taken as independent, the images of one stay together. With {plan['units']} groups "
        f"p cannot be below {2.0 ** (1 - plan['units']):.3g}, and intervals over few groups are too narrow."
    )
    runs = [network["runs"] for network in comparison["networks"]]
    seeds = (
        "Each network is one training run: neither interval nor p covers what another seed would change."
        if max(runs) == 1
        else "Figures are means over the runs of a network. Intervals are over images for these runs; they "
        "do not cover the choice of seeds."
    )
    return [
        f"Intervals: {100 * plan['level']:g} %, {plan['method']} over {plan['units']} {unit}s, "
        f"{plan['resamples']} resamples, seed {plan['seed']}; differences draw the same {unit}s for both "
        "networks.",
        f"p: two-sided, labels of the two networks swapped {unit} by {unit}; classes also by Holm's "
        "adjustment for their number. Several networks are not adjusted for.",
        f"with: how many {unit}s have a class in truth. A resample without it counts 0 where it is "
        "predicted, so that rare classes widen the interval of mIoU to one side; p is not affected by this.",
        independent,
        seeds,
        f"Protocol {comparison['protocol']['summary']}.",
    ]


def network_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of the networks, in percent, with intervals."""
    parts = [part for part in _PARTS if part in comparison["networks"][0]]
    rows = [
        [network["name"], str(network["runs"])]
        + [f"{percent(network[part]['miou']['value'])} {_bounds(network[part]['miou'])}" for part in parts]
        for network in comparison["networks"]
    ]
    return ["network", "runs", *(_PARTS[part] for part in parts)], rows


def difference_rows(comparison: Comparison, number: int) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of one difference: mIoU by part, then IoU by class of all images."""
    difference = comparison["differences"][number]
    base, own = comparison["networks"][0], comparison["networks"][number + 1]

    def row(name: str, part: str, *path: str) -> list[str]:
        values = []
        for source in (base, own, difference):
            value = source[part]
            for key in path:
                value = value[key]
            values.append(value)
        first, second, found = values
        cells = [name, percent(first["value"]), percent(second["value"])]
        change = "-" if found["value"] is None else f"{100 * found['value']:+.2f}"
        cells += [change, _points(found["interval"]), _p(found["p"]), _p(found.get("p_holm"))]
        return [*cells, str(found["with"] if "with" in found else base[part]["units"])]

    rows = [row(title, part, "miou") for part, title in _PARTS.items() if part in difference]
    rows += [row(name, "all", "iou", name) for name in difference["all"]["iou"]]
    level = f"{100 * comparison['resampling']['level']:g} % interval"
    return ["", base["name"], own["name"], "difference", level, "p", "p (Holm)", "with"], rows


def _bounds(figure: dict[str, Any]) -> str:
    bounds = figure["interval"]
    return "" if bounds is None else f"[{percent(bounds[0])}, {percent(bounds[1])}]"


def _points(bounds: Sequence[float] | None) -> str:
    return "-" if bounds is None else f"{100 * bounds[0]:+.2f} to {100 * bounds[1]:+.2f}"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if value >= 0.0001 else f"{value:.1g}"


def markdown(comparison: Comparison) -> str:
    """The comparison as a page in Markdown."""
    lines = [f"# {title(comparison)}", "", *_table(*network_rows(comparison))]
    for number, difference in enumerate(comparison["differences"]):
        lines += ["", f"## {difference['network']} against {difference['to']}", "", verdict(difference), ""]
        lines += _table(*difference_rows(comparison, number))
    lines += ["", *(f"- {line}" for line in notes(comparison)), ""]
    return "\n".join(lines)


def title(comparison: Comparison) -> str:
    """The heading of the comparison."""
    return f"{len(comparison['networks'])} networks on the same {comparison['images']} images"


def _table(heading: list[str], rows: list[list[str]]) -> list[str]:
    return markdown_table(*_escaped(heading, rows), aligned=True)


def _escaped(heading: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [heading, *rows]]
    return cells[0], cells[1:]


def page(comparison: Comparison) -> str:
    """The comparison as an HTML page that needs no other file, with a chart of each difference."""
    sections = [_html_table(*network_rows(comparison))]
    for number, difference in enumerate(comparison["differences"]):
        heading = f"{difference['network']} against {difference['to']}"
        points = _chart_rows(difference)
        chart = interval_chart(points, f"{heading}: difference in percentage points") if points else ""
        sections.append(
            f"<section><h2>{escape(heading)}</h2><p>{escape(verdict(difference))}</p>{chart}"
            f"{_html_table(*difference_rows(comparison, number))}</section>"
        )
    items = "".join(f"<li>{escape(line)}</li>" for line in notes(comparison))
    sections.append(f"<section><h2>How to read this</h2><ul>{items}</ul></section>")
    lead = "Figures in percent, differences in percentage points, intervals over resampled images."
    return render_page(title(comparison), lead, sections)


def _chart_rows(difference: Comparison) -> list[tuple[str, float, float, float]]:
    found = [(title, difference[part]["miou"]) for part, title in _PARTS.items() if part in difference]
    found += list(difference["all"]["iou"].items())
    return [
        (name, 100 * figure["value"], 100 * figure["interval"][0], 100 * figure["interval"][1])
        for name, figure in found
        if figure["interval"] is not None
    ]


def _html_table(heading: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th{_NUMBER if place else ''}>{escape(name)}</th>" for place, name in enumerate(heading))
    body = (
        f"<tr><th>{escape(row[0])}</th>"
        + "".join(f"<td{_NUMBER}>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return table(head, body)


_NUMBER = ' class="number"'
