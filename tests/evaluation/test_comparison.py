"""Comparisons of networks from their counts, and `efnet compare` as a user types it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scoring_cases import MFNET, named

import efnet
from efnet.cli.main import main
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.data.layouts.public import MFNET_CLASSES
from efnet.evaluation.calibration import Reliability
from efnet.evaluation.comparison import (
    Contender,
    align,
    compare,
    difference_rows,
    markdown,
    notes,
    page,
    verdict,
)
from efnet.evaluation.intervals import add_evidence, miou_interval, read_report, read_tally
from efnet.evaluation.metrics import Tally
from efnet.evaluation.protocols import get_protocol
from efnet.evaluation.report import build_report, evidence_lines
from efnet.evaluation.resampling import Resampling

PLAN = Resampling(resamples=500)


def made(seed=0, wrong=0.2, images=20, protocol="native", classes=MFNET, truths=7, boundaries=True):
    """A tally of images whose truth depends on `truths` alone and whose errors depend on `seed`."""
    tally = Tally(classes, get_protocol(protocol), boundaries=boundaries)
    known, rng = np.random.default_rng(truths), np.random.default_rng(seed)
    for number in range(images):
        blocks = known.integers(0, len(classes), (4, 5))
        truth = np.kron(blocks, np.ones((6, 6), dtype=int)).astype(np.uint8)
        noise = rng.integers(0, len(classes), truth.shape)
        prediction = np.where(rng.random(truth.shape) < wrong, noise, truth).astype(np.uint8)
        tally.add(named(f"{number // 5:03d}{number:02d}", ("day", "night")[number % 2]), truth, prediction)
    return tally


def contender(name, *tallies):
    return Contender(name, tuple(tallies), tuple(f"{name}{number}" for number in range(len(tallies))))


def test_a_clear_difference_excludes_zero_and_a_chance_one_does_not():
    networks = [contender("good", made(0)), contender("worse", made(1, 0.4)), contender("equal", made(2))]
    result = json.loads(json.dumps(compare(networks, PLAN), allow_nan=False))
    worse, equal = result["differences"]
    assert worse["all"]["miou"]["value"] == pytest.approx(
        networks[1].tallies[0].scores().miou - networks[0].tallies[0].scores().miou
    )
    assert worse["all"]["miou"]["interval"][1] < 0
    assert worse["all"]["miou"]["p"] < 0.01
    assert "excludes zero" in verdict(worse)
    assert equal["all"]["miou"]["interval"][0] < 0 < equal["all"]["miou"]["interval"][1]
    assert "includes zero: no difference is shown" in verdict(equal)
    for part in ("all", "day", "night", "boundary"):
        assert set(worse[part]["iou"]) == set(MFNET.names)
        assert all(entry["p_holm"] >= entry["p"] for entry in worse[part]["iou"].values())
    assert result["networks"][0]["day"]["images"] == 10
    assert (
        result["networks"][1]["boundary"]["miou"]["value"]
        < result["networks"][0]["boundary"]["miou"]["value"]
    )


def test_networks_have_the_figures_and_intervals_of_their_own_reports():
    tally = made(3)
    report = add_evidence(build_report(tally, {}), tally, PLAN)
    network = compare([contender("a", tally), contender("b", made(4))], PLAN)["networks"][0]
    assert network["all"]["miou"]["value"] == pytest.approx(report["miou"])
    assert network["all"]["miou"]["interval"] == pytest.approx(report["interval"]["miou"])
    assert network["night"]["miou"]["interval"] == pytest.approx(report["night"]["interval"]["miou"])
    assert network["boundary"]["miou"]["value"] == pytest.approx(report["boundary"]["miou"])
    assert network["boundary"]["miou"]["interval"] == pytest.approx(report["boundary"]["interval"]["miou"])


def test_runs_of_one_network_are_averaged():
    runs = [made(seed, 0.3) for seed in range(3)]
    result = compare([contender("one", made(9)), contender("three", *runs)], PLAN)
    mean = np.mean([run.scores().miou for run in runs])
    assert result["networks"][1]["runs"] == 3
    assert result["networks"][1]["all"]["miou"]["value"] == pytest.approx(mean)
    assert result["differences"][0]["all"]["miou"]["p"] is None  # no swap of one run with three
    equal = compare([contender("a", *runs), contender("b", *(made(s) for s in (5, 6, 7)))], PLAN)
    assert equal["differences"][0]["all"]["miou"]["p"] < 0.01
    assert any("do not cover the choice of seeds" in line for line in notes(equal))


def test_groups_make_units():
    tallies = [contender("a", made(0)), contender("b", made(1, 0.4))]
    names = [entry.pair.name for entry in tallies[0].tallies[0].pairs]
    plan = Resampling(resamples=500, groups={name: name[:3] for name in names})
    result = compare(tallies, plan)
    assert result["resampling"]["units"] == 4
    found = result["differences"][0]
    assert found["all"]["miou"]["p"] == 2 / 2**4  # all sixteen swaps; the observed one and its mirror image
    assert "the test does not reject" in verdict(found)
    assert any("p cannot be below 0.125" in line for line in notes(result))
    assert difference_rows(result, 0)[1][0][-1] == "4"


def test_one_group_alone_has_no_interval():
    tallies = [contender("a", made(0)), contender("b", made(1))]
    plan = Resampling(groups={entry.pair.name: "x" for entry in tallies[0].tallies[0].pairs})
    found = compare(tallies, plan)["differences"][0]["all"]["miou"]
    assert (found["interval"], found["p"]) == (None, None)


@pytest.mark.parametrize("labelled", [0, 1])
def test_images_of_ignored_pixels_do_not_make_an_interval(labelled):
    """The bootstrap would repeat the one image that counts: an interval without a width."""
    tally = made(0, images=labelled)
    truth = np.full((24, 30), 255, dtype=np.uint8)
    for name in ("x", "y"):
        tally.add(named(name, None), truth, np.zeros_like(truth))
    report = add_evidence(build_report(tally, {}), tally, PLAN)
    report["calibration"] = Reliability().to_dict(1.0)
    assert report["interval"]["miou"] is None
    assert miou_interval([tally], PLAN) is None
    assert "no interval of mIoU: fewer than two images have pixels that count" in evidence_lines(report)
    found = compare([contender("a", tally), contender("b", tally)], PLAN)
    assert found["networks"][0]["all"]["miou"]["interval"] is None


def test_pages_hold_every_class_and_escape_names():
    result = compare([contender("a|b", made(0)), contender("<b>", made(1, 0.4))], PLAN)
    text, html = markdown(result), page(result)
    for name in MFNET.names:
        assert f"| {name} " in text
        assert f"<th>{name}</th>" in html
    assert "a\\|b" in text
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert html.count("<svg") == 1
    change = 100 * result["differences"][0]["all"]["miou"]["value"]
    assert f"{change:+.2f}" in text
    assert f"{change:+.2f}" in html


def test_images_are_matched_by_name():
    one, other = made(0), made(1, 0.4)
    before = compare([contender("a", one), contender("b", other)], PLAN)
    other.pairs.reverse()
    assert compare([contender("a", one), contender("b", other)], PLAN) == before


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (made(classes=ClassSet.generic(9)), "other classes"),
        (made(protocol="mfnet-no-unlabeled"), "were scored by mfnet-no-unlabeled and native"),
        (made(images=19), r"other images \(19 and 20; only in one: 00319\)"),
        (made(truths=8), "the true labels of 00000 differ"),
    ],
)
def test_what_cannot_be_compared_is_refused(other, message):
    with pytest.raises(InputError, match=message):
        align([contender("a", made()), contender("b", other)])


def test_a_network_alone_or_named_twice_is_refused():
    with pytest.raises(InputError, match="two networks or more"):
        align([contender("a", made())])
    with pytest.raises(InputError, match="called the same"):
        align([contender("a", made()), contender("a", made())])


@pytest.mark.parametrize("boundaries", [True, False])
def test_a_report_gives_its_tally_back(tmp_path, boundaries):
    tally = made(3, boundaries=boundaries)
    report = add_evidence(build_report(tally, {"dataset": "x"}), tally, PLAN)
    (tmp_path / "report.json").write_text(json.dumps(report, allow_nan=False))
    again = read_tally(read_report(tmp_path / "report.json"), "report")
    assert again.classes.names == tally.classes.names
    assert again.protocol == tally.protocol
    for one, other in zip(again.pairs, tally.pairs, strict=True):
        assert (one.pair.name, one.pair.condition) == (other.pair.name, other.pair.condition)
        np.testing.assert_array_equal(one.counts, other.counts)
        assert (one.boundary is None) == (not boundaries)
        if boundaries:
            np.testing.assert_array_equal(one.boundary, other.boundary)


def spoiled(change):
    tally = made(3)
    report = add_evidence(build_report(tally, {}), tally, PLAN)
    change(report)
    return report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("per_image"), "has no counts of single images"),
        (lambda r: r["per_image"].pop(), "do not add up to its mIoU"),
        (lambda r: r["per_image"][0].update(counts="1 2 3"), "a damaged report"),
        (lambda r: r["per_image"][0].update(counts="-1 " * 81), "a damaged report"),
        (lambda r: r["per_image"][0].update(condition="dusk"), "a damaged report"),
        (lambda r: r["protocol"].update(name="other"), "no protocol is called 'other'"),
        (lambda r: r["protocol"].update(absent="zero"), "had other rules"),
    ],
)
def test_damaged_reports_are_refused(change, message):
    with pytest.raises(InputError, match=f"here: .*{message}"):
        read_tally(spoiled(change), "here")


def test_a_rare_class_has_no_interval_of_its_own():
    tally = Tally(ClassSet.generic(3), get_protocol("native"))
    for number in range(6):
        truth = np.zeros((8, 8), dtype=np.uint8)
        truth[:4] = 1
        if number == 0:
            truth[:, :2] = 2
        tally.add(named(f"p{number}", None), truth, truth)
    bounds = add_evidence(build_report(tally, {}), tally, PLAN)["interval"]
    assert bounds["iou"] == {"class_0": [1.0, 1.0], "class_1": [1.0, 1.0], "class_2": None}
    assert bounds["with"] == {"class_0": 6, "class_1": 6, "class_2": 1}


# --- The command ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small MFNet on disk, two fresh networks, and label maps of another program."""
    root = tmp_path_factory.mktemp("compared")
    mfnet, rng = root / "mfnet", np.random.default_rng(0)
    names = ["00101D", "00102N", "00201D", "00202N"]
    for folder in (mfnet / "images", mfnet / "labels", root / "maps"):
        folder.mkdir(parents=True)
    for name in names:
        label = np.kron(rng.integers(0, 9, (4, 6)), np.ones((16, 16), dtype=int)).astype(np.uint8)
        Image.fromarray(rng.integers(0, 256, (64, 96, 4)).astype(np.uint8), "RGBA").save(
            mfnet / "images" / f"{name}.png"
        )
        Image.fromarray(label).save(mfnet / "labels" / f"{name}.png")
        Image.fromarray(np.roll(label, 2, axis=1)).save(root / "maps" / f"{name}.png")
    (mfnet / "test.txt").write_text("\n".join(names) + "\n")
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = efnet.create_model("efnet_tiny", classes=MFNET_CLASSES)
        model.save_pretrained(root / f"net{seed}")
    return root


def run(world, *words, evaluates=True):
    data = ["--dataset", "mfnet", "--root", str(world / "mfnet"), "--protocol", "native", "--workers", "0"]
    return main(["compare", *words, *(data if evaluates else []), "--device", "cpu", "--resamples", "200"])


def test_the_command_compares_networks_reports_and_maps(world, tmp_path, capsys):
    files = {name: tmp_path / f"c.{name}" for name in ("json", "markdown", "html")}
    keep = ["--keep", str(tmp_path / "kept")]
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    first, second, maps = (str(world / name) for name in ("net0", "net1", "maps"))
    assert run(world, first, f"other={second}", f"theirs={maps}", *options, *keep) == 0
    out = capsys.readouterr().out
    result = json.loads(files["json"].read_text())
    assert [network["name"] for network in result["networks"]] == ["net0", "other", "theirs"]
    assert result["differences"][1]["all"]["miou"]["value"] > 0.3
    assert out == files["markdown"].read_text()
    assert "## theirs against net0" in out
    assert files["html"].read_text().count("<svg") == 2
    # The figures are those of `efnet evaluate`, whose report serves in place of the network.
    report = tmp_path / "net0.json"
    words = ["--dataset", "mfnet", "--root", str(world / "mfnet"), "--protocol", "native", "--workers", "0"]
    assert main(["evaluate", "--checkpoint", first, *words, "--device", "cpu", "--json", str(report)]) == 0
    assert result["networks"][0]["all"]["miou"]["value"] == pytest.approx(
        json.loads(report.read_text())["miou"]
    )
    capsys.readouterr()
    again = tmp_path / "again.json"
    assert run(world, f"net0={report}", f"other={second}", "--json", str(again), *keep) == 0
    assert "takes the evaluation of" in capsys.readouterr().err
    found = json.loads(again.read_text())
    assert found["differences"][0] == result["differences"][0]


def test_reports_alone_need_no_data(world, tmp_path, capsys):
    for seed in (0, 1):
        tally = made(seed, 0.2 + 0.2 * seed)
        report = add_evidence(build_report(tally, {"dataset": "x"}), tally, PLAN)
        folder = tmp_path / f"run{seed}"
        folder.mkdir()
        (folder / "evaluation.json").write_text(json.dumps(report))
    runs = [str(tmp_path / "run0"), str(tmp_path / "run1")]
    assert run(world, *runs, "--groups", r"^(\d{3})", evaluates=False) == 0
    out = capsys.readouterr().out
    assert "## run1 against run0" in out
    assert "4 groups" in out
    assert run(world, f"a={runs[0]},{runs[1]}", f"b={runs[1]},{runs[0]}", evaluates=False) == 0
    assert "mIoU of b is 0.00 points" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["one"], "give two networks or more"),
        (["a=", "b"], "a=: write NAME=PATH"),
        (["a=x", "a=y"], "two networks are called the same (a, a)"),
        (["nowhere/a", "nowhere/b"], "nowhere/a: has no stored evaluation; give --dataset and --root"),
        (["missing.json", "b"], "missing.json: not a report"),
        (["a", "b", "--level", "95"], "--level 95.0: give a share"),
        (["a", "b", "--size", "x"], "--size x: give height x width"),
    ],
)
def test_wrong_words_are_messages(world, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    if "--level" in words:
        tally = made()
        report = json.dumps(add_evidence(build_report(tally, {}), tally, PLAN))
        for name in ("a.json", "b.json"):
            (tmp_path / name).write_text(report)
        words = ["a.json", "b.json", *words[2:]]
    assert run(world, *words, evaluates=False) == 2
    assert message in capsys.readouterr().err


def test_evaluate_and_score_take_groups(world, tmp_path, capsys):
    data = ["--dataset", "mfnet", "--root", str(world / "mfnet"), "--protocol", "native"]
    words = ["score", "--predictions", str(world / "maps"), *data, "--resamples", "300"]
    report = tmp_path / "report.json"
    assert main([*words, "--groups", r"^(\d{3})", "--json", str(report)]) == 0
    found = json.loads(report.read_text())["interval"]
    assert (found["unit"], found["units"], found["resamples"]) == ("group", 2, 300)
    assert "over 2 groups, 300 resamples" in capsys.readouterr().out
    assert main([*words, "--groups", r"^(\d{3})\d+N"]) == 2
    assert "--groups ^(\\d{3})\\d+N: 2 of 4 pairs have no group" in capsys.readouterr().err


def test_the_worst_images_come_first_on_the_sheet(world, tmp_path, capsys):
    """Two sheets of one image: the worst alone, and the second worst below it."""
    data = ["--dataset", "mfnet", "--root", str(world / "mfnet"), "--protocol", "native"]
    words = ["score", "--predictions", str(world / "maps"), *data]
    heights = []
    for count in ("1", "2"):
        path = tmp_path / f"{count}.png"
        assert main([*words, "--sheet", str(path), "--worst", count]) == 0
        with Image.open(path) as sheet:
            heights.append(sheet.height)
    assert heights[1] - heights[0] > 200
    assert main([*words, "--worst", "2"]) == 2
    assert "--worst chooses the pairs of the sheet; give --sheet" in capsys.readouterr().err


def test_the_confusion_matrix_is_drawn(world, tmp_path, capsys):
    data = ["--dataset", "mfnet", "--root", str(world / "mfnet"), "--protocol", "native"]
    words = ["score", "--predictions", str(world / "maps"), *data]
    path = tmp_path / "confusion.svg"
    assert main([*words, "--confusion", str(path), "--json", str(tmp_path / "r.json")]) == 0
    counts = np.array(json.loads((tmp_path / "r.json").read_text())["confusion"])
    text = path.read_text()
    assert text.count("<rect") == 1 + 81
    for row in counts:
        assert f">{100 * row.max() / row.sum():.1f}</text>" in text
    assert main([*words, "--confusion", str(tmp_path / "c.png")]) == 2
    assert "give a file name that ends in .svg" in capsys.readouterr().err
