import dataclasses

import numpy as np
import pytest
import torch
from scoring_cases import write_pairset
from scoring_oracle import oracle
from torch import nn
from torch.nn import functional as F

import efnet
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.data.augment import AugmentConfig
from efnet.data.dataset import PairDataset
from efnet.evaluation.evaluate import check_classes, evaluate
from efnet.evaluation.protocols import get_protocol
from efnet.inference.engine import TTA_SCALES, Engine

FOUR = ClassSet.generic(4)
NATIVE = get_protocol("native")


class Mixer(nn.Module):
    """A small network whose answer depends on both images and on where a pixel lies."""

    def __init__(self, classes=4):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(4, classes, 5, padding=2)

    def forward(self, rgb, thermal):
        return self.layer(torch.cat([rgb, thermal], dim=1))


def by_hand(model, pairset, scored=None, seen=None):
    """Truths and predictions, one pair at a time and without any of the code under test."""
    truths, predictions = [], []
    dataset = PairDataset(pairset, size=seen)
    for index in range(len(pairset)):
        item = dataset[index]
        with torch.no_grad():
            logits = model(item["rgb"][None], item["thermal"][None])
        size = scored or tuple(item["label"].shape)
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        predictions.append(logits[0].argmax(0).numpy())
        label = item["label"][None, None].float()
        truths.append(F.interpolate(label, size=size, mode="nearest-exact")[0, 0].numpy().astype(int))
    return truths, predictions


@pytest.mark.parametrize(
    ("shapes", "scored", "seen"),
    [
        ([(40, 56), (40, 56), (40, 56)], None, None),
        ([(33, 47), (40, 56), (61, 35)], None, None),
        ([(33, 47), (40, 56), (61, 35)], None, (32, 64)),
        ([(33, 47), (40, 56)], (50, 70), (48, 48)),
    ],
)
def test_agrees_with_one_pair_at_a_time(tmp_path, shapes, scored, seen):
    pairset = write_pairset(tmp_path, shapes, FOUR)
    model = Mixer()
    engine = Engine(model, FOUR, size=seen)
    tally = evaluate(engine, pairset, dataclasses.replace(NATIVE, size=scored), batch_size=2)
    truths, predictions = by_hand(model, pairset, scored, seen)
    miou, macc, _, _ = oracle(truths, predictions, 4)
    assert tally.scores().miou == pytest.approx(miou, rel=1e-12)
    assert tally.scores().macc == pytest.approx(macc, rel=1e-12)
    assert [entry.pair.name for entry in tally.pairs] == [pair.name for pair in pairset.pairs]


def test_batches_and_workers_change_nothing(tmp_path):
    pairset = write_pairset(tmp_path, [(40, 56), (40, 56), (64, 48), (40, 56), (40, 56)], FOUR)
    model = Mixer()
    alone = evaluate(model, pairset, NATIVE)
    for options in ({"batch_size": 4}, {"batch_size": 3, "workers": 2}):
        together = evaluate(model, pairset, NATIVE, **options)
        for first, second in zip(alone.pairs, together.pairs, strict=True):
            assert first.pair == second.pair
            np.testing.assert_array_equal(first.counts, second.counts)


def test_takes_a_data_set_that_keeps_its_images(tmp_path):
    pairset = write_pairset(tmp_path, [(40, 56), (64, 48)], FOUR)
    kept = PairDataset(pairset, size=(32, 48), cache=True)
    for _ in range(2):
        np.testing.assert_array_equal(
            evaluate(Mixer(), kept, NATIVE).matrix().counts,
            evaluate(Engine(Mixer(), FOUR, size=(32, 48)), pairset, NATIVE).matrix().counts,
        )
    with pytest.raises(ValueError, match="of the size that the engine has"):
        evaluate(Engine(Mixer(), FOUR), kept, NATIVE)
    with pytest.raises(ValueError, match="without augmentation"):
        evaluate(Mixer(), PairDataset(pairset, size=(32, 48), augment=AugmentConfig()), NATIVE)


def test_augmentation_averages_probabilities_over_scales_and_mirrors(tmp_path):
    pairset = write_pairset(tmp_path, [(40, 56), (64, 48)], FOUR)
    model = Mixer()
    kept = {}
    evaluate(
        model,
        pairset,
        NATIVE,
        tta=True,
        batch_size=2,
        keep=lambda pair, said, _: kept.update({pair.name: said}),
    )
    plain = {}
    evaluate(model, pairset, NATIVE, keep=lambda pair, said, _: plain.update({pair.name: said}))
    dataset = PairDataset(pairset)
    for index, pair in enumerate(pairset.pairs):
        item = dataset[index]
        images = torch.cat([item["rgb"], item["thermal"]])[None]
        size = images.shape[2:]
        views = []
        for scale in TTA_SCALES:
            scaled = tuple(max(32, round(side * scale)) for side in size)
            resized = F.interpolate(images, size=scaled, mode="bilinear", align_corners=False)
            for flip in (False, True):
                view = resized.flip(3) if flip else resized
                with torch.no_grad():
                    logits = model(view[:, :3], view[:, 3:])
                logits = logits.flip(3) if flip else logits
                logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
                views.append(logits.softmax(1))
        expected = torch.stack(views).mean(0)[0].argmax(0).numpy()
        assert (kept[pair.name] == expected).mean() > 0.999  # rounding at exact ties
        assert (kept[pair.name] != plain[pair.name]).any()


def test_keep_gets_prediction_and_truth_at_the_scored_size(tmp_path):
    pairset = write_pairset(tmp_path, [(33, 47)], FOUR)
    protocol = dataclasses.replace(NATIVE, size=(20, 24))
    seen = []
    tally = evaluate(Mixer(), pairset, protocol, keep=lambda *what: seen.append(what))
    ((pair, prediction, truth),) = seen
    assert pair == pairset.pairs[0]
    assert prediction.shape == truth.shape == (20, 24)
    assert tally.scores().miou == pytest.approx(oracle([truth], [prediction], 4)[0])


def test_model_returns_in_the_mode_in_which_it_came(tmp_path):
    pairset = write_pairset(tmp_path, [(33, 47)], FOUR)
    modes = []

    class Watching(Mixer):
        def forward(self, rgb, thermal):
            modes.append(self.training)
            return super().forward(rgb, thermal)

    model = Watching().train()
    evaluate(model, pairset, NATIVE)
    assert model.training
    evaluate(model.eval(), pairset, NATIVE)
    assert not model.training
    assert modes == [False, False]


def test_interrupting_leaves_the_model_usable(tmp_path):
    pairset = write_pairset(tmp_path, [(33, 47)] * 4, FOUR)
    model = Mixer().train()

    def stop(done, total):
        assert total == 4
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, pairset, NATIVE, workers=2, progress=stop)
    assert model.training


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_file_is_an_input_error_also_from_workers(tmp_path, workers):
    pairset = write_pairset(tmp_path, [(33, 47)] * 3, FOUR)
    pairset.pairs[1].thermal.write_bytes(b"not a picture")
    with pytest.raises(InputError) as caught:
        evaluate(Mixer(), pairset, NATIVE, workers=workers)
    assert str(caught.value).startswith(str(pairset.pairs[1].thermal))
    assert "Traceback" not in str(caught.value)


def test_what_cannot_be_evaluated_is_refused(tmp_path):
    pairset = write_pairset(tmp_path, [(33, 47)] * 2, FOUR)
    with pytest.raises(InputError, match="test split of made has no pairs"):
        evaluate(Mixer(), dataclasses.replace(pairset, pairs=()), NATIVE)
    unlabelled = (pairset.pairs[0], dataclasses.replace(pairset.pairs[1], label=None))
    with pytest.raises(InputError, match=r"1 pairs of test have no label \(first: pair1\)"):
        evaluate(Mixer(), dataclasses.replace(pairset, pairs=unlabelled), NATIVE)
    with pytest.raises(InputError, match="mfnet is for 9 classes, but the data has 4"):
        evaluate(Mixer(), pairset, get_protocol("mfnet"))
    broken = Mixer()
    nn.init.constant_(broken.layer.weight, torch.nan)
    with pytest.raises(InputError, match="pair pair0: the model's logits are not finite"):
        evaluate(broken, pairset, NATIVE)


def test_classes_must_be_those_of_the_data(tmp_path):
    pairset = write_pairset(tmp_path, [(33, 47)], FOUR)
    check_classes(FOUR, pairset)
    other = ClassSet(("a", "b", "c", "d"), FOUR.palette)
    with pytest.raises(InputError, match=r"the model has 4 \(a, b, c, d\), the data 4 \(class_0, class_1"):
        check_classes(other, pairset)


def test_the_network_itself_in_both_precisions(tmp_path):
    torch.manual_seed(0)
    pairset = write_pairset(tmp_path, [(64, 80), (64, 80)], FOUR)
    model = efnet.create_model("efnet_tiny", num_classes=4)
    full = evaluate(model, pairset, NATIVE, batch_size=2)
    truths, predictions = by_hand(model.eval(), pairset)
    assert full.scores().miou == pytest.approx(oracle(truths, predictions, 4)[0], abs=2e-3)
    half = evaluate(Engine(model, FOUR, precision="bf16"), pairset, NATIVE)
    assert half.matrix().counts.sum() == full.matrix().counts.sum()
