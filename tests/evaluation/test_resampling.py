"""Intervals and tests against a literal reference that sums whole confusion matrices, and by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scoring_cases import MFNET, named

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.evaluation.metrics import PairCounts, score
from efnet.evaluation.protocols import get_protocol
from efnet.evaluation.resampling import (
    Resampling,
    Runs,
    bootstrap,
    figures,
    holm,
    interval,
    read_groups,
    region_sums,
    swap_test,
)

NATIVE = get_protocol("native")


def counts_of(rng, images=7, classes=4, absent=0.3):
    """Random matrices of images in which some classes do not occur."""
    counts = rng.integers(0, 50, (images, classes, classes))
    gone = rng.random((images, classes)) < absent
    counts[gone] = 0
    np.moveaxis(counts, 2, 1)[gone & (rng.random(gone.shape) < 0.5)] = 0
    return counts


def pairs_of(counts):
    return [PairCounts(named(f"p{number}"), matrix) for number, matrix in enumerate(counts)]


def runs_of(*counts, protocol=NATIVE):
    return Runs.of([region_sums(pairs_of(each), protocol) for each in counts])


def literal(counts, protocol, classes):
    """Mean and classes of summed matrices, by the scoring that every report uses."""
    found = score(counts, protocol, classes)
    values = [found.miou, *found.iou.values()]
    return np.array([np.nan if value is None else value for value in values])


@pytest.mark.parametrize("protocol", ["mfnet", "mfnet-absent-zero", "mfnet-no-unlabeled", "mfnet-authors"])
def test_figures_are_those_of_every_report(protocol):
    rng = np.random.default_rng(1)
    rules = get_protocol(protocol)
    for _ in range(5):
        counts = counts_of(rng, classes=9, absent=0.7)
        runs = runs_of(counts, protocol=rules)
        np.testing.assert_allclose(runs.figures(rules), literal(counts.sum(axis=0), rules, MFNET))
        recall = score(counts.sum(axis=0), rules, MFNET).macc
        assert runs.figures(rules, "acc")[0] == pytest.approx(recall)


def test_resamples_are_those_of_a_loop_over_the_same_draws():
    rng = np.random.default_rng(2)
    classes, plan = ClassSet.generic(4), Resampling(resamples=100, seed=3)
    one, other = counts_of(rng), counts_of(rng)
    drawn = np.random.Generator(np.random.PCG64(3)).integers(0, 7, (100, 7))
    single = bootstrap(runs_of(one), np.arange(7), NATIVE, plan)
    both = bootstrap(runs_of(one, other), np.arange(7), NATIVE, plan)
    for row, places in enumerate(drawn):
        parts = [literal(each[places].sum(axis=0), NATIVE, classes) for each in (one, other)]
        np.testing.assert_allclose(single[row], parts[0])
        np.testing.assert_allclose(both[row], np.nanmean(parts, axis=0))
    bounds = interval(single, 0.9)
    assert bounds[0] == pytest.approx(tuple(np.nanquantile(single[:, 0], [0.05, 0.95])))


def test_groups_are_drawn_whole():
    rng = np.random.default_rng(4)
    counts = counts_of(rng, images=6)
    units = np.array([0, 1, 0, 2, 2, 1])
    grouped = np.stack([counts[units == unit].sum(axis=0) for unit in range(3)])
    plan = Resampling(resamples=200)
    np.testing.assert_array_equal(
        bootstrap(runs_of(counts), units, NATIVE, plan),
        bootstrap(runs_of(grouped), np.arange(3), NATIVE, plan),
    )


def test_exact_swaps_are_all_swaps():
    rng = np.random.default_rng(5)
    classes = ClassSet.generic(4)
    one, other = counts_of(rng, absent=0.0), counts_of(rng, absent=0.0)
    found = swap_test(runs_of(one), runs_of(other), np.arange(7), NATIVE, Resampling(resamples=1000))
    observed = abs(literal(one.sum(0), NATIVE, classes) - literal(other.sum(0), NATIVE, classes))
    hits = np.zeros(5)
    for kept in itertools.product((False, True), repeat=7):
        choice = np.array(kept)[:, None, None]
        mine, theirs = (np.where(choice, *pair).sum(axis=0) for pair in ((one, other), (other, one)))
        hits += abs(literal(mine, NATIVE, classes) - literal(theirs, NATIVE, classes)) >= observed - 1e-12
    np.testing.assert_allclose(found, hits / 2**7)


def test_random_swaps_agree_with_all_swaps():
    rng = np.random.default_rng(6)
    one, other = counts_of(rng, images=10, absent=0.0), counts_of(rng, images=10, absent=0.0)
    runs, units = (runs_of(one), runs_of(other)), np.arange(10)
    exact = swap_test(*runs, units, NATIVE, Resampling(resamples=1024))
    drawn = swap_test(*runs, units, NATIVE, Resampling(resamples=1023, seed=1))
    # A share of 1023 draws has a deviation of at most 0.016.
    np.testing.assert_allclose(drawn, exact, atol=5 * 0.016)
    assert drawn != exact


def test_equal_networks_are_not_different():
    runs = runs_of(counts_of(np.random.default_rng(7), images=30))
    units, plan = np.arange(30), Resampling(resamples=200)
    assert swap_test(runs, runs, units, NATIVE, plan) == [1.0] * 5
    change = bootstrap(runs, units, NATIVE, plan) - bootstrap(runs, units, NATIVE, plan)
    assert not np.nan_to_num(change).any()


def test_a_swap_needs_equally_many_runs():
    counts = counts_of(np.random.default_rng(8))
    with pytest.raises(ValueError, match="equally many"):
        swap_test(runs_of(counts), runs_of(counts, counts), np.arange(7), NATIVE, Resampling())


@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(2, 5))
def test_intervals_lie_among_the_resampled_figures(seed, images, classes):
    counts = counts_of(np.random.default_rng(seed), images, classes)
    plan = Resampling(resamples=100, seed=seed % 97)
    drawn = bootstrap(runs_of(counts), np.arange(images), NATIVE, plan)
    assert drawn.shape == (100, 1 + classes)
    assert np.nanmin(drawn, initial=0.0) >= 0.0
    assert np.nanmax(drawn, initial=1.0) <= 1.0
    for column, bounds in zip(drawn.T, interval(drawn, 0.95), strict=True):
        if bounds is not None:
            assert np.nanmin(column) <= bounds[0] <= bounds[1] <= np.nanmax(column)


def made_images(rng, images, hit):
    """Matrices of images of two classes, in which a pixel is right with a probability that varies."""
    size = 400
    own = np.clip(hit + rng.normal(0, 0.1, (images, 2)), 0.02, 0.98)
    right = rng.binomial(size, own)
    counts = np.zeros((images, 2, 2), dtype=np.int64)
    counts[:, 0, 0], counts[:, 1, 1] = right.T
    counts[:, 0, 1], counts[:, 1, 0] = size - right.T
    return counts


def test_intervals_cover_the_true_figure_nearly_as_often_as_stated():
    """Images drawn from a population whose mIoU is known: 95 % intervals hold it in 89 to 98 % of 300 splits.

    The percentile interval is a little narrow for 40 images; a share of 300 has a deviation of 0.013.
    """
    rng = np.random.default_rng(9)
    population = made_images(rng, 200_000, 0.8).sum(axis=0)
    truth = score(population, NATIVE, ClassSet.generic(2)).miou
    plan, covered = Resampling(resamples=1000), 0
    for _ in range(300):
        drawn = bootstrap(runs_of(made_images(rng, 40, 0.8)), np.arange(40), NATIVE, plan)
        low, high = interval(drawn[:, :1], 0.95)[0]
        covered += low <= truth <= high
    assert 0.89 * 300 <= covered <= 0.98 * 300


def test_p_is_uniform_where_the_networks_are_equally_good():
    rng = np.random.default_rng(10)
    plan = Resampling(resamples=199)
    found = []
    for _ in range(300):
        one, other = made_images(rng, 30, 0.8), made_images(rng, 30, 0.8)
        found.append(swap_test(runs_of(one), runs_of(other), np.arange(30), NATIVE, plan)[0])
    ordered = np.sort(found)
    distance = np.abs(ordered - (np.arange(300) + 0.5) / 300).max()
    assert distance < 1.63 / np.sqrt(300)  # Kolmogorov and Smirnov's bound at 0.01


def test_a_better_network_is_found():
    rng = np.random.default_rng(11)
    one, other = runs_of(made_images(rng, 40, 0.8)), runs_of(made_images(rng, 40, 0.7))
    units, plan = np.arange(40), Resampling(resamples=999)
    change = bootstrap(one, units, NATIVE, plan) - bootstrap(other, units, NATIVE, plan)
    assert interval(change, 0.95)[0][0] > 0
    assert swap_test(one, other, units, NATIVE, plan)[0] == pytest.approx(0.001)


def test_missing_figures_have_no_interval():
    drawn = np.full((100, 2), np.nan)
    drawn[:60, 1] = np.linspace(0, 1, 60)
    assert interval(drawn, 0.95)[0] is None
    assert interval(drawn, 0.5)[1] == pytest.approx((0.25, 0.75))


def test_absent_classes_follow_the_protocol():
    sums = np.zeros((3, 9))
    sums[:, 1] = [5, 10, 10]
    skipped, zero = (figures(sums, get_protocol(name)) for name in ("mfnet", "mfnet-absent-zero"))
    assert skipped[0] == pytest.approx(1 / 3)
    assert np.isnan(skipped[1])
    assert zero[0] == pytest.approx(1 / 27)


def test_holm_multiplies_by_the_hypotheses_left():
    """Four hypotheses: 0.01 * 4, 0.02 * 3, 0.03 * 2, then the maximum so far."""
    assert holm([0.03, None, 0.01, 0.04, 0.02]) == pytest.approx([0.06, None, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


NAMES = ["00105D", "00110D", "00505D"]


def test_groups_by_pattern_and_by_file(tmp_path):
    assert read_groups(r"^(\d{3})", NAMES) == {"00105D": "001", "00110D": "001", "00505D": "005"}
    assert set(read_groups("^...", NAMES).values()) == {"001", "005"}
    file = tmp_path / "groups.csv"
    file.write_text("00105D,a\n00110D , a\n\n00505D,b\nelsewhere,c\n")
    assert read_groups(str(file), NAMES) == {"00105D": "a", "00110D": "a", "00505D": "b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(", "neither a file nor a regular expression"),
        ("^(001)", "1 of 3 pairs have no group .first: 00505D"),
        ("D$", "all pairs are in one group"),
    ],
)
def test_wrong_patterns_are_named(text, message):
    with pytest.raises(InputError, match=message):
        read_groups(text, NAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("00105D a\n", "line 1: write name,group"),
        ("00105D,a\n00105D,b\n", "line 2: 00105D is in a already"),
        ("00105D,a\n", "2 of 3 pairs have no group"),
        (b"\xff\xfe", "cannot be read as text"),
    ],
)
def test_wrong_group_files_are_named(tmp_path, text, message):
    file = tmp_path / "groups.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        read_groups(str(file), NAMES)


def test_wrong_settings_are_named():
    for settings in ({"level": 95}, {"level": 0.2}, {"resamples": 10}):
        with pytest.raises(InputError, match=f"`{next(iter(settings))}`"):
            Resampling(**settings)
