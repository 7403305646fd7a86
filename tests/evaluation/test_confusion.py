import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scoring_oracle import oracle

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.evaluation.metrics import (
    ConfusionMatrix,
    accuracy,
    confusion_matrix,
    constant_prediction,
    iou,
    score,
)
from efnet.evaluation.protocols import get_protocol

CLASSES = ClassSet.generic(5)
NATIVE = get_protocol("native")

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def label_pairs(draw, num_classes=5, ignored=True):
    """Truth (some of it 255) and prediction of one odd size."""
    shape = draw(shapes)
    values = st.integers(0, num_classes - 1)
    truth_values = values | st.just(255) if ignored else values
    return (
        draw(hnp.arrays(np.uint8, shape, elements=truth_values)),
        draw(hnp.arrays(np.uint8, shape, elements=values)),
    )


def counts_of(pairs, num_classes=5):
    matrix = ConfusionMatrix(num_classes)
    for truth, prediction in pairs:
        matrix.update(truth, prediction)
    return matrix.counts


def agrees(ours, theirs):
    return (ours is None and theirs is None) or math.isclose(ours, theirs, rel_tol=1e-12)


PROTOCOLS = st.fixed_dictionaries(
    {
        "left_out": st.sampled_from([(), (0,), (0, 3)]),
        "ignored_truth": st.sampled_from([(), (0,), (1, 4)]),
        "ignored_prediction": st.sampled_from([(), (0,)]),
        "absent": st.sampled_from(["skip", "zero"]),
    }
)


@settings(deadline=None)
@given(st.lists(label_pairs(), min_size=1, max_size=3), PROTOCOLS)
def test_agrees_with_sets_of_pixels_under_any_rule(pairs, rules):
    protocol = dataclasses.replace(NATIVE, **rules)
    scores = score(counts_of(pairs), protocol, CLASSES)
    averaged = protocol.averaged(5)
    rest = {key: rules[key] for key in ("ignored_truth", "ignored_prediction", "absent")}
    miou, macc, ious, accuracies = oracle(*zip(*pairs, strict=True), 5, averaged=averaged, **rest)
    assert agrees(scores.miou, miou)
    assert agrees(scores.macc, macc)
    for ours, theirs in ((scores.iou, ious), (scores.acc, accuracies)):
        for value, name in enumerate(CLASSES.names):
            expected = None if math.isnan(theirs[value]) else theirs[value]
            if expected is None and rules["absent"] == "zero":
                expected = 0.0
            assert ours[name] == (expected if value in averaged else None)


@settings(deadline=None)
@given(label_pairs(ignored=False))
def test_perfect_prediction_is_one(pair):
    truth, _ = pair
    scores = score(confusion_matrix(truth, truth, 5), NATIVE, CLASSES)
    assert scores.miou == scores.macc == 1.0
    assert {name for name, value in scores.iou.items() if value == 1.0} == {
        CLASSES.names[value] for value in np.unique(truth)
    }


@settings(deadline=None)
@given(label_pairs(), st.permutations(range(5)))
def test_renaming_the_classes_permutes_the_scores(pair, order):
    table = np.full(256, 255, dtype=np.uint8)
    table[:5] = order
    before = confusion_matrix(*pair, 5)
    after = confusion_matrix(table[pair[0]], table[pair[1]], 5)
    np.testing.assert_array_equal(after[np.ix_(order, order)], before)
    np.testing.assert_array_equal(iou(after)[order], iou(before))
    np.testing.assert_array_equal(accuracy(after)[order], accuracy(before))


@settings(deadline=None)
@given(st.lists(label_pairs(), max_size=4), st.integers(0, 4))
def test_merging_parts_equals_the_whole(pairs, cut):
    whole = counts_of(pairs)
    first, second = ConfusionMatrix(5), ConfusionMatrix(5)
    for number, pair in enumerate(pairs):
        (first if number < cut else second).update(*pair)
    np.testing.assert_array_equal(first.counts + second.counts, whole)
    assert first.images + second.images == len(pairs)


@settings(deadline=None)
@given(label_pairs(), st.integers(0, 4))
def test_constant_prediction_is_what_counting_it_gives(pair, value):
    truth, prediction = pair
    constant = np.full_like(prediction, value)
    np.testing.assert_array_equal(
        constant_prediction(confusion_matrix(truth, prediction, 5), value),
        confusion_matrix(truth, constant, 5),
    )


@settings(deadline=None)
@given(label_pairs())
def test_any_integer_type_counts_alike(pair):
    expected = confusion_matrix(*pair, 5)
    for kind in (np.int64, np.uint16, np.int32):
        np.testing.assert_array_equal(
            confusion_matrix(*(values.astype(kind) for values in pair), 5), expected
        )


def test_rows_are_truth_columns_prediction():
    counts = confusion_matrix(np.array([[1, 1, 2, 255]]), np.array([[1, 0, 0, 3]]), 4)
    assert counts.dtype == np.int64
    assert counts.tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_views_and_mirrored_arrays_count_alike():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 5, (2, 7, 11)).astype(np.uint8)
    np.testing.assert_array_equal(
        confusion_matrix(truth[:, ::-1], prediction[:, ::-1], 5), confusion_matrix(truth, prediction, 5)
    )


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ([[5, 0]], [[0, 0]], r"truth holds 5 at 1 pixels, outside 0\.\.4"),
        ([[0, 0]], [[7, 6]], r"prediction holds 6, 7 at 2 pixels, outside 0\.\.4"),
        ([[0, 1]], [[0, 255]], r"prediction holds 255 at 1 pixels"),
        ([[255, 1]], [[9, 1]], r"prediction holds 9 at 1 pixels"),
        ([[0, -1]], [[0, 0]], r"truth holds -1\.\.0"),
        ([[0, 1]], [[0, 300]], r"prediction holds 0\.\.300"),
        ([[0.0, 1.0]], [[0, 1]], r"truth holds float64 values"),
        ([[0, 1]], [[0, 1], [0, 1]], r"truth is 1x2 but the prediction 2x2"),
    ],
)
def test_bad_values_are_refused_and_nothing_is_counted(truth, prediction, message):
    matrix = ConfusionMatrix(5)
    with pytest.raises(InputError, match=message):
        matrix.update(np.array(truth), np.array(prediction))
    assert matrix.images == 0
    assert not matrix.counts.any()


def test_255_is_allowed_in_a_prediction_where_truth_is_left_out():
    values = np.array([[255, 2, 3]], dtype=np.uint8)
    assert score(confusion_matrix(values, values, 5), NATIVE, CLASSES).miou == 1.0


def test_absent_rules_differ_as_they_should():
    # Class 4 in neither map; class 3 predicted but not there: IoU 0 under both rules, recall undefined.
    counts = confusion_matrix(np.array([[0, 1, 2, 2]]), np.array([[0, 1, 2, 3]]), 5)
    skip = score(counts, NATIVE, CLASSES)
    zero = score(counts, dataclasses.replace(NATIVE, absent="zero"), CLASSES)
    assert skip.iou == {"class_0": 1, "class_1": 1, "class_2": 0.5, "class_3": 0, "class_4": None}
    assert skip.miou == 2.5 / 4
    assert zero.miou == 2.5 / 5
    assert skip.acc == {"class_0": 1, "class_1": 1, "class_2": 0.5, "class_3": None, "class_4": None}
    assert skip.macc == 2.5 / 3
    assert zero.macc == 2.5 / 5


def test_leaving_out_of_the_mean_is_not_leaving_out_of_the_count():
    truth, prediction = np.array([[0, 0, 1, 1]]), np.array([[1, 0, 1, 0]])
    counts = confusion_matrix(truth, prediction, 9)
    classes = ClassSet.generic(9)
    false_alarm_counts = score(counts, get_protocol("mfnet-no-unlabeled"), classes)
    nothing_of_unlabeled = score(counts, get_protocol("mfnet-authors"), classes)
    assert false_alarm_counts.iou["class_1"] == 1 / 3
    assert nothing_of_unlabeled.iou["class_1"] == 1.0
    assert nothing_of_unlabeled.miou == 1 / 8  # seven absent classes count 0
    assert false_alarm_counts.iou["class_0"] is None


def test_fmb_ignores_background_in_truth_but_not_in_the_prediction():
    classes = ClassSet.generic(15)
    truth, prediction = np.array([[0, 0, 1, 1]]), np.array([[1, 2, 1, 0]])
    scores = score(confusion_matrix(truth, prediction, 15), get_protocol("fmb"), classes)
    assert scores.iou["class_1"] == 0.5  # a miss; the false alarms on background do not count
    assert scores.iou["class_2"] is None
    assert scores.miou == 0.5
    counted = score(confusion_matrix(truth, prediction, 15), get_protocol("fmb-15"), classes)
    assert counted.iou["class_1"] == 1 / 3


def test_nothing_counted_is_none_not_a_number():
    scores = score(np.zeros((5, 5), dtype=np.int64), NATIVE, CLASSES)
    assert scores.miou is None
    assert scores.macc is None
