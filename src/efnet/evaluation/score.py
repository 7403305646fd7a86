"""Scoring of label maps that any program wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError, ManyInputsError
from efnet.data.images import IMAGE_SUFFIXES, read_label
from efnet.data.pairs import Pair, PairSet
from efnet.evaluation.metrics import Keep, LabelMap, Tally, resize_nearest
from efnet.evaluation.protocols import Protocol

Progress = Callable[[int, int], None]
"""Called with the number of pairs done and the number of all."""

_SHOWN = 5


def score_predictions(
    folder: Path,
    pairset: PairSet,
    protocol: Protocol,
    progress: Progress | None = None,
    keep: Keep | None = None,
) -> tuple[Tally, list[str]]:
    """Compare a folder of label maps with the labels of a split.

    A file belongs to the pair whose name is its stem. It is an index map (grey or palette PNG) or a
    colour map in the data set's palette. Maps of another size than the protocol's are resized, nearest
    pixel.

    Args:
        folder: of the predictions.
        pairset: the split, with labels.
        protocol: how to score.
        progress: told after every pair.
        keep: given every prediction.

    Returns:
        the counted pairs, and notes for the user: maps that were resized, files that belong to no pair.

    Raises:
        InputError: no such folder, nothing in it that belongs to the split, or an unfitting protocol.
        ManyInputsError: predictions or labels missing, ambiguous, unreadable or with values out of
            range, all named at once.
    """
    files, faults = _match(folder, pairset)
    tally = Tally(pairset.classes, protocol)
    resized: Counter[tuple[tuple[int, int], tuple[int, int]]] = Counter()
    for number, pair in enumerate(pairset.pairs, 1):
        path = files.get(pair.name)
        if path is not None:
            try:
                truth = read_truth(pair, pairset.classes)
                prediction = read_label(path, pairset.classes)
                tally.add(pair, truth, prediction)
            except InputError as error:
                text = str(error)
                faults.append(text if str(path) in text or str(pair.label) in text else f"{path}: {text}")
            else:
                shape, size = (prediction.shape[0], prediction.shape[1]), tally.scored_size(truth.shape)
                resized[shape, size] += shape != size
                if keep:
                    keep(pair, resize_nearest(prediction, size), resize_nearest(truth, size))
        if progress:
            progress(number, len(pairset))
    if faults:
        raise ManyInputsError(f"predictions in {folder} for {pairset.dataset} {pairset.split}", faults)
    return tally, [*_resize_notes(resized), *_extra_notes(files, pairset)]


def read_truth(pair: Pair, classes: ClassSet) -> LabelMap:
    """The label (H, W) of a pair, mirrored where the pair is.

    Raises:
        InputError: the pair has no label, or it cannot be read.
    """
    if pair.label is None:
        raise InputError(f"pair {pair.name}: has no label; scoring needs one for every pair")
    label = read_label(pair.label, classes)
    return label[:, ::-1] if pair.flip else label


def _match(folder: Path, pairset: PairSet) -> tuple[dict[str, Path], list[str]]:
    """Image files by stem, and a fault for every pair that has none or several."""
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; --predictions takes a folder of label maps")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    names = {pair.name for pair in pairset.pairs}
    matching = [path for path in found if path.stem in names]
    if not matching:
        inside = [name for name in ("index", "color") if (folder / name).is_dir()]
        if not found and inside:
            raise InputError(f"{folder}: holds folders, not label maps; give {folder / inside[0]}")
        expected = ", ".join(f"{pair.name}.png" for pair in pairset.pairs[:3])
        held = ", ".join(path.name for path in found[:3]) or "no image files"
        raise InputError(
            f"{folder}: no file is named after a pair of {pairset.dataset} {pairset.split}; expected "
            f"{expected}, ... (one label map per pair, its stem the pair's name), found {held}"
        )
    faults = []
    files = {path.stem: path for path in reversed(found)}
    for path in found:
        if path.stem in names and files[path.stem] != path:
            faults.append(f"{path}: {files[path.stem].name} has the same stem; keep one of them")
    for pair in pairset.pairs:
        if pair.name not in files:
            faults.append(f"{folder / pair.name}.png: missing; write a label map for this pair")
    return files, faults


def _resize_notes(resized: Counter[tuple[tuple[int, int], tuple[int, int]]]) -> list[str]:
    return [
        f"{count} label maps of {shape[0]}x{shape[1]} were resized to {size[0]}x{size[1]} (nearest pixel)"
        for (shape, size), count in sorted(resized.items())
        if count
    ]


def _extra_notes(files: dict[str, Path], pairset: PairSet) -> list[str]:
    extra = sorted(set(files) - {pair.name for pair in pairset.pairs})
    if not extra:
        return []
    shown = ", ".join(files[stem].name for stem in extra[:_SHOWN]) + (", ..." if len(extra) > _SHOWN else "")
    return [
        f"{len(extra)} files belong to no pair of {pairset.dataset} {pairset.split} and were left out: "
        f"{shown}"
    ]
