"""Doubted labels: regions against a plain reference, wrong labels that rank first, files and resuming."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import efnet
from efnet.cli.main import main
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.data.layouts import open_split
from efnet.data.layouts.public import MFNET_CLASSES
from efnet.data.pairs import PairSet
from efnet.evaluation.label_issues import Doubt, PairDoubts, find_doubts, find_issues, inner, rank
from efnet.inference.engine import Engine

HEIGHT, WIDTH = 40, 56
CLASSES = ClassSet(("road", "car", "person"), ((0, 0, 0), (200, 0, 0), (0, 200, 0)))


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.integers(0, 3))
def test_inner_pixels_see_one_label(seed: int, border: int) -> None:
    label = np.random.default_rng(seed).integers(0, 2, (7, 9), dtype=np.uint8).repeat(2, 0).repeat(2, 1)
    for y, x in np.ndindex(label.shape):
        window = label[max(0, y - border) : y + border + 1, max(0, x - border) : x + border + 1]
        assert inner(label, border)[y, x] == (len(np.unique(window)) == 1)


def test_regions_and_sums_against_a_plain_reference() -> None:
    rng = np.random.default_rng(0)
    label = np.zeros((12, 16), dtype=np.uint8)
    label[:, 8:] = 1
    label[0] = 255
    shares = rng.dirichlet((1, 1, 1), label.shape).transpose(2, 0, 1).astype(np.float32)
    shares[:, 4:8, 1:5] = np.array([0.1, 0.2, 0.7], dtype=np.float32)[:, None, None]
    found = find_doubts("a", shares, label, border=1, min_pixels=1)
    pixels, certainty = [0, 0, 0], [0.0, 0.0, 0.0]
    wrong = {}
    for y, x in np.ndindex(label.shape):
        window = label[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        if label[y, x] == 255 or len(np.unique(window)) > 1:
            continue
        pixels[label[y, x]] += 1
        certainty[label[y, x]] += float(shares[label[y, x], y, x])
        likely = int(shares[:, y, x].argmax())
        if likely != label[y, x]:
            wrong[y, x] = (int(label[y, x]), likely)
    assert list(found.pixels) == pixels
    assert found.certainty == pytest.approx(certainty)
    assert sum(doubt.pixels for doubt in found.doubts) == len(wrong)
    for doubt in found.doubts:
        left, top, width, height = doubt.box
        inside = [
            place
            for place, kind in wrong.items()
            if kind == (doubt.label, doubt.likely)
            and top <= place[0] < top + height
            and left <= place[1] < left + width
        ]
        assert len(inside) >= doubt.pixels
    largest = max(found.doubts, key=lambda doubt: doubt.pixels)
    assert (largest.label, largest.likely) == (0, 2)
    assert largest.pixels >= 16
    alone = find_doubts("a", shares, label, border=1, min_pixels=largest.pixels)
    assert alone.doubts == (largest,)
    assert not find_doubts("a", shares, label, ignored=(0, 1)).doubts


def test_a_region_counts_from_the_threshold_of_its_class() -> None:
    sure, unsure = (Doubt(0, 1, 10, (0, 0, 5, 2), 0.1, p) for p in (0.8, 0.6))
    never = Doubt(0, 2, 99, (0, 0, 9, 11), 0.0, 1.0)  # nothing is labelled 2
    found = [
        PairDoubts("b", (unsure, sure), (100, 10, 0), (90.0, 7.0, 0.0)),
        PairDoubts("a", (never,), (100, 10, 0), (90.0, 7.0, 0.0)),
        PairDoubts("c", (), (100, 0, 0), (90.0, 0.0, 0.0)),
    ]
    issues = rank(found, CLASSES)
    assert issues.thresholds == pytest.approx((0.9, 0.7, None))
    assert [pair.name for pair in issues.pairs] == ["b", "a", "c"]
    assert issues.pairs[0].doubts == (sure,)
    assert issues.pairs[0].score == pytest.approx(10 * 0.7)
    assert issues.confusions()[0].tolist() == [0, 10, 0]


class ByColor(nn.Module):
    """A network that recognises classes by their colours, and takes one patch for another class."""

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        palette = torch.tensor(CLASSES.palette, dtype=torch.float32) / 255
        distance = (rgb[:, None] - palette[None, :, :, None, None]).square().sum(2)
        logits = -6 * distance
        logits[:, 2, :5, :6] += 3.5  # an error, but an unsure one
        return logits


def make_set(root: Path, wrong: dict[str, Any], count: int = 12) -> PairSet:
    """Squares of cars and people on a road, noisy; `wrong` changes the label of a pair."""
    for number in range(count):
        rng = np.random.default_rng(number)
        label = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        for value in (1, 2):
            y, x = rng.integers(6, HEIGHT - 14), rng.integers(6, WIDTH - 14)
            label[y : y + 12, x : x + 12] = value
        colors = CLASSES.colorize(label).astype(np.float64) + rng.normal(0, 25, (HEIGHT, WIDTH, 3))
        name = f"{number:02}"
        given = wrong[name](label) if name in wrong else label
        for folder, image in (
            ("rgb", np.clip(colors, 0, 255).astype(np.uint8)),
            ("thermal", rng.integers(0, 255, label.shape, dtype=np.uint8)),
            ("labels", given),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / folder / f"{name}.png")
    (root / "dataset.yaml").write_text("names: [road, car, person]\n")
    return open_split("folders", root, "trainval")


def swapped(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cars as people and the reverse."""
    return np.array([0, 2, 1], dtype=np.uint8)[label]


def lost(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Without cars."""
    return np.where(label == 1, 0, label).astype(np.uint8)


def moved(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A quarter of the image off."""
    return np.roll(label, WIDTH // 4, axis=1)


WRONG = {"03": swapped, "07": lost, "10": moved}


def test_wrong_labels_rank_first(tmp_path: Path) -> None:
    pairs = make_set(tmp_path / "set", WRONG)
    issues = find_issues(Engine(ByColor().eval(), CLASSES), pairs, tmp_path / "out", {})
    assert {pair.name for pair in issues.pairs[:3]} == set(WRONG)
    assert issues.pairs[2].score > 5 * issues.pairs[3].score
    first = {pair.name: pair.doubts[0] for pair in issues.pairs[:3]}
    assert (first["07"].label, first["07"].likely) == (0, 1)
    assert {first["03"].label, first["03"].likely} == {1, 2}


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    pairs, engine = make_set(tmp_path / "set", WRONG, count=11), Engine(ByColor().eval(), CLASSES)
    whole = find_issues(engine, pairs, tmp_path / "whole", {}, batch_size=3)

    def interrupt(done: int, _: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_issues(engine, pairs, tmp_path / "out", {}, progress=interrupt)
    with (tmp_path / "out" / "issues.jsonl").open("a") as journal:
        journal.write('{"name": "06", "doubts": [[1]], "pixels": [], "certainty": []}\n{"name": "0')
    seen: list[int] = []
    resumed = find_issues(engine, pairs, tmp_path / "out", {}, progress=lambda done, _: seen.append(done))
    assert resumed == whole
    assert seen == [6, 7, 8, 9, 10, 11]
    with pytest.raises(InputError, match=r"border was 2, now 4.*`overwrite`"):
        find_issues(engine, pairs, tmp_path / "out", {}, border=4)
    anew = find_issues(engine, pairs, tmp_path / "out", {}, border=4, overwrite=True)
    assert sum(anew.pixels) < sum(whole.pixels)


def test_splits_without_labels_are_refused(tmp_path: Path) -> None:
    pairs = make_set(tmp_path / "set", {}, count=2)
    for path in (tmp_path / "set" / "labels").iterdir():
        path.unlink()
    (tmp_path / "set" / "labels").rmdir()
    pairs = open_split("folders", tmp_path / "set", "trainval")
    with pytest.raises(InputError, match=r"trainval has 2 pairs without label \(first: 00\)"):
        find_issues(Engine(ByColor().eval(), CLASSES), pairs, tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


# --- the command ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network") / "x"
    torch.manual_seed(0)
    model = efnet.create_model("mfnet", classes=ClassSet(("road", "<car>", "person"), CLASSES.palette))
    model.save_pretrained(folder)
    return folder


def test_the_command_writes_tables_and_a_page(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_set(tmp_path / "set", WRONG, count=4)
    (tmp_path / "set" / "dataset.yaml").write_text("names: [road, <car>, person]\n")
    out = tmp_path / "out"
    words = f"data issues --checkpoint {checkpoint} --dataset folders --root {tmp_path / 'set'} --out {out}"
    words += " --split trainval --device cpu --min-pixels 1 --border 0 --top 2 --workers 0"
    assert main(words.split()) == 0
    printed = capsys.readouterr().out
    report = json.loads((out / "issues.json").read_text())
    assert [entry["name"] for entry in report["classes"]] == ["road", "<car>", "person"]
    scores = [pair["score"] for pair in report["pairs"]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0  # an untrained network contradicts something
    with (out / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [pair["name"] for pair in report["pairs"]]
    with (out / "regions.csv").open() as file:
        regions = list(csv.DictReader(file))
    assert len(regions) == sum(len(pair["regions"]) for pair in report["pairs"])
    assert f"1 {rows[0]['name']}: score" in printed
    page = (out / "issues.html").read_text()
    shown = min(2, sum(bool(pair["regions"]) for pair in report["pairs"]))
    assert page.count('<article class="pair">') == shown
    assert page.count("<img ") == 5 * shown
    assert "&lt;car&gt;" in page
    assert "<car>" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert main(words.split()) == 0  # all pairs are known
    assert json.loads((out / "issues.json").read_text()) == report


def test_wrong_options_of_the_command(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_set(tmp_path / "set", {}, count=2)
    words = f"data issues --checkpoint {checkpoint} --dataset folders --root {tmp_path / 'set'} --device cpu"
    for more, reason in (
        ("--out o --split trainval", "the model's classes are not those of folders"),
        ("--out o --split trainval --border -1", "--border -1: give 0 or more"),
        ("--out o --split test", "has no split 'test'"),
        ("--split trainval", "--out"),
    ):
        assert main([*words.split(), *more.split()]) == 2
        assert reason in capsys.readouterr().err


@pytest.mark.slow
def test_wrong_labels_of_real_pairs_rank_first(samples: Path, tmp_path: Path) -> None:
    """The weights that come with the package, on pairs that they were not trained on."""
    names = (samples / "mfnet" / "test.txt").read_text().split()[::4]
    wrong = names[1], names[6]
    for folder in ("images", "labels"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for name in names:
        (tmp_path / "set" / "images" / f"{name}.png").symlink_to(samples / "mfnet" / "images" / f"{name}.png")
        label = np.asarray(Image.open(samples / "mfnet" / "labels" / f"{name}.png"))
        if name in wrong:
            assert len(np.unique(label)) > 1
            label = np.where(label == 0, 0, label % (len(MFNET_CLASSES) - 1) + 1).astype(np.uint8)
        Image.fromarray(label).save(tmp_path / "set" / "labels" / f"{name}.png")
    (tmp_path / "set" / "test.txt").write_text("\n".join(names))
    words = f"data issues --dataset mfnet --root {tmp_path / 'set'} --out {tmp_path / 'out'} --device cpu"
    assert main([*words.split(), "--top", "0", "--workers", "0"]) == 0
    ranked = [pair["name"] for pair in json.loads((tmp_path / "out" / "issues.json").read_text())["pairs"]]
    assert set(ranked[:2]) == set(wrong)
