"""What `create_model` promises of every network it builds, EFNet's and those of other papers alike.

Small networks are put through everything; large ones through what takes no minutes, and through the rest with
`-m slow`. Shapes and counts of all are looked at on the `meta` device, which computes nothing.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from model_cases import check_determinism, check_gradients, check_round_trip, check_shapes, random_pair

import efnet
from efnet.export.formats import Deployed, trace
from efnet.models import SegmentationModel
from efnet.models.checkpoint import copy_weights
from efnet.models.config import Modality

SMALL = ("efnet_tiny", "mfnet", "pstnet", "segformer_b0", "cmx_b0", "tuni_s")
LARGE = tuple(name for name in efnet.list_models() if name not in SMALL)
MODALITIES: tuple[Modality, ...] = ("rgbt", "rgb", "thermal")

VARIANTS = (
    "efnet_light",
    "efnet_base",
    "efnet_large",
    "segformer_b2",
    "cmx_b2",
    "tuni_b",
    "eaefnet",
    "rtfnet152",
)
"""Large networks with the code of another one of `create_model`; the default run takes that one."""

every_code = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in VARIANTS)) for name in efnet.list_models()],
)
every = pytest.mark.parametrize("name", efnet.list_models())
small = pytest.mark.parametrize("name", SMALL)
large = pytest.mark.parametrize("name", LARGE)
by_modality = pytest.mark.parametrize("modality", MODALITIES)


def sketch(name: str, classes: int = 9, modality: Modality = "rgbt") -> SegmentationModel:
    """A network without memory or arithmetic."""
    with torch.device("meta"):
        return efnet.create_model(name, classes, modality=modality).eval()


def images(height: int, width: int, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """For a sketch."""
    return (
        torch.empty(batch, 3, height, width, device="meta"),
        torch.empty(batch, 1, height, width, device="meta"),
    )


@every
def test_sketch_of_two_images(name: str) -> None:
    check_sketch(name, "rgbt")


@every_code
@pytest.mark.parametrize("modality", ["rgb", "thermal"])
def test_sketch_of_one_image(name: str, modality: Modality) -> None:
    check_sketch(name, modality)


def check_sketch(name: str, modality: Modality) -> None:
    """Logits have the size of the images, also where it is odd; one modality needs its image alone."""
    model = sketch(name, 7, modality)
    assert (model.name, model.num_classes, model.modality) == (name, 7, modality)
    rgb, thermal = images(33, 47, 2)
    given = (None if modality == "thermal" else rgb, None if modality == "rgb" else thermal)
    assert model(*given).shape == (2, 7, 33, 47)
    with pytest.raises(ValueError, match="needs both" if modality == "rgbt" else f"needs {modality}"):
        model(None, rgb if modality == "rgb" else None)


@every
def test_one_modality_is_no_larger(name: str) -> None:
    """The other one's branch does not exist."""
    both, rgb, thermal = (
        sum(value.numel() for value in sketch(name, modality=modality).parameters())
        for modality in MODALITIES
    )
    assert max(rgb, thermal) < both


@every
def test_classes_change_the_last_layers_alone(name: str) -> None:
    shapes = [
        {key: value.shape for key, value in sketch(name, classes).state_dict().items()} for classes in (5, 9)
    ]
    few, many = shapes
    assert few.keys() == many.keys()
    other = [key for key in few if few[key] != many[key]]
    # RTFNet's last block has as many channels as there are classes, in all its layers.
    assert 1 <= len({key.partition("classify")[0] for key in other}) <= 6
    assert all(abs(few[key].numel() - many[key].numel()) < 5000 for key in other)


@small
def test_weights_serve_other_classes(name: str) -> None:
    given, network = efnet.create_model(name, 5), efnet.create_model(name, 3).eval()
    report = copy_weights(network, given, "given")
    theirs = given.state_dict()
    changed = {key for key, value in network.state_dict().items() if value.shape != theirs[key].shape}
    assert changed <= set(report.fresh)
    assert len(report.fresh) <= 6
    assert all(torch.equal(network.state_dict()[key], theirs[key]) for key in report.loaded)
    with torch.inference_mode():
        assert network(*random_pair(32, 32)).shape == (1, 3, 32, 32)


@small
@by_modality
def test_any_size(name: str, modality: Modality) -> None:
    check_shapes(efnet.create_model(name, 5, modality=modality))


@small
def test_the_other_image_of_one_modality_is_ignored(name: str) -> None:
    rgb, thermal = random_pair(64, 64)
    with torch.inference_mode():
        for modality, other in (("rgb", (rgb, 1 - thermal)), ("thermal", (1 - rgb, thermal))):
            model = efnet.create_model(name, 4, modality=modality).eval()
            assert torch.equal(model(rgb, thermal), model(*other))


@every_code
def test_both_images_matter(name: str) -> None:
    model = efnet.create_model(name, 4).eval()
    rgb, thermal = random_pair(32, 64)
    with torch.inference_mode():
        logits = model(rgb, thermal)
        assert logits.isfinite().all()
        assert not torch.equal(logits, model(1 - rgb, thermal))
        assert not torch.equal(logits, model(rgb, 1 - thermal))


@every_code
def test_classifiers_start_near_zero(name: str) -> None:
    """So the first cross-entropy is that of equal probabilities, ln K, and no network starts from a handicap.

    EFNet's own decoder has no such layer: its logits are distances.
    """
    torch.manual_seed(0)
    options = {"decoder": "mlp"} if name.startswith("efnet") else {}
    model = efnet.create_model(name, 9, **options).train()
    label = torch.randint(0, 9, (2, 64, 64))
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(*random_pair(64, 64, 2)), label)
    assert float(loss) == pytest.approx(math.log(9), rel=0.03)
    for key, value in model.named_parameters():
        if key.endswith("classify.bias"):
            assert not value.any()
        elif key.endswith("classify.weight"):
            assert float(value.detach().std()) == pytest.approx(0.01, rel=0.3)


@small
def test_the_same_bits_again_and_alone_as_in_a_batch(name: str) -> None:
    check_determinism(efnet.create_model(name, 4))


@small
def test_every_parameter_learns(name: str) -> None:
    check_gradients(efnet.create_model(name, 4), torch.float32)


@pytest.mark.slow
@large
def test_every_parameter_of_a_large_one_learns(name: str) -> None:
    check_gradients(efnet.create_model(name, 4), torch.float32)


@small
def test_round_trip(name: str, tmp_path: Path) -> None:
    check_round_trip(efnet.create_model(name, 4, modality="thermal"), tmp_path / "thermal")
    check_round_trip(efnet.create_model(name, 4), tmp_path / "both")


def check_program(model: SegmentationModel) -> None:
    """The program that all export formats come from answers as the network, at another size and batch."""
    program = trace(Deployed(model.eval(), "float", "logits")).module(check_guards=False)
    for pair in (random_pair(64, 96, 3), random_pair(50, 70)):
        with torch.inference_mode():
            torch.testing.assert_close(program(*pair), model(*pair), rtol=1e-3, atol=1e-3)


def test_one_exported_program_serves_every_size() -> None:
    check_program(efnet.create_model("mfnet", 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SMALL if name != "mfnet"] + list(LARGE))
def test_one_exported_program_of_the_others(name: str) -> None:
    check_program(efnet.create_model(name, 3))
