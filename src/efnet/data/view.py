"""A data set on one HTML page: contact sheet, class shares, brightness, misalignment, near-duplicates.

The page needs no other file. Every pair is read once; in memory stay small pictures, and thumbnails of some.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efnet.alignment.edges import Shift, estimate_shift, luminance, misalignment
from efnet.core.classes import IGNORE_INDEX, ClassSet
from efnet.core.errors import InputError
from efnet.data.layouts import layout_at
from efnet.data.pairs import Pair, PairSet
from efnet.data.sample import Sample, read_sample, threaded
from efnet.data.verify import Progress
from efnet.reporting.html import bar_cell, data_uri, figure, legend, render_page, table
from efnet.reporting.svg import line_chart

BINS = 32  # of a histogram
DARK = 60.0  # mean brightness, of 255, below which a colour image counts as dark

NEAR = 0.9
"""Least correlation, of colour and of thermal pictures of 32x32, at which two pairs are nearly the same.

Frames of MFNet that lie at least 50 numbers apart stay below 0.6.
"""

_SKETCH, _THUMB = (32, 32), 240  # size of the compared pictures; width of a thumbnail
_SHIFTS = 24  # pairs of a split whose misalignment is estimated
_SHOWN = 12  # near-duplicates on the page
_DISJOINT = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Seen:
    """One pair, as the page needs it."""

    pair: Pair
    split: str
    brightness: NDArray[np.int64]  # (BINS,) pixels by luminance, 0 to 255
    thermal: NDArray[np.int64]  # (BINS,) pixels by scaled thermal value, 0 to 1
    mean: float  # luminance
    labels: NDArray[np.int64] | None  # (256,) pixels by label value
    sketch: NDArray[np.float32]  # (2, 1024) luminance and thermal of 32x32, of zero mean and norm 1
    shift: Shift | None
    thumbs: tuple[Image.Image, ...]  # colour, thermal and overlay; empty if the pair is not on the sheet


@dataclass(frozen=True, eq=False)
class Near:
    """Two pairs of different splits that show nearly the same."""

    one: Seen
    other: Seen
    correlation: float  # the lower of colour's and thermal's


@dataclass(frozen=True, eq=False)
class View:
    """Everything on the page."""

    dataset: str
    root: Path
    classes: ClassSet
    splits: dict[str, list[Seen]]
    near: tuple[Near, ...]
    faults: tuple[str, ...]  # pairs that could not be read


def look(
    dataset: str,
    root: Path,
    splits: Sequence[str] = (),
    *,
    per_split: int = 12,
    near: float = NEAR,
    progress: Progress | None = None,
) -> View:
    """Read a data set.

    Args:
        dataset: a layout name, or the path of a data set's YAML file.
        root: its folder.
        splits: their names; empty: all but `trainval`.
        per_split: pairs of each split on the contact sheet, evenly spaced.
        near: least correlation of two pairs that are nearly the same.
        progress: called with the pairs done and their total.

    Raises:
        InputError: the layout, a split or the folder does not exist, or no pair can be read.
    """
    layout = layout_at(dataset, root)
    known = layout.splits(root)
    names = tuple(splits) or tuple(name for name in known if name != "trainval") or ("train",)
    pairsets = [layout.open(root, name) for name in names]
    tasks = [task for pairset in pairsets for task in _tasks(pairset, per_split)]
    found: dict[str, list[Seen]] = {pairset.split: [] for pairset in pairsets}
    faults = []
    for count, seen in enumerate(threaded(lambda task: task(), tasks), start=1):
        if isinstance(seen, Seen):
            found[seen.split].append(seen)
        else:
            faults.append(seen)
        if progress is not None:
            progress(count, len(tasks))
    if not any(found.values()):
        fault = faults[0] if faults else f"{root}: has no pairs; add images, or choose another split"
        raise InputError(fault)
    return View(
        layout.name,
        root,
        pairsets[0].classes,
        found,
        near_duplicates(found, near),
        tuple(dict.fromkeys(faults)),
    )


def _tasks(pairset: PairSet, per_split: int) -> Iterator[partial[Seen | str]]:
    """One task for each pair; mirrored copies would repeat their originals."""
    pairs = [pair for pair in pairset.pairs if not pair.flip]
    shown = {round(step * (len(pairs) - 1) / max(per_split - 1, 1)) for step in range(per_split)}
    every = max(1, math.ceil(len(pairs) / _SHIFTS))
    for place, pair in enumerate(pairs):
        yield partial(_see, pair, pairset, place in shown, place % every == 0)


def _see(pair: Pair, pairset: PairSet, shown: bool, shift: bool) -> Seen | str:
    """Read one pair; the message of an `InputError` if that fails."""
    try:
        sample = read_sample(pair, pairset.classes, pairset.thermal_scale)
    except InputError as error:
        return str(error)
    grey = luminance(sample.rgb)
    return Seen(
        pair,
        pairset.split,
        np.histogram(grey, BINS, (0, 256))[0],
        np.histogram(sample.thermal, BINS, (0, 1))[0],
        float(grey.mean()),
        None if sample.label is None else np.bincount(sample.label.ravel(), minlength=256),
        np.stack([sketch(grey), sketch(sample.thermal * np.float32(255))]),
        estimate_shift(sample.rgb, sample.thermal) if shift else None,
        _thumbs(sample, pairset.classes) if shown else (),
    )


def sketch(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an image (H, W) as 1024 numbers of zero mean and norm 1; a constant image becomes zeros."""
    small = np.asarray(Image.fromarray(image).resize(_SKETCH, Image.Resampling.BOX), dtype=np.float32).ravel()
    small = small - small.mean()
    norm = float(np.linalg.norm(small))
    return small / np.float32(norm) if norm > 1 else np.zeros_like(small)


def _thumbs(sample: Sample, classes: ClassSet) -> tuple[Image.Image, ...]:
    """Colour, thermal, and the label's colours over the image."""
    size = (_THUMB, max(1, round(_THUMB * sample.rgb.shape[0] / sample.rgb.shape[1])))
    heat = np.repeat((sample.thermal * 255).round().astype(np.uint8)[..., None], 3, axis=2)
    pictures = [sample.rgb, heat]
    if sample.label is not None:
        share = np.where((sample.label == 0) & (classes.palette[0] == (0, 0, 0)), 0.0, 0.5)[..., None]
        blended = sample.rgb * (1 - share) + classes.colorize(sample.label) * share
        pictures.append(blended.round().astype(np.uint8))
    return tuple(Image.fromarray(picture).resize(size, Image.Resampling.BOX) for picture in pictures)


def near_duplicates(splits: dict[str, list[Seen]], least: float = NEAR) -> tuple[Near, ...]:
    """Return pairs of train, val and test whose colour and thermal pictures correlate, the most alike first.

    Scores on the later split would measure memory. Each pair of the later split comes once, with the nearest.
    """
    found = []
    named = [name for name in _DISJOINT if splits.get(name)]
    for first, second in combinations(named, 2):
        ours = np.stack([seen.sketch for seen in splits[first]])
        for seen in splits[second]:
            alike = np.einsum("nck,ck->nc", ours, seen.sketch).min(axis=1)
            best = int(alike.argmax())
            if alike[best] >= least:
                found.append(Near(splits[first][best], seen, float(alike[best])))
    return tuple(sorted(found, key=lambda near: -near.correlation))


# --- The page -------------------------------------------------------------------------------------------


def render(view: View) -> str:
    """Return the page."""
    total = sum(map(len, view.splits.values()))
    tiles = "".join(
        f'<li><span class="label">{escape(name)}</span><span class="value">{len(seen)}</span></li>'
        for name, seen in view.splits.items()
    )
    lead = f"{view.dataset} at {view.root}: {total} pairs were read."
    sections = [_faults(view), _splits(view), _near(view), _classes(view), _charts(view), _sheet(view)]
    return render_page(f"Data set {view.root.name}", lead, sections, f'<ul class="tiles">{tiles}</ul>')


def _section(heading: str, hint: str, content: str) -> str:
    return f'<section><h2>{escape(heading)}</h2><p class="hint">{escape(hint)}</p>{content}</section>'


def _faults(view: View) -> str:
    if not view.faults:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in view.faults[:_SHOWN])
    hint = f"{len(view.faults)} pairs could not be read (efnet data check lists them all)."
    return _section("Problems", hint, f"<ul>{lines}</ul>")


def _splits(view: View) -> str:
    """Day and night, brightness and misalignment of each split."""
    rows = []
    for name, seen in view.splits.items():
        known = Counter(entry.pair.condition for entry in seen)
        dark = sum(entry.mean < DARK for entry in seen)
        shifts = [entry.shift for entry in seen if entry.shift is not None]
        middle = misalignment(shifts)
        off = "-" if middle is None else f"{middle.x:+.1f}, {middle.y:+.1f}"
        cells = (
            len(seen), sum(entry.labels is not None for entry in seen), known["day"] or "-",
            known["night"] or "-", f"{dark} of {len(seen)}", off,
            f"{sum(shift.confident for shift in shifts)} of {len(shifts)}",
        )  # fmt: skip
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{numbers}</tr>')
    head = "".join(
        f'<th scope="col">{word}</th>'
        for word in (
            "split",
            "pairs",
            "labelled",
            "day",
            "night",
            "dark",
            "thermal off by x, y",
            "clear pairs",
        )
    )
    hint = (
        f"Dark: mean brightness below {DARK:g} of 255. Thermal off by: median shift in pixels that brings "
        "thermal edges onto colour edges, over the pairs whose edges agree clearly."
    )
    return _section("Splits, day and night, misalignment", hint, table(head, rows))


def _near(view: View) -> str:
    """Frames of different splits that are nearly the same."""
    if sum(name in view.splits for name in _DISJOINT) < 2:
        return ""
    if not view.near:
        return _section(
            "Near-duplicates across splits", "None: no two pairs of different splits are alike.", ""
        )
    hint = (
        f"{len(view.near)} pairs of a later split have a near-duplicate in an earlier one: figures on them "
        "measure memory. The most alike are shown; correlation of 32x32 pictures, the lower of colour and "
        "thermal."
    )
    rows = [
        f"<tr><td>{escape(near.one.split)}</td><td>{escape(near.one.pair.name)}</td><td>{escape(near.other.split)}"
        f'</td><td>{escape(near.other.pair.name)}</td><td class="number">{near.correlation:.3f}</td></tr>'
        for near in view.near[:_SHOWN]
    ]
    head = "".join(
        f'<th scope="col">{word}</th>' for word in ("split", "pair", "split", "pair", "correlation")
    )
    return _section("Near-duplicates across splits", hint, table(head, rows, attributes='class="near"'))


def _classes(view: View) -> str:
    """Share of label pixels by class and split, and the pairs that show the class."""
    parts = []
    for name, seen in view.splits.items():
        maps = [entry.labels for entry in seen if entry.labels is not None]
        if not maps:
            continue
        counts = np.stack(maps)
        total, largest = counts.sum(), counts.sum(axis=0).max() / counts.sum()
        rows = []
        for value, text in [*enumerate(view.classes.names), (IGNORE_INDEX, "(ignored)")]:
            share, pairs = counts[:, value].sum() / total, int((counts[:, value] > 0).sum())
            numbers = f'<td class="number">{100 * share:.3f}</td><td class="number">{pairs}</td>'
            rows.append(f'<tr><th scope="row">{escape(text)}</th>{numbers}{bar_cell(share / largest)}</tr>')
        head = "<th>class</th><th>share, %</th><th>pairs</th><th></th>"
        parts.append(table(head, rows, caption=f"{escape(name)}: {len(maps)} label maps"))
    return (
        _section("Class shares", "Pixels of each class, of all label pixels.", "".join(parts))
        if parts
        else ""
    )


def _charts(view: View) -> str:
    """Histograms of brightness and of thermal values."""
    figures = []
    for name, seen in view.splits.items():
        if not seen:
            continue
        for what, unit, high in (
            ("brightness", "luminance", 255.0),
            ("thermal", "scaled thermal value", 1.0),
        ):
            counts = np.sum([getattr(entry, what) for entry in seen], axis=0)
            middles = (np.arange(BINS) + 0.5) * high / BINS
            points = list(zip(middles.tolist(), (counts / counts.sum()).tolist(), strict=True))
            title = f"{name}: {what}"
            chart = line_chart(points, title=title, x_label=unit, y_label="% of pixels", percent=True)
            figures.append(f"<figure><figcaption>{escape(title)}</figcaption>{chart}</figure>")
    hint = "All pixels of a split. Splits that differ here differ in light, or in how thermal was scaled."
    return _section("Brightness and thermal values", hint, f'<div class="charts">{"".join(figures)}</div>')


def _sheet(view: View) -> str:
    """The contact sheet."""
    parts = [legend(view.classes)]
    for name, seen in view.splits.items():
        for entry in (entry for entry in seen if entry.thumbs):
            words = ("colour", "thermal", "label over colour")
            panels = "".join(
                figure(data_uri(thumb), thumb.size, word, f"{entry.pair.name}: {word}")
                for word, thumb in zip(words, entry.thumbs, strict=False)
            )
            condition = entry.pair.condition
            badge = f'<span class="badge {condition}">{condition}</span>' if condition else ""
            heading = f"<header><h3>{escape(name)}: {escape(entry.pair.name)}</h3>{badge}</header>"
            parts.append(f'<article class="pair">{heading}<div class="panels">{panels}</div></article>')
    return _section("Contact sheet", "Evenly spaced pairs of each split.", "".join(parts))
