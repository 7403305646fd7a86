"""A validation part held out of a training set that comes without one.

Neighbouring frames of a drive are nearly the same picture: held out frame by frame, they would measure
memory. So whole sequences are held out, or, where names tell no sequences, contiguous blocks.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Sequence

from efnet.data.pairs import FLIP_SUFFIX

VAL_FRACTION = 0.1
"""Share of the training pairs held out, at least."""

_MAX_FRACTION = 0.25  # a sequence that would take more than this stays in training
_BLOCK = 8  # frames per block, where sequences are unknown
_MAX_BLOCKS = 10
_FRAME_NUMBER = re.compile(r"(.*?)[\W_]*\d+[A-Za-z]?")


def sequence_of(name: str) -> str:
    """The sequence that a frame belongs to: its name without the last number.

    PST900's `58_bag21_rect_rgb_frame0000000440` gives `58_bag21_rect_rgb_frame`; a bare number, with or
    without a letter behind it (`00001D`), gives the empty name.
    """
    match = _FRAME_NUMBER.fullmatch(name)
    return match[1] if match else name


def held_out(names: Sequence[str], fraction: float = VAL_FRACTION) -> frozenset[str]:
    """Choose the validation part of `names`; the same names always give the same choice.

    A mirrored copy (`_flip`) goes where its original goes.

    Args:
        names: of all training pairs, in the order of recording.
        fraction: share to hold out, at least.

    Returns:
        at least one name if there are two pairs or more, and never all of them; none otherwise.
    """
    originals = list(dict.fromkeys(name.removesuffix(FLIP_SUFFIX) for name in names))
    if len(originals) < 2:
        return frozenset()
    chosen = _held_out_originals(originals, fraction)
    return frozenset(name for name in names if name.removesuffix(FLIP_SUFFIX) in chosen)


def _held_out_originals(names: Sequence[str], fraction: float) -> frozenset[str]:
    """`held_out` for two names or more, none of them a mirrored copy."""
    sequences: dict[str, list[str]] = defaultdict(list)
    for name in names:
        sequences[sequence_of(name)].append(name)
    # As many sequences as names: each name is its own sequence, which says nothing about neighbours.
    if 3 <= len(sequences) < len(names):
        chosen = _whole_sequences(sequences, len(names), fraction)
        if chosen:
            return chosen
    return _blocks(names, fraction)


def _whole_sequences(sequences: dict[str, list[str]], total: int, fraction: float) -> frozenset[str]:
    """Sequences, in an order that no naming scheme favours, until enough is held out."""
    chosen: set[str] = set()
    for key in sorted(sequences, key=lambda key: (zlib.crc32(key.encode()), key)):
        if len(chosen) >= fraction * total:
            break
        if len(chosen) + len(sequences[key]) <= _MAX_FRACTION * total:
            chosen.update(sequences[key])
    return frozenset(chosen)


def _blocks(names: Sequence[str], fraction: float) -> frozenset[str]:
    """Contiguous blocks from the middle of equal stretches of `names`."""
    count = min(max(1, round(fraction * len(names))), len(names) - 1)
    blocks = min(max(1, count // _BLOCK), _MAX_BLOCKS)
    chosen: set[str] = set()
    for block in range(blocks):
        start, stop = (len(names) * edge // blocks for edge in (block, block + 1))
        size = count * (block + 1) // blocks - count * block // blocks
        first = start + (stop - start - size) // 2
        chosen.update(names[first : first + size])
    return frozenset(chosen)
