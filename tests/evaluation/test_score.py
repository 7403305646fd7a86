import dataclasses

import numpy as np
import pytest
from PIL import Image
from scoring_cases import write_pairset
from scoring_oracle import oracle

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError, ManyInputsError
from efnet.data.labels import read_label
from efnet.data.layouts import open_split
from efnet.evaluation.protocols import get_protocol
from efnet.evaluation.score import score_predictions

FOUR = dataclasses.replace(ClassSet.generic(4), invented=False)  # maps in colours are read
NATIVE = get_protocol("native")


@pytest.fixture
def case(tmp_path):
    """A split, a folder of index maps that are half right, and the arrays of both."""
    pairset = write_pairset(tmp_path / "data", [(33, 47), (40, 56), (20, 20)], FOUR)
    folder = tmp_path / "predictions"
    folder.mkdir()
    rng = np.random.default_rng(1)
    truths, predictions = [], []
    for pair in pairset.pairs:
        truth = read_label(pair.label, FOUR)
        right = rng.random(truth.shape) < 0.5
        said = np.where(right & (truth < 4), truth, rng.integers(0, 4, truth.shape)).astype(np.uint8)
        Image.fromarray(said).save(folder / f"{pair.name}.png")
        truths.append(truth)
        predictions.append(said)
    return pairset, folder, truths, predictions


def palette_png(values):
    image = Image.fromarray(values)
    image.putpalette(FOUR.flat_palette())
    return image


WRITERS = {
    "index": Image.fromarray,
    "palette": palette_png,
    "color": lambda values: Image.fromarray(FOUR.colorize(values)),
    "index16": lambda values: Image.fromarray(values.astype(np.uint16)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_map_gets_the_oracle_s_figure(case, kind):
    pairset, folder, truths, predictions = case
    for pair, values in zip(pairset.pairs, predictions, strict=True):
        WRITERS[kind](values).save(folder / f"{pair.name}.png")
    done = []
    tally, notes = score_predictions(folder, pairset, NATIVE, progress=lambda *count: done.append(count))
    miou, macc, _, _ = oracle(truths, predictions, 4)
    assert tally.scores().miou == pytest.approx(miou, rel=1e-12)
    assert tally.scores().macc == pytest.approx(macc, rel=1e-12)
    assert notes == []
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_maps_of_other_sizes_are_resized_and_told(case):
    pairset, folder, truths, predictions = case
    Image.fromarray(np.repeat(np.repeat(predictions[1], 3, 0), 3, 1)).save(folder / "pair1.png")
    tally, notes = score_predictions(folder, pairset, NATIVE)
    assert tally.scores().miou == pytest.approx(oracle(truths, predictions, 4)[0])
    assert notes == ["1 label maps of 120x168 were resized to 40x56 (nearest pixel)"]


def test_other_files_are_told(case):
    pairset, folder, _, _ = case
    Image.new("L", (4, 4)).save(folder / "stranger.png")
    (folder / "notes.txt").write_text("no picture")
    _, notes = score_predictions(folder, pairset, NATIVE)
    assert notes == ["1 files belong to no pair of made test and were left out: stranger.png"]


def test_all_faults_are_named_at_once(case):
    pairset, folder, _, _ = case
    (folder / "pair0.png").unlink()
    Image.fromarray(np.full((40, 56), 9, np.uint8)).save(folder / "pair1.png")
    (folder / "pair2.png").write_bytes(b"garbage")
    with pytest.raises(ManyInputsError) as caught:
        score_predictions(folder, pairset, NATIVE)
    assert len(caught.value.faults) == 3
    for name in ("pair0.png: missing", "pair1.png: label values outside", "pair2.png: cannot be read"):
        assert name in str(caught.value)


def test_left_out_pixels_may_not_be_predicted(case):
    pairset, folder, truths, _ = case
    Image.fromarray(np.full(truths[0].shape, 255, np.uint8)).save(folder / "pair0.png")
    with pytest.raises(ManyInputsError, match=r"pair0\.png: pair pair0: the prediction holds 255 at"):
        score_predictions(folder, pairset, NATIVE)


def test_two_files_for_one_pair_are_ambiguous(case):
    pairset, folder, _, predictions = case
    Image.fromarray(predictions[0]).save(folder / "pair0.tif")
    with pytest.raises(ManyInputsError, match=r"pair0\.\w+: pair0\.\w+ has the same stem"):
        score_predictions(folder, pairset, NATIVE)


def test_names_that_fit_nothing_are_shown_beside_what_is_expected(case):
    pairset, folder, _, _ = case
    for number in range(3):
        (folder / f"pair{number}.png").rename(folder / f"pair{number}_pred.png")
    with pytest.raises(InputError, match=r"expected pair0\.png, .*found pair0_pred\.png"):
        score_predictions(folder, pairset, NATIVE)


def test_folders_that_hold_no_maps(case, tmp_path):
    pairset, folder, _, _ = case
    with pytest.raises(InputError, match="is not a folder"):
        score_predictions(folder / "nowhere", pairset, NATIVE)
    with pytest.raises(InputError, match="found no image files"):
        score_predictions(tmp_path, pairset, NATIVE)
    folder.rename(tmp_path / "index")
    with pytest.raises(InputError, match=r"give .*index$"):
        score_predictions(tmp_path, pairset, NATIVE)


def test_mirrored_pairs_are_scored_mirrored(case):
    pairset, folder, truths, predictions = case
    pairset = dataclasses.replace(
        pairset, pairs=tuple(dataclasses.replace(pair, flip=True) for pair in pairset.pairs)
    )
    for pair, values in zip(pairset.pairs, predictions, strict=True):
        Image.fromarray(values[:, ::-1].copy()).save(folder / f"{pair.name}.png")
    tally, _ = score_predictions(folder, pairset, NATIVE)
    assert tally.scores().miou == pytest.approx(oracle(truths, predictions, 4)[0])


def test_unlabelled_pairs_cannot_be_scored(case):
    pairset, folder, _, _ = case
    pairs = (dataclasses.replace(pairset.pairs[0], label=None), *pairset.pairs[1:])
    with pytest.raises(ManyInputsError, match="pair0: has no label"):
        score_predictions(folder, dataclasses.replace(pairset, pairs=pairs), NATIVE)


@pytest.fixture(scope="module")
def mfnet_root(samples):
    return samples / "mfnet"


def test_real_labels_score_one_against_themselves(mfnet_root):
    pairset = open_split("mfnet", mfnet_root, "test")
    tally, notes = score_predictions(mfnet_root / "labels", pairset, get_protocol("mfnet"))
    assert tally.scores().miou == tally.scores().macc == 1.0
    assert tally.conditions() == ("day", "night")
    assert tally.matrix("day").images == tally.matrix("night").images == 20
    assert "120 files belong to no pair" in notes[0]


def test_real_trivial_figure(mfnet_root, tmp_path):
    """Predicting unlabeled everywhere: IoU of unlabeled is its share of pixels, of all others 0."""
    pairset = open_split("mfnet", mfnet_root, "test")
    labels = [np.asarray(Image.open(pair.label)) for pair in pairset.pairs]
    for pair in pairset.pairs:
        Image.new("L", (640, 480)).save(tmp_path / f"{pair.name}.png")
    tally, _ = score_predictions(tmp_path, pairset, get_protocol("mfnet"))
    for condition in (None, "day", "night"):
        chosen = np.stack(
            [
                label
                for pair, label in zip(pairset.pairs, labels, strict=True)
                if condition in (None, pair.condition)
            ]
        )
        scores = tally.scores(condition)
        present = len(np.unique(chosen))
        assert scores.miou == pytest.approx((chosen == 0).mean() / present)
        assert scores.macc == pytest.approx(1 / present)
