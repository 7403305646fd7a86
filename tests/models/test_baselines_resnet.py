"""ResNet encoders: published weights by their names, and what they compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from resnet_reference import plain_resnet, published_shapes, published_state
from torch import Tensor, nn

import efnet
from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.models.baselines import Baseline
from efnet.models.baselines.resnet import ResNet, load_resnets
from efnet.models.baselines.rtfnet import RTFNet
from efnet.models.config import BaselineConfig
from efnet.training.config import NetworkConfig
from efnet.training.step import build_network


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return published_state(18)


@pytest.fixture(scope="module")
def checkpoint(published: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "resnet18-f37072fd.pth"
    torch.save(published, path)
    return path


def rival(name: str, **options: str) -> Baseline:
    model = efnet.create_model(name, 4, **options)
    assert isinstance(model, Baseline)
    return model


@pytest.mark.parametrize(("depth", "parameters"), [(18, 11_176_512), (50, 23_508_032), (152, 58_143_808)])
def test_parameters_are_the_published_ones_without_classifier(depth: int, parameters: int) -> None:
    with torch.device("meta"):
        encoder = ResNet(depth)
    assert sum(value.numel() for value in encoder.parameters()) == parameters
    shapes = {
        name: tuple(value.shape) for name, value in encoder.state_dict().items() if "num_batches" not in name
    }
    expected = {name: shape for name, shape in published_shapes(depth).items() if not name.startswith("fc.")}
    assert shapes == expected


@pytest.mark.parametrize("depth", [18, 50])
def test_encoder_is_the_papers(depth: int, tmp_path: Path) -> None:
    state = published_state(depth)
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "w.pth")
    network = nn.ModuleDict({"encoder": ResNet(depth)}).eval()
    report = load_resnets(network, tmp_path / "w.pth")
    assert report.left_over == ("fc.weight", "fc.bias")
    assert all(name.endswith("num_batches_tracked") for name in report.fresh)
    images = torch.randn(2, 3, 40, 70)
    with torch.inference_mode():
        ours = network["encoder"](images)
    for level, (maps, expected) in enumerate(zip(ours, plain_resnet(state, images.double()), strict=True)):
        assert maps.shape[1] == network["encoder"].widths[level]
        torch.testing.assert_close(maps.double(), expected, rtol=1e-3, atol=1e-4)


class Shallow(RTFNet):
    depth = 18


def test_both_encoders_are_filled_and_a_stem_of_one_channel_gets_the_mean(
    checkpoint: Path, published: dict[str, Tensor]
) -> None:
    model = Shallow(BaselineConfig(4))
    report = model.load_encoder(checkpoint)
    assert len(report.loaded) == 2 * (len(published) - 2)
    filled = model.state_dict()
    for side in ("rgb", "thermal"):
        assert torch.equal(
            filled[f"encoder_{side}.layer3.1.conv2.weight"], published["layer3.1.conv2.weight"]
        )
    assert torch.equal(filled["encoder_rgb.conv1.weight"], published["conv1.weight"])
    grey = torch.rand(1, 1, 40, 40)
    alone = nn.functional.conv2d(grey, filled["encoder_thermal.conv1.weight"])
    repeated = nn.functional.conv2d(grey.expand(-1, 3, -1, -1), published["conv1.weight"] / 3)
    torch.testing.assert_close(alone, repeated, rtol=1e-4, atol=1e-5)


def test_training_starts_from_it(checkpoint: Path, published: dict[str, Tensor]) -> None:
    network, report = build_network(NetworkConfig("pstnet", init=str(checkpoint)), ClassSet.generic(4))
    assert torch.equal(network.state_dict()["rgb_net.encoder.bn1.weight"], published["bn1.weight"])
    assert report is not None
    assert "left over 2 (fc.weight, fc.bias)" in str(report)


def test_weights_of_another_depth_are_refused(
    checkpoint: Path, published: dict[str, Tensor], tmp_path: Path
) -> None:
    with torch.device("meta"):
        deep = rival("rtfnet50")
    with pytest.raises(InputError, match=r"layer1.0.conv3.weight is only here.*ResNet-50 is needed"):
        deep.load_encoder(checkpoint)
    deeper = published | {"layer1.2.conv1.weight": torch.zeros(64, 64, 3, 3)}
    torch.save(deeper, tmp_path / "deeper.pth")
    model = rival("pstnet")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=r"layer1.2.conv1.weight is only there"):
        model.load_encoder(tmp_path / "deeper.pth")
    torch.save(published | {"layer1.0.conv1.weight": torch.zeros(32, 64, 3, 3)}, tmp_path / "narrow.pth")
    with pytest.raises(InputError, match=r"layer1.0.conv1.weight is \(32, 64, 3, 3\) there and \(64"):
        model.load_encoder(tmp_path / "narrow.pth")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_other_files_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    torch.save({"stem.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="not a ResNet checkpoint"):
        rival("pstnet").load_encoder(tmp_path / "other.pth")
    with pytest.raises(InputError, match="mfnet"):
        rival("mfnet").load_encoder(checkpoint)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    rival("mfnet").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a checkpoint of mfnet, which cannot start pstnet"):
        build_network(NetworkConfig("pstnet", init=str(tmp_path)), ClassSet.generic(4))


def test_what_belongs_to_other_classes_stays_fresh(tmp_path: Path) -> None:
    given = rival("pstnet")
    given.save_pretrained(tmp_path)
    other = ClassSet(("sky", "road", "car", "sign"), given.classes.palette)
    network, report = build_network(NetworkConfig("pstnet", init=str(tmp_path)), other)
    assert report is not None
    assert set(report.fresh) == {
        *("rgb_net.conv_last.weight", "rgb_net.conv_last.bias"),
        *("initial_block_enc.conv.weight", "initial_block_enc.conv.bias"),
        *("output_conv.1.weight", "output_conv.1.bias"),
    }
    loaded = "layers_dec.0.conv.1.weight"
    assert torch.equal(network.state_dict()[loaded], given.state_dict()[loaded])
