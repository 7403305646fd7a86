"""EFNet: interface, ablations, sizes."""

from __future__ import annotations

import pytest
import torch
from model_cases import check_determinism, check_gradients, check_shapes, random_pair

import efnet
from efnet.models import EFNet
from efnet.models.config import BackboneConfig, EFNetConfig

VARIANTS = {
    "default": {},
    "baseline": {"fusion": "add", "position": "none", "decoder": "mlp"},
    "cat, pe": {"fusion": "cat", "position": "pe"},
    "deeplab, even tau": {"decoder": "deeplab", "tau": (0.5, 0.5, 0.5)},
    "rgb alone": {"modality": "rgb"},
    "thermal alone": {"modality": "thermal"},
    "pooling": {"merging": "pool"},
    "other readings": {
        "distance": "balanced",
        "density": "others",
        "unit": "image",
        "enlargement": "bilinear",
    },
}


def tiny(**options: object) -> EFNet:
    return efnet.create_model("efnet_tiny", num_classes=5, **options)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
class TestVariants:
    def test_shapes(self, options: dict[str, object]) -> None:
        check_shapes(tiny(**options))

    def test_determinism(self, options: dict[str, object]) -> None:
        check_determinism(tiny(**options))

    @pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
    def test_gradients(self, options: dict[str, object], precision: torch.dtype) -> None:
        check_gradients(tiny(**options), precision)


def parameters(name: str = "efnet_light", **options: object) -> float:
    """Parameters in millions, counted without allocating them."""
    with torch.device("meta"):
        model = efnet.create_model(name, num_classes=9, **options)
    return sum(value.numel() for value in model.parameters()) / 1e6


def test_parameter_counts() -> None:
    assert 1 < parameters("efnet_tiny") < 3
    assert 14.5 < parameters("efnet_light") < 15.5
    assert 26.0 < parameters("efnet_base") < 27.5
    assert parameters("efnet_large") > parameters("efnet_base")


def test_parameters_of_parts() -> None:
    whole = parameters()
    assert 0.06 < whole - parameters(fusion="add") < 0.10
    assert 0 < whole - parameters(position="none") < 0.005
    assert 0.005 < parameters(position="pe") - parameters(position="none") < 0.02
    assert 0.50 < parameters(decoder="mlp") - whole < 0.54
    assert parameters(decoder="deeplab") - whole == pytest.approx(3.77, abs=0.005)
    for other in ({"distance": "balanced"}, {"density": "others"}, {"unit": "image"}):
        assert parameters(**other, enlargement="bilinear") == whole
    decoder = sum(value.numel() for value in efnet.create_model("efnet_light", 9).decoder.parameters())
    assert decoder == 9 * (64 + 128 + 320 + 512)


def test_names() -> None:
    assert efnet.list_models()[:4] == ["efnet_tiny", "efnet_light", "efnet_base", "efnet_large"]
    with pytest.raises(ValueError, match="efnet_light"):
        efnet.create_model("efnet_huge")
    with pytest.raises(ValueError, match="fusion"):
        efnet.create_model("efnet_tiny", fusion="sum")
    with pytest.raises(ValueError, match="decode"):
        efnet.create_model("efnet_tiny", decode="mfad")
    with pytest.raises(ValueError, match="tau"):
        efnet.create_model("efnet_tiny", tau=(0.3, 0.7))
    with pytest.raises(ValueError, match="num_classes"):
        efnet.create_model("efnet_tiny", num_classes=1)


BAD_PAIRS = {
    "no batch": ((3, 64, 64), (1, 1, 64, 64), r"rgb must be \(B, 3, H, W\)"),
    "thermal with three channels": ((1, 3, 64, 64), (1, 3, 64, 64), r"thermal must be \(B, 1, H, W\)"),
    "rgb with one channel": ((1, 1, 64, 64), (1, 1, 64, 64), r"rgb must be \(B, 3, H, W\)"),
    "unequal sizes": ((1, 3, 64, 64), (1, 1, 64, 32), "differ in batch or size"),
    "unequal batches": ((2, 3, 64, 64), (1, 1, 64, 64), "differ in batch or size"),
    "too small": ((1, 3, 31, 64), (1, 1, 31, 64), "at least 32x32"),
    "empty batch": ((0, 3, 64, 64), (0, 1, 64, 64), r"rgb must be \(B, 3, H, W\)"),
}


@pytest.mark.parametrize(("rgb", "thermal", "message"), BAD_PAIRS.values(), ids=BAD_PAIRS.keys())
def test_bad_pairs(rgb: tuple[int, ...], thermal: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny()(torch.zeros(rgb), torch.zeros(thermal))


def test_integer_images_are_refused() -> None:
    with pytest.raises(ValueError, match="floating point"):
        tiny()(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.zeros(1, 1, 64, 64))


def test_missing_modality_is_refused() -> None:
    rgb, thermal = random_pair()
    with pytest.raises(ValueError, match="both"):
        tiny()(rgb, None)
    with pytest.raises(ValueError, match="needs thermal"):
        tiny(modality="thermal")(rgb, None)
    assert tiny(modality="thermal").eval()(None, thermal).shape == (1, 5, 64, 96)


def test_one_modality_ignores_the_other() -> None:
    model = tiny(modality="rgb").eval()
    rgb, thermal = random_pair()
    with torch.inference_mode():
        assert torch.equal(model(rgb, thermal), model(rgb, 1 - thermal))


def test_both_modalities_matter() -> None:
    model = tiny().eval()
    rgb, thermal = random_pair()
    with torch.inference_mode():
        logits = model(rgb, thermal)
        assert not torch.allclose(logits, model(1 - rgb, thermal))
        assert not torch.allclose(logits, model(rgb, 1 - thermal))


def test_token_counts_and_maps() -> None:
    model = tiny().eval()
    rgb, thermal = (torch.rand(2, 3, 100, 132) for _ in range(2))
    with torch.inference_mode():
        stages = model.stages(rgb, thermal)
    cells = 25 * 33
    counts = [cells, -(-cells // 4), -(-cells // 16), -(-cells // 64)]
    assert [stage.features.shape[1] for stage in stages] == counts
    assert [stage.map_size for stage in stages] == [(25, 33), (13, 17), (7, 9), (4, 5)]
    for stage, count in zip(stages, counts, strict=True):
        assert stage.assignment.shape == (2, cells)
        # Every token owns at least one cell.
        assert all(len(sample.unique()) == count for sample in stage.assignment)


@pytest.mark.slow
def test_overfits_one_pair() -> None:
    """The whole can learn: one small pair by heart within a few steps."""
    model = efnet.create_model("efnet_tiny", num_classes=3)
    rgb, thermal = random_pair(64, 64)
    truth = torch.zeros(1, 64, 64, dtype=torch.int64)
    truth[:, 16:48, 8:32] = 1
    truth[:, 20:60, 40:56] = 2
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(rgb, thermal), truth).backward()
        optimizer.step()
    with torch.inference_mode():
        agreement = (model.eval()(rgb, thermal).argmax(1) == truth).float().mean()
    assert agreement > 0.95


@pytest.mark.slow
def test_memory_of_a_full_size_forward() -> None:
    """One 480x640 forward of efnet_light stays under 1.5 GB of process memory."""
    import subprocess
    import sys

    program = (
        "import resource, torch, efnet\n"
        "model = efnet.create_model('efnet_light', num_classes=9).eval()\n"
        "with torch.inference_mode(): model(torch.rand(1, 3, 480, 640), torch.rand(1, 1, 480, 640))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(output.stdout) * 1024 < 1.5e9


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"decoder": "mlp", "position": "pe"}], ids=["default", "mlp, pe"])
def test_networks_of_another_type(dtype: torch.dtype, options: dict[str, object]) -> None:
    """`model.to(dtype)` works on images of any floating type, and answers close to float32."""
    model = tiny(**options).eval()
    rgb, thermal = random_pair(64, 64)
    with torch.inference_mode():
        expected = model(rgb, thermal)
        logits = model.to(dtype)(rgb, thermal.double())
    assert logits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    if dtype == torch.float64:
        torch.testing.assert_close(logits.float(), expected, rtol=1e-3, atol=1e-3)
    assert logits.isfinite().all()


def test_logits_are_float32_under_autocast() -> None:
    for options in ({}, {"decoder": "mlp"}):
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert tiny(**options).eval()(*random_pair()).dtype == torch.float32


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_checkpointed_activations_change_no_gradient(drop_path: float) -> None:
    torch.manual_seed(0)
    model = tiny(drop_path=drop_path).train()
    assert not model.checkpoint_activations
    pair = random_pair(batch=2)
    calls: list[int] = []
    model.rgb.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    gradients = []
    for again in (False, True):
        model.checkpoint_activations = again
        assert model.checkpoint_activations == again
        model.zero_grad()
        torch.manual_seed(1)
        model(*pair).square().mean().backward()
        gradients.append({name: value.grad.clone() for name, value in model.named_parameters()})
    assert len(calls) == 3  # once, then once more in the backward pass
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize(
    ("training", "backend"),
    [
        (False, "eager"),
        (True, "eager"),
        *(pytest.param(training, "aot_eager", marks=pytest.mark.slow) for training in (False, True)),
    ],
)
@pytest.mark.slow
def test_compiles_into_one_graph(training: bool, backend: str) -> None:
    """Nothing in the network proper breaks a graph; these backends show it without a C++ compiler.

    `aot_eager` also traces the backward pass and every operator of PyTorch, which takes longer.
    """
    torch._dynamo.reset()
    backbone = BackboneConfig((1, 1, 1, 1), (16, 32, 48, 64), (1, 2, 3, 4), (2, 2, 2, 2))
    model = EFNet(EFNetConfig(backbone, num_classes=4)).train(training)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    rgb, thermal = random_pair(32, 64)
    with torch.set_grad_enabled(training):
        expected, result = model(rgb, thermal), compiled(rgb, thermal)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    if training:
        result.sum().backward()
        assert all(value.grad is not None for value in model.parameters())
