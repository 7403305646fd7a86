"""The backbone against features recorded from the official network (reference/README.md)."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import efnet
from efnet.core.errors import InputError

REFERENCE = Path(__file__).parent / "reference"


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    """The made weights under their official names."""
    shapes: dict[str, list[int]] = json.loads((REFERENCE / "tcformer_light_shapes.json").read_text())
    state = {}
    for name, shape in shapes.items():
        values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        if len(shape) >= 2:
            values = values / np.sqrt(np.prod(shape[1:]))
        else:
            values = 1 + 0.1 * values if name.endswith("weight") else 0.05 * values
        state[name] = torch.from_numpy(values.astype(np.float32))
    return state


@pytest.fixture(scope="module")
def checkpoint(official: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("official") / "tcformer_light.pth"
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in official.items()}, "epoch": 3}, path
    )
    return path


def by_first_appearance(assignment: np.ndarray) -> np.ndarray:
    """Renumber tokens as the reference does."""
    _, first, inverse = np.unique(assignment, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def test_reproduces_official_features(checkpoint: Path) -> None:
    reference = np.load(REFERENCE / "tcformer_light_192x256.npz")
    encoder = efnet.TCFormer("light").eval()
    report = encoder.load_checkpoint(checkpoint)
    assert (len(report.loaded), report.fresh, report.left_over) == (191, (), ())
    with torch.inference_mode():
        stages = encoder(torch.from_numpy(reference["image"]))
    for number, stage in enumerate(stages, start=1):
        assignment = stage.assignment[0].numpy()
        partition = by_first_appearance(assignment)
        assert (partition == reference[f"stage{number}_partition"]).mean() > 0.999
        ours = stage.features[0][assignment[reference[f"stage{number}_cells"]]].numpy()
        theirs = reference[f"stage{number}_features"]
        # Tight enough to tell LayerNorm epsilons of 1e-5 and 1e-6 apart.
        assert np.linalg.norm(ours - theirs) < 4e-6 * np.linalg.norm(theirs)


def test_official_weights_enter_efnet(checkpoint: Path, official: dict[str, Tensor]) -> None:
    model = efnet.create_model("efnet_light", num_classes=9)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    report = model.load_encoder(checkpoint)
    state = model.state_dict()
    assert torch.equal(state["rgb.patch_embed.proj.weight"], official["patch_embed1.proj.weight"])
    assert torch.equal(state["thermal.patch_embed.proj.weight"], official["patch_embed1.proj.weight"])
    assert torch.equal(state["token_stages.1.dbtc.conv.skip.weight"], official["ctm2.conv.skip.weight"])
    assert torch.equal(state["token_stages.2.blocks.1.mlp.fc1.weight"], official["block4.1.mlp.fc1.weight"])
    stems = sum(name.startswith(("patch_embed1", "block1", "norm1.")) for name in official)
    assert len(report.loaded) == 191 + stems
    assert report.left_over == ()
    parts = {name.split(".")[0] for name in report.fresh}
    assert parts == {"fusion", "down", "decoder", "mean", "std", "token_stages"}
    assert all(torch.equal(state[name], fresh[name]) for name in report.fresh)
    assert "fresh" in str(report)


@pytest.mark.parametrize("form", ["bare", "model", "safetensors", "with head"])
def test_forms_of_a_checkpoint(official: dict[str, Tensor], tmp_path: Path, form: str) -> None:
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    extra = {"head.weight": torch.zeros(1000, 512), "head.bias": torch.zeros(1000)}
    if form == "safetensors":
        save_file(official, path)
    else:
        torch.save({"model": official} if form == "model" else official | extra, path)
    report = efnet.TCFormer("light").load_checkpoint(path)
    assert len(report.loaded) == 191
    assert report.left_over == (("head.weight", "head.bias") if form in ("bare", "with head") else ())


@pytest.mark.parametrize("size", ["base", "tiny"])
def test_another_size_is_refused(checkpoint: Path, size: str) -> None:
    network = efnet.create_model(f"efnet_{size}")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match=r"2-2-2-2 there") as caught:
        network.load_encoder(checkpoint)
    assert str(checkpoint) in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_deeper_weights_are_refused(official: dict[str, Tensor], tmp_path: Path) -> None:
    deeper = official | {
        name.replace("block3.1", "block3.2"): value for name, value in official.items() if "block3.1" in name
    }
    torch.save(deeper, tmp_path / "deeper.pth")
    with pytest.raises(InputError, match=r"2-2-3-2 there, 2-2-2-2 here"):
        efnet.TCFormer("light").load_checkpoint(tmp_path / "deeper.pth")


class Malicious:
    """Runs a command when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, (f"touch {self.marker}",)


def test_bad_files(official: dict[str, Tensor], tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"state_dict": official, "meta": Malicious(marker)}, tmp_path / "malicious.pth")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save(official | {"norm1.weight": torch.full((64,), torch.nan)}, tmp_path / "nan.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    whole = (tmp_path / "nan.pth").read_bytes()
    (tmp_path / "truncated.pth").write_bytes(whole[: len(whole) // 2])
    encoder = efnet.TCFormer("light")
    names = [*sorted(path.name for path in tmp_path.iterdir()), "missing.pth"]
    assert len(names) == 9
    for name in names:
        with pytest.raises(InputError, match=name):
            encoder.load_checkpoint(tmp_path / name)
    assert not marker.exists()


def test_bad_images() -> None:
    encoder = efnet.TCFormer("tiny")
    for shape in ((3, 64, 64), (1, 4, 64, 64), (1, 3, 16, 64)):
        with pytest.raises(ValueError, match="images must be"):
            encoder(torch.zeros(shape))
    with pytest.raises(ValueError, match="light"):
        efnet.TCFormer("huge")


@pytest.mark.parametrize("make", [lambda: efnet.TCFormer("tiny"), lambda: efnet.create_model("efnet_tiny")])
def test_fresh_weights_are_initialised_as_the_official_network_does(make: Callable[[], nn.Module]) -> None:
    """Convolutions by their fan-out, linear layers at 0.02; the skips of tokens keep PyTorch's own way."""
    seen: list[nn.Module] = []
    for name, module in make().named_modules():
        if isinstance(module, nn.Conv1d):
            bound = 1 / math.sqrt(module.in_channels // module.groups)
            assert float(module.weight.detach().abs().max()) <= bound
            expected = bound / math.sqrt(3)
        elif isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels // module.groups))
        elif isinstance(module, nn.Linear) and module.weight.numel() > 500:
            expected = 0.02
        else:
            continue
        seen.append(module)
        assert float(module.weight.detach().std()) == pytest.approx(expected, rel=0.15), name
    for kind in (nn.Conv1d, nn.Conv2d, nn.Linear):
        assert any(isinstance(module, kind) for module in seen)
