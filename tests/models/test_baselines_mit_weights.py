"""Published SegFormer weights: a state dict with their names and shapes, and what it computes."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from mit_reference import Plain, published_shapes
from safetensors.torch import save_file
from torch import Tensor

import efnet
from efnet.cli.main import main
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.models.baselines import Baseline
from efnet.models.baselines.segformer import MIT, MiT, load_mit
from efnet.scenes import write_dataset
from efnet.training.config import NetworkConfig
from efnet.training.step import build_network


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    state = {}
    for name, shape in published_shapes().items():
        values = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            state[name] = values / math.sqrt(math.prod(shape[1:]))
        else:
            state[name] = 1 + 0.1 * values if name.endswith("weight") else 0.05 * values
    return state


@pytest.fixture(scope="module")
def checkpoint(published: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "mit_b0.pth"
    torch.save(published, path)
    return path


def test_encoder_is_the_papers(published: dict[str, Tensor], checkpoint: Path) -> None:
    network = torch.nn.ModuleDict({"encoder": MiT(MIT["b0"])}).eval()
    report = load_mit(network, checkpoint)
    assert report.fresh == ()
    assert report.left_over == ("head.weight", "head.bias")
    images = torch.randn(2, 3, 72, 100)
    with torch.inference_mode():
        ours = network["encoder"](images)
    for maps, expected in zip(ours, Plain(published)(images.double()), strict=True):
        torch.testing.assert_close(maps.double(), expected, rtol=1e-4, atol=1e-4)


def test_both_encoders_of_cmx_are_filled(published: dict[str, Tensor], checkpoint: Path) -> None:
    model = efnet.create_model("cmx_b0", 4)
    assert isinstance(model, Baseline)
    report = model.load_encoder(checkpoint)
    state = model.state_dict()
    for side in ("rgb", "thermal"):
        name = f"{side}.stages.2.blocks.1.mlp.dwconv.weight"
        assert torch.equal(state[name], published["block3.1.mlp.dwconv.dwconv.weight"])
    assert len(report.loaded) == 2 * (len(published) - 2)
    assert {name.split(".")[0] for name in report.fresh} == {"mean", "std", "FRMs", "FFMs", "decoder"}


def test_the_fourth_channel_starts_as_the_mean_of_three(
    published: dict[str, Tensor], checkpoint: Path
) -> None:
    model = efnet.create_model("segformer_b0", 4)
    assert isinstance(model, Baseline)
    model.load_encoder(checkpoint)
    stem = model.state_dict()["encoder.stages.0.patch_embed.proj.weight"]
    theirs = published["patch_embed1.proj.weight"]
    assert torch.equal(stem[:, :3], theirs)
    torch.testing.assert_close(stem[:, 3], theirs.mean(1))


@pytest.mark.parametrize("form", ["wrapped", "whole network"])
def test_forms_of_a_checkpoint(published: dict[str, Tensor], tmp_path: Path, form: str) -> None:
    state = {f"backbone.{name}": value for name, value in published.items() if "head" not in name}
    if form == "whole network":
        state["decode_head.linear_pred.weight"] = torch.zeros(19, 256, 1, 1)
    torch.save({"state_dict": state, "meta": {"epoch": 3}}, tmp_path / "segformer.pth")
    model = efnet.create_model("segformer_b0", 4, modality="rgb")
    assert isinstance(model, Baseline)
    report = model.load_encoder(tmp_path / "segformer.pth")
    assert len(report.loaded) == len(published) - 2
    assert len(report.left_over) == (form == "whole network")


def hub_name(name: str) -> str:
    """The hub's name of one of the authors', but for keys and values."""
    for theirs, hub in (
        (r"patch_embed(\d)\.proj", "patch_embeddings.{}.proj"),
        (r"patch_embed(\d)\.norm", "patch_embeddings.{}.layer_norm"),
        (r"block(\d)(.*)\.norm([12])", "block.{}{}.layer_norm_{}"),
        (r"block(\d)(.*)\.attn\.q", "block.{}{}.attention.self.query"),
        (r"block(\d)(.*)\.attn\.sr", "block.{}{}.attention.self.sr"),
        (r"block(\d)(.*)\.attn\.norm", "block.{}{}.attention.self.layer_norm"),
        (r"block(\d)(.*)\.attn\.proj", "block.{}{}.attention.output.dense"),
        (r"block(\d)(.*)\.mlp\.fc([12])", "block.{}{}.mlp.dense{}"),
        (r"block(\d)(.*)\.dwconv\.dwconv", "block.{}{}.dwconv.dwconv"),
        (r"norm(\d)", "layer_norm.{}"),
    ):
        match = re.fullmatch(rf"{theirs}\.(weight|bias)", name)
        if match:
            stage, *rest, kind = match.groups()
            return f"segformer.encoder.{hub.format(int(stage) - 1, *rest)}.{kind}"
    raise AssertionError(name)


def test_names_of_the_hub(published: dict[str, Tensor], checkpoint: Path, tmp_path: Path) -> None:
    state = {"classifier.weight": torch.zeros(1000, 256)}
    for name, value in published.items():
        if ".attn.kv." in name:
            prefix = hub_name(name.replace(".kv.", ".q."))
            halves = value.chunk(2)
            state |= {
                prefix.replace("query", part): half.clone()
                for part, half in zip(("key", "value"), halves, strict=True)
            }
        elif "head" not in name:
            state[hub_name(name)] = value
    save_file(state, tmp_path / "model.safetensors")
    from_authors, from_hub = (efnet.create_model("segformer_b0", 4) for _ in range(2))
    assert isinstance(from_authors, Baseline)
    assert isinstance(from_hub, Baseline)
    from_authors.load_encoder(checkpoint)
    report = from_hub.load_encoder(tmp_path / "model.safetensors")
    assert report.left_over == ("classifier.weight",)
    assert len(report.loaded) == len(published) - 2
    for name, value in from_authors.state_dict().items():
        assert torch.equal(value, from_hub.state_dict()[name]) or name.startswith("decoder.")


def test_misfits_are_refused(published: dict[str, Tensor], checkpoint: Path, tmp_path: Path) -> None:
    torch.save(
        {name: value for name, value in published.items() if "patch_embed2" not in name},
        tmp_path / "other.pth",
    )
    torch.save(
        {name: value for name, value in published.items() if "block2.1.attn.q" not in name},
        tmp_path / "less.pth",
    )
    torch.save(published | {"block2.2.norm1.weight": torch.ones(64)}, tmp_path / "more.pth")
    small, large = efnet.create_model("segformer_b0", 4), efnet.create_model("segformer_b2", 4)
    assert isinstance(small, Baseline)
    assert isinstance(large, Baseline)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    for model, path, message in (
        (small, tmp_path / "other.pth", "not a MiT"),
        (small, tmp_path / "less.pth", "only here"),
        (small, tmp_path / "more.pth", "only there"),
        (large, checkpoint, r"\(32, .* there and \(64, .* here"),
        (small, tmp_path / "missing.pth", "no such"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            model.load_encoder(path)
        assert str(path) in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_training_starts_from_a_file(checkpoint: Path) -> None:
    config = NetworkConfig(name="segformer_b0", modality="rgb", init=str(checkpoint))
    network, report = build_network(config, ClassSet.generic(4))
    assert report is not None
    assert report.left_over == ("head.weight", "head.bias")
    assert network.name == "segformer_b0"


def test_as_a_user_types_it(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "data", train=2, val=1, test=1, size=(64, 96), seed=1)
    command = ["train", "--dataset", "mfnet", "--root", str(tmp_path / "data"), "--size", "64x96"]
    command += ["--epochs", "1", "--workers", "0", "--device", "cpu"]
    fine = ["--model", "segformer_b0", "--init", str(checkpoint), "--out", str(tmp_path / "run")]
    assert main([*command, *fine]) == 0
    run = efnet.Predictor.from_pretrained(tmp_path / "run")
    assert run.model.name == "segformer_b0"
    capsys.readouterr()
    wrong = ["--model", "segformer_b2", "--init", str(checkpoint), "--out", str(tmp_path / "wrong")]
    assert main([*command, *wrong]) == 2
    assert "mit_b0.pth" in capsys.readouterr().err
