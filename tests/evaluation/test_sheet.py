import dataclasses

import numpy as np
import pytest
from scoring_cases import MFNET, named

from efnet.core.classes import ClassSet
from efnet.evaluation.metrics import Tally
from efnet.evaluation.protocols import get_protocol
from efnet.evaluation.sheet import IGNORED, WRONG, SheetRow, choose_rows, draw_sheet, error_panel

NATIVE = get_protocol("native")


def made_row(height=12, width=20, classes=4, name="frame"):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, classes, (height, width)).astype(np.uint8)
    truth[0] = 255
    prediction = truth.copy()
    prediction[:, :3] = (truth[:, :3] + 1) % classes
    return SheetRow(
        name,
        rng.integers(0, 256, (height, width, 3)).astype(np.uint8),
        rng.random((height, width)),
        prediction,
        truth,
    )


def test_error_panel_paints_wrong_and_ignored_pixels_and_no_others():
    row = made_row()
    panel = error_panel(row, NATIVE)
    ignored = row.truth == 255
    wrong = (row.prediction != row.truth) & ~ignored
    assert (panel[ignored] == IGNORED).all()
    assert (panel[wrong] == WRONG).all()
    rest = panel[~ignored & ~wrong]
    assert (rest[:, 0] == rest[:, 1]).all()
    assert (rest[:, 1] == rest[:, 2]).all()


def test_error_panel_follows_the_protocol():
    row = made_row()
    panel = error_panel(row, dataclasses.replace(NATIVE, ignored_truth=(2,), ignored_prediction=(1,)))
    assert (panel[(row.truth == 2) | (row.prediction == 1)] == IGNORED).all()


def test_error_panel_takes_maps_of_other_sizes():
    row = made_row()
    small = dataclasses.replace(row, prediction=row.prediction[::2, ::2], rgb=row.rgb[::3, ::3])
    assert error_panel(small, NATIVE).shape == (12, 20, 3)


@pytest.mark.parametrize("shapes", [[(12, 20)], [(48, 64), (31, 77), (90, 40)]])
def test_sheet_shows_every_row_and_every_class(shapes):
    rows = [made_row(*shape, name=f"row{number}") for number, shape in enumerate(shapes)]
    sheet = np.asarray(draw_sheet(rows, MFNET, NATIVE, title="title"))
    heights = [round(320 * height / width) for height, width in shapes]
    assert sheet.shape[1] == 5 * 320 + 6 * 8
    assert sheet.shape[0] > sum(heights)
    seen = {tuple(color) for color in sheet[-60:].reshape(-1, 3)}
    assert {*MFNET.palette, WRONG, IGNORED} <= seen


def test_many_classes_wrap_in_the_legend():
    classes = ClassSet.generic(60)
    sheet = draw_sheet([made_row()], classes, NATIVE)
    few = draw_sheet([made_row()], ClassSet.generic(4), NATIVE)
    assert sheet.height > few.height + 3 * 20
    seen = {tuple(color) for color in np.asarray(sheet).reshape(-1, 3)}
    assert set(classes.palette) <= seen


def test_a_sheet_without_rows_is_a_mistake():
    with pytest.raises(ValueError, match="at least one row"):
        draw_sheet([], MFNET, NATIVE)


def ranked_tally(qualities, condition=lambda number: None):
    """Pairs of two classes of which a given number of pixels is right."""
    tally = Tally(ClassSet.generic(3), NATIVE)
    for number, right in enumerate(qualities):
        truth = np.repeat(np.array([[1], [2]], np.uint8), 50, axis=1)
        prediction = np.zeros_like(truth)
        prediction[:, :right] = truth[:, :right]
        tally.add(named(f"p{number}", condition(number)), truth, prediction)
    return tally


def test_choice_is_best_median_worst():
    assert choose_rows(ranked_tally([10, 50, 30, 20, 40]), 3) == [1, 2, 0]
    assert choose_rows(ranked_tally([10, 50, 30]), 6) == [1, 2, 0]
    assert choose_rows(ranked_tally([10, 50, 30]), 1) == [2]


def test_choice_shares_between_day_and_night():
    qualities = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    tally = ranked_tally(qualities, lambda number: "night" if number < 7 else "day")
    assert choose_rows(tally, 4) == [9, 7, 6, 0]
    assert choose_rows(tally, 5) == [9, 8, 7, 6, 0]


def test_choice_passes_over_pairs_that_show_nothing():
    tally = ranked_tally([10, 20])
    empty = np.zeros((2, 50), np.uint8)
    tally.add(named("only-background"), empty, empty)
    tally.add(named("void"), np.full((2, 50), 255, np.uint8), empty)
    assert choose_rows(tally, 4) == [1, 0]
    background = Tally(ClassSet.generic(3), NATIVE)
    background.add(named("only"), empty, empty)
    assert choose_rows(background, 4) == [0]
