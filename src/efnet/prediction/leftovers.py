"""Temporary files that a killed run left among its outputs."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from efnet.files import STEM_KEPT, leftovers
from efnet.prediction.inputs import InputPair
from efnet.prediction.result import output_paths


def remove_leftovers(
    folder: Path, own: Sequence[InputPair], pairs: Sequence[InputPair], outputs: Sequence[str]
) -> int:
    """Remove temporary files of outputs that this process is about to write.

    Args:
        folder: the output folder.
        own: pairs that this process is about to predict.
        pairs: of all processes: what another one has under way is left alone.
        outputs: kinds that are written.

    Returns:
        how many were there.
    """
    mine = {pair.name for pair in own}
    stems = _stems(folder, own, outputs)
    others = _stems(folder, [pair for pair in pairs if pair.name not in mine], outputs)
    removed = 0
    for place, names in stems.items():
        for stem, path in leftovers(place):
            if stem in names and stem not in others[place]:
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed += 1
    return removed


def _stems(folder: Path, pairs: Iterable[InputPair], outputs: Sequence[str]) -> defaultdict[Path, set[str]]:
    """What temporary files of the pairs' outputs carry as their stem, by folder."""
    found: defaultdict[Path, set[str]] = defaultdict(set)
    for pair in pairs:
        for path in output_paths(folder, pair.name, outputs):
            found[path.parent].add(path.stem[:STEM_KEPT])
    return found
