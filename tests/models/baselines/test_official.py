"""Files of the authors: the forms in which users have them, what is refused, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from feature_cases import Case, make_weights
from recorded import CASES
from torch import Tensor

import efnet
from efnet.cli.main import main
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.models.baselines import BASELINES, Baseline
from efnet.models.checkpoint import load_checkpoint


def official_state(classes: int = 5) -> dict[str, Tensor]:
    """MFNet's, whose names are ours, with values that are not fresh."""
    torch.manual_seed(5)
    state = efnet.create_model("mfnet", classes).state_dict()
    return {
        name: value + 0.01 * torch.randn(value.shape) if value.is_floating_point() else value
        for name, value in state.items()
        if name not in ("mean", "std")
    }


@pytest.mark.parametrize("form", ["bare", "state_dict", "model", "module.", "without counters"])
def test_forms_of_a_file(form: str, tmp_path: Path) -> None:
    state = official_state()
    kept: object = state
    if form == "module.":
        kept = {f"module.{name}": value for name, value in state.items()}
    elif form == "without counters":
        kept = {name: value for name, value in state.items() if "num_batches" not in name}
    elif form != "bare":
        kept = {form: state, "epoch": 3, "optimizer": {"state": {}}}
    torch.save(kept, tmp_path / "final.pth")
    model, report = BASELINES["mfnet"].from_official(tmp_path / "final.pth")
    assert (model.num_classes, model.training, report.fresh, report.left_over) == (5, False, (), ())
    for name, value in state.items():
        assert torch.equal(model.state_dict()[name], value)


def test_pstnets_names_are_wrapped_twice_and_its_resnet_is_there_twice(tmp_path: Path) -> None:
    model = efnet.create_model("pstnet", 5)
    names = (
        ("rgb_net.encoder.conv1.", "rgb_net.module.layer0.0."),
        ("rgb_net.encoder.bn1.", "rgb_net.module.layer0.1."),
        ("rgb_net.encoder.layer1.", "rgb_net.module.layer1.1."),
        ("rgb_net.encoder.", "rgb_net.module."),
        ("rgb_net.", "rgb_net.module."),
    )
    file = {"module.rgb_net.module.base_model.fc.weight": torch.zeros(1000, 512)}
    for name, value in model.state_dict().items():
        theirs = next((new + name[len(old) :] for old, new in names if name.startswith(old)), name)
        if name not in ("mean", "std"):
            file[f"module.{theirs}"] = value
    torch.save(file, tmp_path / "model_best.pth")
    again, report = BASELINES["pstnet"].from_official(tmp_path / "model_best.pth")
    assert report.left_over == ("rgb_net.module.base_model.fc.weight",)
    assert again.input.size == (360, 640)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    # The colour stream's own file has its names without the wrapper.
    alone = {
        name.removeprefix("module.rgb_net.").replace("module.", "module.", 1): value
        for name, value in file.items()
        if name.startswith("module.rgb_net.")
    }
    torch.save(alone, tmp_path / "colour.pth")
    stream, _ = BASELINES["pstnet"].from_official(tmp_path / "colour.pth", modality="rgb")
    assert torch.equal(stream.state_dict()["rgb_net.conv_last.weight"], model.rgb_net.conv_last.weight)


@pytest.mark.parametrize(
    ("name", "classes", "message"),
    [
        ("pstnet", None, "not weights of pstnet: no classifier"),
        ("mfnet", 4, r"decode1.conv.weight is \(5, 32, 3, 3\) there and \(4, 32, 3, 3\) here"),
    ],
)
def test_misfits_are_refused_with_names(name: str, classes: int | None, message: str, tmp_path: Path) -> None:
    torch.save(official_state(), tmp_path / "final.pth")
    given = None if classes is None else ClassSet.generic(classes)
    with pytest.raises(InputError, match=message) as caught:
        BASELINES[name].from_official(tmp_path / "final.pth", given)
    assert str(tmp_path / "final.pth") in str(caught.value)


@pytest.mark.parametrize("fault", ["missing", "surplus", "shape"])
def test_nothing_changes_when_a_file_does_not_fit(fault: str, tmp_path: Path) -> None:
    state, name = official_state(), "conv4_rgb.conv1_left.conv.weight"
    if fault == "missing":
        del state[name]
    elif fault == "surplus":
        state[name := "conv6_rgb.weight"] = torch.zeros(3)
    else:
        state[name] = torch.zeros(3)
    torch.save(state, tmp_path / "final.pth")
    model = efnet.create_model("mfnet", 5)
    assert isinstance(model, Baseline)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError, match=name):
        model.load_official(tmp_path / "final.pth")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_converted_file_is_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(official_state(9), tmp_path / "final.pth")
    words = ["convert-weights", "mfnet", str(tmp_path / "final.pth"), "--dataset", "mfnet"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert "mfnet, rgbt, 9 classes, 266 tensors" in capsys.readouterr().out
    model = load_checkpoint(tmp_path / "run")
    assert model.classes.names[1] == "car"
    assert model.training_summary == {"source": "the authors' weights, final.pth"}
    assert "| weights | the authors' weights, final.pth |" in (tmp_path / "run" / "README.md").read_text()
    direct, _ = BASELINES["mfnet"].from_official(tmp_path / "final.pth")
    pair = torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(*pair), direct(*pair))


def test_the_command_refuses_what_it_cannot_convert(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "final.pth"
    torch.save(official_state(9), file)
    for name, words, message in (
        ("efnet_light", [], "not a network from another paper; there are cm"),
        ("rtfnet50", [], "no classifier of it is in the file"),
        ("mfnet", ["--dataset", "pst900"], "mfnet for 5 classes (decode1"),
        ("mfnet", ["--modality", "rgb"], "--modality rgb: mfnet exists for rgbt"),
    ):
        assert main(["convert-weights", name, str(file), "--out", str(tmp_path / "run"), *words]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_mfnets_own_weights_on_real_pairs(samples: Path, tmp_path: Path) -> None:
    """Chance is 10.4 here; a wrong channel, scale or last layer gives no half of it."""
    file = samples / "rivals" / "mfnet" / "final.pth"
    if not file.is_file():
        pytest.skip(f"no {file}")
    words = ["convert-weights", "mfnet", str(file), "--dataset", "mfnet", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    data = ["--dataset", "mfnet", "--root", str(samples / "mfnet"), "--split", "val", "--device", "cpu"]
    report = tmp_path / "report.json"
    assert main(["evaluate", "--checkpoint", str(tmp_path / "run"), *data, "--json", str(report)]) == 0
    assert json.loads(report.read_text())["miou"] == pytest.approx(0.579, abs=0.002)


@pytest.mark.slow
@pytest.mark.parametrize("case", {case.model: case for case in CASES}.values(), ids=lambda case: case.model)
def test_a_file_of_every_network_becomes_a_checkpoint(
    case: Case, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = samples / "rivals" / case.folder
    if not folder.is_dir():
        pytest.skip(f"no recorded names in {folder}")
    state = make_weights(json.loads((folder / case.shapes).read_text()), case.special)
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "w.pth")
    assert main(["convert-weights", case.model, str(tmp_path / "w.pth"), "--out", str(tmp_path / "run")]) == 0
    model = load_checkpoint(tmp_path / "run")
    assert (model.name, model.num_classes) == (case.model, case.classes)
    assert "fresh 0" in capsys.readouterr().out


def test_a_checkpoint_of_an_earlier_network_of_that_name_is_refused(tmp_path: Path) -> None:
    efnet.create_model("mfnet", 4).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    del values["revision"]  # as before
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"a checkpoint of an earlier mfnet.*train it again"):
        load_checkpoint(tmp_path)


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PLAIN = ((0, 0, 0), (1, 1, 1))
GREY = ((0.449,) * 3, (0.226,) * 3)
EIGHT_BIT = ((0, 0, 0), (1 / 255,) * 3)
INPUTS = {
    **dict.fromkeys(("mfnet", "rtfnet50", "rtfnet152", "feanet", "pstnet"), (PLAIN, PLAIN, False)),
    **dict.fromkeys(("eaefnet", "eaefnet50"), (PLAIN, PLAIN, False)),
    "eaefnet_pst900": (EIGHT_BIT, EIGHT_BIT, False),
    "sfafma": (PLAIN, PLAIN, False),
    "rsfnet": (
        ((58.6573 / 255, 65.9755 / 255, 56.4990 / 255), (60.2980 / 255, 59.0457 / 255, 58.0989 / 255)),
        ((100.8296 / 255,) * 3, (47.1224 / 255,) * 3),
        True,
    ),
    **dict.fromkeys(("gmnet", "sgfnet", "egfnet", "mdrnet", "mmsmcnet"), (IMAGENET, GREY, False)),
    **dict.fromkeys(("lasnet", "tuni_t", "tuni_s", "tuni_b", "tuni_v1_s"), (IMAGENET, GREY, False)),
    **dict.fromkeys(("segformer_b0", "segformer_b2"), (IMAGENET, IMAGENET, False)),
    **dict.fromkeys(("cmx_b0", "cmx_b2", "cmx_b4"), (IMAGENET, IMAGENET, True)),
    **dict.fromkeys(("cmnext_b2", "cmnext_b4"), (IMAGENET, PLAIN, False)),
}
"""Mean and deviation of colour and thermal images, and whether blue comes first."""


@pytest.mark.parametrize("name", BASELINES)
def test_images_are_normalised_as_the_authors_do(name: str) -> None:
    (mean, std), (grey, spread), blue_first = INPUTS[name]
    network = BASELINES[name]
    rgb, thermal = torch.rand(1, 3, 4, 5), torch.rand(1, 1, 4, 5)
    # The constants alone: no weights are made.
    model = efnet.create_model("mfnet", 4)
    assert isinstance(model, Baseline)
    for buffer, values in zip(
        ("mean", "std", "thermal_mean", "thermal_std"),
        (*network.rgb_pixels, *network.thermal_pixels),
        strict=True,
    ):
        model.get_buffer(buffer).copy_(torch.tensor(values).view(1, 3, 1, 1))
    object.__setattr__(model, "blue_first", network.blue_first)
    ours, heat = model.normalize(rgb, thermal)
    assert ours is not None
    assert heat is not None
    for channel in range(3):
        source = 2 - channel if blue_first else channel
        torch.testing.assert_close(ours[:, channel], (rgb[:, source] - mean[channel]) / std[channel])
        torch.testing.assert_close(heat[:, channel], (thermal[:, 0] - grey[channel]) / spread[channel])


@pytest.mark.parametrize("name", BASELINES)
def test_only_auxiliary_parts_are_not_trained(name: str) -> None:
    network = BASELINES[name]
    with torch.device("meta"):
        model = efnet.create_model(name, 5)
    frozen = {key for key, value in model.named_parameters() if not value.requires_grad}
    assert frozen == {key for key, _ in model.named_parameters() if key.startswith(network.auxiliary)}
    assert bool(frozen) == bool(network.auxiliary)
