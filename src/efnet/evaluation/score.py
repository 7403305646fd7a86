"""Scoring of label maps that any program wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from efnet.core.errors import InputError, ManyInputsError
from efnet.data.images import IMAGE_SUFFIXES
from efnet.data.labels import read_label
from efnet.data.layouts.patterns import composed, images_below
from efnet.data.pairs import PairSet
from efnet.evaluation.metrics import Keep, Tally, resize_nearest
from efnet.evaluation.protocols import Protocol

_SHOWN = 5


def score_predictions(
    folder: Path,
    pairset: PairSet,
    protocol: Protocol,
    progress: Callable[[int, int], None] | None = None,
    keep: Keep | None = None,
    boundaries: bool = False,
) -> tuple[Tally, list[str]]:
    """Compare a folder of label maps with the labels of a split.

    A file belongs to the pair whose name is its stem. It is an index map (grey or palette PNG) or a
    colour map in the data set's palette. Maps of another size than the protocol's are resized, nearest
    pixel. `progress` is called with the number of pairs done and of all, `keep` with every prediction;
    `boundaries` also counts for boundary IoU.

    Returns:
        the counted pairs, and notes for the user: maps that were resized, files that belong to no pair.

    Raises:
        InputError: no such folder, nothing in it that belongs to the split, or an unfitting protocol.
        ManyInputsError: predictions or labels missing, ambiguous, unreadable or with values out of
            range, all named at once.
    """
    files, faults = _match(folder, pairset)
    tally = Tally(pairset.classes, protocol, boundaries=boundaries)
    resized: Counter[tuple[tuple[int, int], tuple[int, int]]] = Counter()
    for number, pair in enumerate(pairset.pairs, 1):
        path = files.get(pair.name)
        if path is not None:
            try:
                if pair.label is None:
                    raise InputError(f"pair {pair.name}: has no label; scoring needs one for every pair")
                truth = read_label(pair.label, pairset.classes)
                truth = truth[:, ::-1] if pair.flip else truth
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
    notes = [
        f"{count} label maps of {shape[0]}x{shape[1]} were resized to {size[0]}x{size[1]} (nearest pixel)"
        for (shape, size), count in sorted(resized.items())
        if count
    ]
    extra = sorted(set(files) - {pair.name for pair in pairset.pairs})
    if extra:
        shown = [files[stem].name for stem in extra[:_SHOWN]] + ["..."] * (len(extra) > _SHOWN)
        notes.append(
            f"{len(extra)} files belong to no pair of {pairset.dataset} {pairset.split} and were left out: "
            f"{', '.join(shown)}"
        )
    return tally, notes


def _match(folder: Path, pairset: PairSet) -> tuple[dict[str, Path], list[str]]:
    """Image files by stem, and a fault for every pair that has none or several."""
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; `predictions` takes a folder of label maps")
    names = {pair.name for pair in pairset.pairs}
    # Names of pairs may begin with sub-folders.
    nested = any("/" in name for name in names)
    listed = images_below(folder) if nested else folder.iterdir()
    found = sorted(path for path in listed if path.suffix.lower() in IMAGE_SUFFIXES)
    stems = {path: composed(path.relative_to(folder).with_suffix("").as_posix()) for path in found}
    matching = [path for path in found if stems[path] in names]
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
    files = {stems[path]: path for path in reversed(found)}
    for path in found:
        if stems[path] in names and files[stems[path]] != path:
            faults.append(f"{path}: {files[stems[path]].name} has the same stem; keep one of them")
    for pair in pairset.pairs:
        if pair.name not in files:
            faults.append(f"{folder / pair.name}.png: missing; write a label map for this pair")
    return files, faults
