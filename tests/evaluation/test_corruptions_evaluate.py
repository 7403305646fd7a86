"""Evaluation with corruptions, against one corrupted pair at a time by hand; and its journal."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from scoring_cases import write_pairset
from scoring_oracle import oracle
from torch import nn
from torch.nn import functional as F

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.data.augment import resize_sample
from efnet.data.dataset import to_tensors
from efnet.data.sample import read_sample
from efnet.evaluation.corruptions.suite import SUITE, corrupt_sample
from efnet.evaluation.evaluate import evaluate
from efnet.evaluation.protocols import get_protocol
from efnet.evaluation.report import build_robustness_report, robustness_markdown
from efnet.evaluation.robustness import CLEAN, PAIRS_AT_ONCE, CountsJournal, evaluate_corrupted, spread
from efnet.inference.engine import Engine

FOUR = ClassSet.generic(4)
NATIVE = get_protocol("native")
SOME = ("fog", "gaussian_noise", "dead_lines", "shift", "missing")


class Mixer(nn.Module):
    """A small network whose answer depends on both images and on where a pixel lies."""

    def __init__(self, modality="rgbt"):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(4, 4, 5, padding=2)
        self.modality = modality
        self.images = 0

    def forward(self, rgb, thermal):
        if self.modality == "thermal":
            assert rgb is None, "an image that is not looked at"
            rgb = thermal.expand(-1, 3, -1, -1)
        self.images += len(rgb)
        return self.layer(torch.cat([rgb, thermal], dim=1))


def counts(robustness):
    return {
        variant.key: [entry.counts for entry in tally.pairs] for variant, tally in robustness.tallies.items()
    }


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key, matrices in first.items():
        np.testing.assert_array_equal(np.stack(matrices), np.stack(second[key]), err_msg=key)


@pytest.mark.parametrize("seen", [None, (32, 48)])
def test_agrees_with_one_corrupted_pair_at_a_time(tmp_path, seen):
    """Faults first, at the size of the files, resizing after; the label is the clean one."""
    pairset = write_pairset(tmp_path, [(33, 47), (40, 56)], FOUR)
    model = Mixer()
    engine = Engine(model, FOUR, size=seen)
    found = evaluate_corrupted(engine, pairset, NATIVE, corruptions=SOME, severities=(2, 5), seed=3)
    assert [tally.matrix().images for tally in found.tallies.values()] == [2] * (1 + 4 * 2 + 2)
    for variant, tally in found.tallies.items():
        truths, predictions = [], []
        for pair in pairset.pairs:
            clean = read_sample(pair, FOUR)
            spoiled = clean
            if variant.corruption is not None:
                spoiled = corrupt_sample(clean, variant.corruption, variant.severity or 1, seed=3)
            item = to_tensors(resize_sample(spoiled, seen), 0)
            with torch.no_grad():
                logits = model(item["rgb"][None], item["thermal"][None])
            logits = F.interpolate(logits, size=clean.label.shape, mode="bilinear", align_corners=False)
            truths.append(clean.label)
            predictions.append(logits[0].argmax(0).numpy())
        assert tally.scores().miou == pytest.approx(oracle(truths, predictions, 4)[0], rel=1e-12), variant.key


def test_clean_is_what_evaluate_counts_and_faults_change_it(tmp_path):
    pairset = write_pairset(tmp_path, [(40, 56), (40, 56)], FOUR)
    found = evaluate_corrupted(Mixer(), pairset, NATIVE, severities=[5])
    assert {variant.corruption for variant in found.tallies} == {None, *SUITE}
    plain = evaluate(Mixer(), pairset, NATIVE)
    np.testing.assert_array_equal(found.clean.matrix().counts, plain.matrix().counts)
    for variant, tally in found.tallies.items():
        if variant != CLEAN:
            assert (tally.matrix().counts != plain.matrix().counts).any(), variant.key
            assert tally.matrix().counts.sum() == plain.matrix().counts.sum()


def test_batches_workers_and_other_pairs_change_nothing(tmp_path):
    pairset = write_pairset(tmp_path, [(40, 56), (64, 48), (40, 56)], FOUR)
    chosen = {"corruptions": SOME, "severities": (1, 3)}
    alone = counts(evaluate_corrupted(Mixer(), pairset, NATIVE, **chosen))
    for options in ({"batch_size": 7}, {"batch_size": 3, "workers": 2}):
        assert_same(alone, counts(evaluate_corrupted(Mixer(), pairset, NATIVE, **chosen, **options)))
    backwards = dataclasses.replace(pairset, pairs=pairset.pairs[::-1])
    turned = counts(evaluate_corrupted(Mixer(), backwards, NATIVE, **chosen))
    assert_same(alone, {key: matrices[::-1] for key, matrices in turned.items()})
    fewer = counts(evaluate_corrupted(Mixer(), pairset, NATIVE, corruptions=["shift"], severities=[3]))
    assert_same({key: alone[key] for key in fewer}, fewer)
    other = counts(evaluate_corrupted(Mixer(), pairset, NATIVE, **chosen, seed=1))
    assert any((np.stack(other[key]) != np.stack(alone[key])).any() for key in alone)
    np.testing.assert_array_equal(np.stack(other["clean"]), np.stack(alone["clean"]))


def test_a_network_of_one_camera_sees_its_own_faults(tmp_path):
    pairset = write_pairset(tmp_path, [(40, 56)], FOUR)
    found = evaluate_corrupted(Mixer("thermal"), pairset, NATIVE, severities=[1])
    assert {entry.group for entry in found.corruptions} == {"thermal"}
    with pytest.raises(InputError, match="'fog' does not concern a network of modality thermal"):
        evaluate_corrupted(Mixer("thermal"), pairset, NATIVE, corruptions=["fog"])


def test_progress_counts_images(tmp_path):
    pairset = write_pairset(tmp_path, [(40, 56)] * 2, FOUR)
    seen = []
    evaluate_corrupted(
        Mixer(),
        pairset,
        NATIVE,
        corruptions=["fog", "missing_rgb"],
        severities=[1, 2],
        progress=lambda *step: seen.append(step),
    )
    assert seen[-1] == (8, 8)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def open_journal(tmp_path, **changes):
    return CountsJournal(tmp_path / "journal.jsonl", {"seed": 0, "size": (4, 5), **changes}, 4)


@pytest.mark.parametrize("tail", ["", '{"name": "pair1", "cou', "\n\n"])
def test_interrupted_evaluation_goes_on_to_the_same_figures(tmp_path, tail):
    pairset = write_pairset(tmp_path, [(40, 56)] * (2 * PAIRS_AT_ONCE + 1), FOUR)
    chosen = {"corruptions": ("fog", "missing"), "severities": (1, 5)}
    whole = counts(evaluate_corrupted(Mixer(), pairset, NATIVE, **chosen))
    per_pair = len(whole)

    def stop(done, _):
        if done > (PAIRS_AT_ONCE + 1) * per_pair:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_corrupted(Mixer(), pairset, NATIVE, **chosen, progress=stop, journal=open_journal(tmp_path))
    with (tmp_path / "journal.jsonl").open("a") as stream:
        stream.write(tail)
    for left in (PAIRS_AT_ONCE + 1, 0):
        model = Mixer()
        again = evaluate_corrupted(model, pairset, NATIVE, **chosen, journal=open_journal(tmp_path))
        assert_same(whole, counts(again))
        assert model.images == left * per_pair
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines[1:] if line] == [pair.name for pair in pairset.pairs]


@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n", b"[1]\n", b'{"settings": 4}\n'])
def test_a_file_that_is_no_journal_of_this_evaluation_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "journal.jsonl"
    if content is None:
        with open_journal(tmp_path, seed=1):
            pass
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"journal\.jsonl: is not a journal of this evaluation"):
        open_journal(tmp_path)
    assert path.read_bytes() == before


def test_a_damaged_entry_is_counted_again(tmp_path):
    pairset = write_pairset(tmp_path, [(40, 56)] * 2, FOUR)
    chosen = {"corruptions": ["fog"], "severities": [1]}
    whole = counts(evaluate_corrupted(Mixer(), pairset, NATIVE, **chosen, journal=open_journal(tmp_path)))
    path = tmp_path / "journal.jsonl"
    head, first, second = path.read_text().splitlines()
    digit = first.rindex(", ") + 2
    changed = str((int(first[digit]) + 1) % 10)
    path.write_text("\n".join([head, first[:digit] + changed + first[digit + 1 :], second, ""]))
    model = Mixer()
    assert_same(
        whole, counts(evaluate_corrupted(model, pairset, NATIVE, **chosen, journal=open_journal(tmp_path)))
    )
    assert model.images == 2


def test_report_is_means_of_the_tallies(tmp_path):
    pairset = write_pairset(tmp_path, [(40, 56)] * 2, FOUR)
    found = evaluate_corrupted(
        Mixer(), pairset, NATIVE, corruptions=["fog", "jpeg", "missing_rgb"], severities=[1, 4]
    )
    report = build_robustness_report(found, {"dataset": "made", "split": "test"})
    miou = {variant.key: tally.scores().miou for variant, tally in found.tallies.items()}
    values = report["robustness"]
    assert report["miou"] == miou["clean"]
    fog, jpeg = (values["corruptions"][name] for name in ("fog", "jpeg"))
    assert fog["severity"]["4"]["miou"] == miou["fog 4"]
    assert fog["miou"] == pytest.approx((miou["fog 1"] + miou["fog 4"]) / 2)
    assert fog["retained"] == pytest.approx(fog["miou"] / miou["clean"])
    assert values["groups"]["rgb"]["miou"] == pytest.approx((fog["miou"] + jpeg["miou"]) / 2)
    assert values["corruptions"]["missing_rgb"]["severity"]["any"]["miou"] == miou["missing_rgb"]
    assert "thermal" not in values["groups"]
    text = robustness_markdown(report)
    row = f"| fog | {100 * miou['fog 1']:.2f} | {100 * miou['fog 4']:.2f} | {100 * fog['miou']:.2f} |"
    assert row in text
    assert f"| missing_rgb | - | - | {100 * miou['missing_rgb']:.2f} |" in text
    json.dumps(report, allow_nan=False)


def test_report_of_truth_without_a_class_that_counts(tmp_path):
    """FMB's protocol leaves unlabeled out: a split of nothing else has no figure, and no share of one."""
    pairset = write_pairset(tmp_path, [(40, 56)], ClassSet.generic(15))
    Image.new("L", (56, 40)).save(pairset.pairs[0].label)

    class Wide(Mixer):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(4, 15, 1)

    found = evaluate_corrupted(Wide(), pairset, get_protocol("fmb"), corruptions=["fog"], severities=[1])
    report = build_robustness_report(found, {})
    assert report["robustness"]["corruptions"]["fog"]["retained"] is None
    assert "| fog | - | - | - |" in robustness_markdown(report)


def test_a_first_look_is_spread_over_the_split(tmp_path):
    pairset = write_pairset(tmp_path, [(33, 47)] * 7, FOUR)
    assert [pair.name for pair in spread(pairset, 3).pairs] == ["pair0", "pair2", "pair4"]
    assert spread(pairset, 7) == spread(pairset, 100) == pairset


def test_choice_is_checked_before_anything_runs(tmp_path):
    pairset = write_pairset(tmp_path, [(33, 47)], FOUR)
    for options, message in (
        ({"corruptions": ["nope"]}, "no corruption is called 'nope'"),
        ({"severities": [9]}, "severities 9"),
    ):
        model = Mixer()
        with pytest.raises(InputError, match=message):
            evaluate_corrupted(model, pairset, NATIVE, **options)
        assert model.images == 0
