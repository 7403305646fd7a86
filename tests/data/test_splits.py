"""The held-out part: by sequence, deterministic, never empty, never everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from efnet.data.layouts.listing import VAL_FRACTION, held_out, sequence_of

PST900 = [
    f"{bag}_bag{bag % 7}_rect_rgb_frame{frame:010d}"
    for bag in range(30, 60)
    for frame in range(7, 7 + 5 * (bag % 9), 5)
]


def test_sequence_names() -> None:
    assert sequence_of("58_bag21_rect_rgb_frame0000000440") == "58_bag21_rect_rgb_frame"
    assert sequence_of("00001D") == ""
    assert sequence_of("12") == ""
    assert sequence_of("kitchen-3-00017") == "kitchen-3"
    assert sequence_of("kitchen") == "kitchen"


def test_whole_sequences_are_held_out() -> None:
    val = held_out(PST900)
    assert VAL_FRACTION <= len(val) / len(PST900) <= 0.25
    inside = {sequence_of(name) for name in val}
    outside = {sequence_of(name) for name in PST900 if name not in val}
    assert not inside & outside
    assert len(inside) > 1


def test_bare_numbers_are_held_out_in_blocks() -> None:
    names = [f"{number:05d}" for number in range(1220)]
    val = sorted(int(name) for name in held_out(names))
    assert len(val) == 122
    starts = [number for number in val if number - 1 not in val]
    assert len(starts) == 10  # ten runs of about twelve, not 122 single frames
    assert starts[0] < 122
    assert starts[-1] > 1220 - 122


def test_mirrored_copies_go_with_their_originals() -> None:
    names = [f"{number:05d}D" for number in range(40)]
    val = held_out(names + [f"{name}_flip" for name in names])
    assert val == held_out(names) | {f"{name}_flip" for name in held_out(names)}
    assert held_out(["00001D", "00001D_flip"]) == frozenset()


@given(st.lists(st.text("ab_01", min_size=1, max_size=6), unique=True, max_size=80))
def test_never_empty_never_everything_always_the_same(names: list[str]) -> None:
    val = held_out(names)
    assert val <= set(names)
    assert val == held_out(list(names))
    if len(names) >= 2:
        assert 0 < len(val) < len(names)
    else:
        assert not val
