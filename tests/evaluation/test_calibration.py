"""Calibration error, reliability diagram and temperature, on made probabilities and through the commands."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scoring_cases import write_pairset

import efnet
from efnet.cli.main import main
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.data.layouts.public import MFNET_CLASSES
from efnet.evaluation.calibration import BINS, Reliability, best_temperature, fit_temperature, tempered
from efnet.evaluation.evaluate import evaluate
from efnet.evaluation.protocols import get_protocol
from efnet.explain import explain
from efnet.export.export import _describe, export_model
from efnet.export.formats import Deployed
from efnet.inference.engine import Engine
from efnet.inference.predictor import Predictor
from efnet.inference.runtime import ExportedModel
from efnet.models.base import CONFIG_FILE
from efnet.models.checkpoint import load_checkpoint


def literal_ece(shares, truth):
    """The definition, pixel by pixel: bins (b / 15, (b + 1) / 15]."""
    bins = [[] for _ in range(BINS)]
    for column, own in zip(shares.T, truth, strict=True):
        top = float(column.max())
        place = next(b for b in range(BINS) if top <= (b + 1) / BINS or b == BINS - 1)
        bins[place].append((top, float(column.argmax() == own)))
    total = sum(len(entries) for entries in bins)
    gaps = [
        abs(np.mean([e[1] for e in each]) - np.mean([e[0] for e in each])) * len(each)
        for each in bins
        if each
    ]
    return sum(gaps) / total


def made(rng, classes=4, pixels=300, sharpness=3.0):
    logits = rng.normal(0, sharpness, (classes, pixels)).astype(np.float32)
    return logits, rng.integers(0, classes, pixels)


@given(st.integers(0, 2**32), st.integers(2, 9))
def test_error_and_likelihood_are_the_definition_s(seed, classes):
    logits, truth = made(np.random.default_rng(seed), classes, 60)
    shares = tempered(logits, 1.0)
    reliability = Reliability()
    reliability.add(shares[:, :25], truth[:25])
    reliability.add(shares[:, 25:], truth[25:])
    assert reliability.error == pytest.approx(literal_ece(shares, truth), abs=1e-6)
    values = reliability.to_dict(1.0)
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits.T), torch.tensor(truth)).item()
    assert values["nll"] == pytest.approx(expected, rel=1e-4)
    assert sum(each["pixels"] for each in values["bins"]) == values["pixels"] == 60


def test_probabilities_that_hold_have_no_error():
    rng = np.random.default_rng(0)
    logits, _ = made(rng, pixels=40_000)
    shares = tempered(logits, 1.0)
    truth = (rng.random(40_000) > np.cumsum(shares, axis=0)).sum(axis=0).clip(max=3)
    reliability = Reliability()
    reliability.add(shares, truth)
    assert reliability.error < 0.01
    assert best_temperature(logits, truth) == pytest.approx(1.0, abs=0.03)
    assert best_temperature(2.5 * logits, truth) == pytest.approx(2.5, abs=0.08)


def test_the_temperature_has_the_least_loss_of_a_fine_grid():
    rng = np.random.default_rng(1)
    logits, truth = made(rng)
    truth = np.where(rng.random(300) < 0.6, logits.argmax(axis=0), truth)
    found = best_temperature(logits, truth)

    def loss(temperature):
        scaled = torch.tensor(logits.T / np.float64(temperature))
        return torch.nn.functional.cross_entropy(scaled, torch.tensor(truth)).item()

    assert loss(found) <= min(loss(each) for each in np.geomspace(0.05, 20, 400)) + 1e-9


def test_no_temperature_where_all_is_right_or_nothing_is():
    logits, _ = made(np.random.default_rng(2))
    for wrong in (logits.argmax(axis=0), logits.argmin(axis=0)):
        with pytest.raises(InputError, match=r"no temperature from 0.05 to 20"):
            best_temperature(logits, wrong)


class Coloured(torch.nn.Module):
    """Logits from the red channel alone, which `write_pairset` paints by class; wrong at one of four."""

    modality = "rgbt"

    def __init__(self, classes=4, sure=9.0):
        super().__init__()
        self.classes, self.sure = classes, sure

    def forward(self, rgb, thermal):
        found = (rgb[:, 0] * 255 / 20).round().long().clamp(max=self.classes - 1)
        off = (rgb[:, 1] * 255).round().long() % 4 == 0
        found = torch.where(off, (found + 1) % self.classes, found)
        return torch.nn.functional.one_hot(found, self.classes).permute(0, 3, 1, 2).float() * self.sure


@pytest.fixture
def pairset(tmp_path):
    return write_pairset(tmp_path, [(48, 64), (40, 50)], ClassSet.generic(4))


def test_a_fit_through_the_engine_finds_what_the_network_is_worth(pairset):
    """Right at three of four pixels: the best probability of the class is that share, whatever the logits."""
    engine = Engine(Coloured(), pairset.classes)
    fit = fit_temperature(engine, pairset, get_protocol("native"))
    share = fit.before.right.sum() / fit.before.pixels.sum()
    assert share == pytest.approx(0.75, abs=0.03)
    # e^(9 / T) / (e^(9 / T) + 3) = share
    assert fit.temperature == pytest.approx(9 / np.log(3 * share / (1 - share)), rel=1e-3)
    assert fit.after.error < 0.001 < fit.before.error
    assert engine.temperature == 1.0


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("temperature", [0.3, 2.7])
def test_label_maps_do_not_depend_on_the_temperature(pairset, temperature, tta):
    engine = Engine(Coloured(sure=3.0), pairset.classes)
    found = {}
    for value in (1.0, temperature):
        engine.temperature = value
        maps, shares = [], []
        evaluate(
            engine,
            pairset,
            get_protocol("native"),
            tta=tta,
            keep=lambda pair, prediction, truth, maps=maps: maps.append(prediction),
            probe=lambda pair, given, truth, shares=shares: shares.append(given),
        )
        found[value] = maps, shares
    for one, other in zip(found[1.0][0], found[temperature][0], strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(found[1.0][1], found[temperature][1], strict=True):
        scaled = tempered(np.log(one), temperature)
        np.testing.assert_allclose(other, scaled, atol=1e-5)
        np.testing.assert_allclose(other.sum(axis=0), 1.0, atol=1e-5)
        assert np.abs(other - one).max() > 0.01


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small MFNet on disk, and a fresh network whose label maps are the labels but for some noise."""
    root = tmp_path_factory.mktemp("calibrated")
    mfnet, rng = root / "mfnet", np.random.default_rng(0)
    torch.manual_seed(0)
    model = efnet.create_model("efnet_tiny", classes=MFNET_CLASSES)
    model.save_pretrained(root / "fresh")
    for folder in ("images", "labels"):
        (mfnet / folder).mkdir(parents=True)
    names = ["00000D", "00001N", "00002D"]
    for name in names:
        pixels = rng.integers(0, 256, (64, 96, 4)).astype(np.uint8)
        label = Predictor(model, "cpu")(pixels[..., :3], pixels[..., 3]).index
        noise = rng.integers(0, 9, label.shape).astype(np.uint8)
        label = np.where(rng.random(label.shape) < 0.7, noise, label)
        Image.fromarray(pixels, "RGBA").save(mfnet / "images" / f"{name}.png")
        Image.fromarray(label).save(mfnet / "labels" / f"{name}.png")
    for split in ("train", "val", "test"):
        (mfnet / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


def data(world, split="val"):
    words = ["--dataset", "mfnet", "--root", str(world / "mfnet"), "--split", split]
    return [*words, "--protocol", "native", "--device", "cpu", "--workers", "0"]


@pytest.fixture(scope="module")
def calibrated(world):
    """The checkpoint with a temperature, fitted by the command."""
    target = world / "calibrated"
    assert (
        main(["temperature", "--checkpoint", str(world / "fresh"), "--out", str(target), *data(world)]) == 0
    )
    return target


def test_the_command_stores_the_temperature(world, calibrated, capsys):
    stored = json.loads((calibrated / CONFIG_FILE).read_text())["temperature"]
    model = load_checkpoint(calibrated)
    assert model.temperature == stored != 1.0
    assert load_checkpoint(world / "fresh").temperature == 1.0
    capsys.readouterr()
    assert main(["temperature", "--checkpoint", str(calibrated), *data(world, "test")]) == 0
    out = capsys.readouterr().out
    assert f"temperature {stored:.4f}" in out  # fitted again from 1, not on top of the first
    assert "figures of calibration on test are not independent" in out


def test_everything_that_gives_probabilities_uses_it(world, calibrated, tmp_path):
    model = load_checkpoint(calibrated)
    plain, own = (Predictor.from_pretrained(world / name, device="cpu") for name in ("fresh", "calibrated"))
    image = str(world / "mfnet" / "images" / "00000D.png")
    one, other = (each(image, probabilities=True) for each in (plain, own))
    np.testing.assert_array_equal(one.index, other.index)
    np.testing.assert_allclose(
        other.probabilities, tempered(np.log(one.probabilities), model.temperature), atol=1e-5
    )
    words = [
        "predict",
        "--rgbt",
        image,
        "--save",
        "probabilities",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*words, "--checkpoint", str(calibrated)]) == 0
    saved = np.load(tmp_path / "out" / "probabilities" / "00000D.npy")
    np.testing.assert_allclose(saved, other.probabilities, atol=1e-3)
    seen = explain(own, image)
    powers = np.exp(seen.logits / model.temperature)
    np.testing.assert_allclose(seen.probabilities, powers / powers.sum(axis=0), rtol=1e-4)


class Direct(ExportedModel):
    """A file whose program runs here, untraced."""

    def __init__(self, path, deployed):
        super().__init__(path, _describe(deployed, "onnx", "32", None))
        self.deployed = [deployed]

    def infer(self, images):
        return self.deployed[0](*images)


@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_exported_files_give_the_same_probabilities(world, calibrated, tmp_path, outputs):
    """A file of logits carries the temperature in its description, one of probabilities has it inside."""
    model = load_checkpoint(calibrated)
    (tmp_path / "file.onnx").write_bytes(b"identity")
    exported = Direct(tmp_path / "file.onnx", Deployed(model, "float", outputs)).eval()
    image = str(world / "mfnet" / "images" / "00001N.png")
    expected, found = (Predictor(each, "cpu")(image, probabilities=True) for each in (model, exported))
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    np.testing.assert_array_equal(found.index, expected.index)


@pytest.mark.slow
def test_a_traced_file_carries_the_temperature(world, calibrated, tmp_path):
    path = tmp_path / "file.pt2"
    report = export_model(load_checkpoint(calibrated), path, "torch", outputs="probabilities", size=(64, 96))
    assert report["temperature"] == load_checkpoint(calibrated).temperature
    image = str(world / "mfnet" / "images" / "00001N.png")
    ours, theirs = (Predictor.from_pretrained(each, device="cpu") for each in (calibrated, path))
    expected, found = (each(image, probabilities=True) for each in (ours, theirs))
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)


def test_evaluate_reports_calibration_and_draws_it(world, calibrated, tmp_path, capsys):
    found = {}
    for name in ("fresh", "calibrated"):
        files = ["--json", str(tmp_path / f"{name}.json"), "--reliability", str(tmp_path / f"{name}.svg")]
        assert main(["evaluate", "--checkpoint", str(world / name), *data(world), *files]) == 0
        found[name] = json.loads((tmp_path / f"{name}.json").read_text())
    assert found["fresh"]["confusion"] == found["calibrated"]["confusion"]
    before, after = (found[name]["calibration"] for name in ("fresh", "calibrated"))
    assert after["nll"] < before["nll"]
    assert (before["temperature"], after["temperature"]) == (1.0, load_checkpoint(calibrated).temperature)
    assert before["pixels"] == 3 * 64 * 96
    assert f"calibration: ECE {100 * after['ece']:.2f} % (15 bins)" in capsys.readouterr().out
    assert (tmp_path / "fresh.svg").read_text().startswith("<svg xmlns=")


@pytest.mark.parametrize("value", [0, -1, "x", float("inf"), None])
def test_a_wrong_temperature_in_a_file_is_refused(world, tmp_path, value):
    import shutil

    folder = shutil.copytree(world / "fresh", tmp_path / "copy")
    values = json.loads((folder / CONFIG_FILE).read_text())
    text = json.dumps({**values, "temperature": value})
    (folder / CONFIG_FILE).write_text(text)
    with pytest.raises(InputError, match=str(folder / CONFIG_FILE)):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checkpoint", "model.onnx"], "an exported file cannot be changed"),
        (["--checkpoint", "efnet-edge-streets"], "is not yours to change; give --out"),
    ],
)
def test_what_cannot_be_changed_is_refused(world, capsys, options, message):
    assert main(["temperature", *data(world), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_full_folder_is_not_overwritten(world, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    words = ["--checkpoint", str(world / "fresh"), "--out", str(tmp_path)]
    assert main(["temperature", *data(world), *words]) == 2
    assert f"--out {tmp_path}: holds files already" in capsys.readouterr().err


def test_processes_add_up():
    logits, truth = made(np.random.default_rng(5))
    shares = tempered(logits, 1.0)
    whole, parts = Reliability(), [Reliability(), Reliability()]
    whole.add(shares, truth)
    parts[0].add(shares[:, ::2], truth[::2])
    parts[1].add(shares[:, 1::2], truth[1::2])
    total = parts[0].gathered(SimpleNamespace(gather=lambda own: parts))
    assert total.error == pytest.approx(whole.error)
    assert total.loss == pytest.approx(whole.loss)
    assert replace(total).pixels.sum() == 300
