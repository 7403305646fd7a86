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
from efnet.core.errors import InputError
from efnet.export.formats import Deployed, trace
from efnet.models import SegmentationModel
from efnet.models.baselines import BASELINES
from efnet.models.checkpoint import copy_weights
from efnet.models.config import Modality

SMALL = ("efnet_tiny", "mfnet", "pstnet", "segformer_b0", "cmx_b0", "tuni_t")
LARGE = tuple(name for name in efnet.list_models() if name not in SMALL)
MODALITIES: tuple[Modality, ...] = ("rgbt", "rgb", "thermal")

PAIRS = [
    (name, modality)
    for name in efnet.list_models()
    for modality in (BASELINES[name].modalities if name in BASELINES else MODALITIES)
]
"""Every network with every combination of images that it exists for."""

SIZES = {"mmsmcnet": (480, 640), "sgfnet": (97, 130)}
"""Images that networks take which do not take every size."""

every = pytest.mark.parametrize("name", efnet.list_models())
small = pytest.mark.parametrize("name", SMALL)
large = pytest.mark.parametrize("name", LARGE)
paired = pytest.mark.parametrize(("name", "modality"), PAIRS)
small_paired = pytest.mark.parametrize(("name", "modality"), [pair for pair in PAIRS if pair[0] in SMALL])


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


@paired
def test_sketch(name: str, modality: Modality) -> None:
    """Logits have the size of the images, also where it is odd; one modality needs its image alone."""
    model = sketch(name, 7, modality)
    assert (model.name, model.num_classes, model.modality) == (name, 7, modality)
    height, width = SIZES.get(name, (33, 47))
    rgb, thermal = images(height, width, 2)
    given = (None if modality == "thermal" else rgb, None if modality == "rgb" else thermal)
    assert model(*given).shape == (2, 7, height, width)
    with pytest.raises(ValueError, match="needs both" if modality == "rgbt" else f"needs {modality}"):
        model(None, rgb if modality == "rgb" else None)


@every
def test_one_modality_is_no_larger(name: str) -> None:
    """The other one's branch does not exist."""
    sizes = {
        modality: sum(value.numel() for value in sketch(name, modality=modality).parameters())
        for other, modality in PAIRS
        if other == name
    }
    both = sizes.pop("rgbt")
    assert all(size < both for size in sizes.values())


@every
def test_classes_change_the_last_layers_alone(name: str) -> None:
    shapes = [
        {key: value.shape for key, value in sketch(name, classes).state_dict().items()} for classes in (5, 9)
    ]
    few, many = shapes
    assert few.keys() == many.keys()
    other = [key for key in few if few[key] != many[key]]
    # RTFNet's last block has as many channels as there are classes, in all its layers.
    parts = {key.rpartition(".")[0] for key in other}
    assert 1 <= len(parts) <= 14
    assert all(abs(few[key].numel() - many[key].numel()) < 5000 for key in other)


@small
def test_weights_serve_other_classes(name: str) -> None:
    given, network = efnet.create_model(name, 5), efnet.create_model(name, 3).eval()
    report = copy_weights(network, given, "given")
    theirs = given.state_dict()
    changed = {key for key, value in network.state_dict().items() if value.shape != theirs[key].shape}
    assert changed <= set(report.fresh)
    assert len(report.fresh) <= 7
    assert all(torch.equal(network.state_dict()[key], theirs[key]) for key in report.loaded)
    with torch.inference_mode():
        assert network(*random_pair(32, 32)).shape == (1, 3, 32, 32)


@small_paired
def test_any_size(name: str, modality: Modality) -> None:
    check_shapes(efnet.create_model(name, 5, modality=modality))


@small
def test_the_other_image_of_one_modality_is_ignored(name: str) -> None:
    rgb, thermal = random_pair(64, 64)
    with torch.inference_mode():
        for modality, other in (("rgb", (rgb, 1 - thermal)), ("thermal", (1 - rgb, thermal))):
            if (name, modality) not in PAIRS:
                continue
            model = efnet.create_model(name, 4, modality=modality).eval()
            assert torch.equal(model(rgb, thermal), model(*other))


@small
def test_both_images_matter(name: str) -> None:
    check_both_images_matter(name)


@pytest.mark.slow
@large
def test_both_images_matter_to_a_large_one(name: str) -> None:
    check_both_images_matter(name)


def check_both_images_matter(name: str) -> None:
    """Either image changes the logits, which are finite."""
    model = efnet.create_model(name, 4).eval()
    rgb, thermal = random_pair(*SIZES.get(name, (32, 64)))
    with torch.inference_mode():
        logits = model(rgb, thermal)
        assert logits.isfinite().all()
        assert not torch.equal(logits, model(1 - rgb, thermal))
        assert not torch.equal(logits, model(rgb, 1 - thermal))


@pytest.mark.parametrize("name", [name for name in efnet.list_models() if name not in BASELINES])
def test_classifiers_start_near_zero(name: str) -> None:
    """So the first cross-entropy is that of equal probabilities, ln K, and no network starts from a handicap.

    EFNet's own decoder has no such layer: its logits are distances. Networks of other papers start as their
    authors have it.
    """
    torch.manual_seed(0)
    model = efnet.create_model(name, 9, decoder="mlp").train()
    label = torch.randint(0, 9, (2, 64, 64))
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(*random_pair(64, 64, 2)), label)
    assert float(loss) == pytest.approx(math.log(9), rel=0.03)
    assert not model.get_parameter("decoder.classify.bias").any()
    weights = model.get_parameter("decoder.classify.weight").detach()
    assert float(weights.std()) == pytest.approx(0.01, rel=0.3)


@small
def test_the_same_bits_again_and_alone_as_in_a_batch(name: str) -> None:
    check_determinism(efnet.create_model(name, 4))


INERT = ("mlp_e2.fc2.bias",)
"""Biases of the last thermal blocks of TUNI's stages, before the next stage's batch normalisation."""


@small
def test_every_parameter_learns(name: str) -> None:
    check_gradients(efnet.create_model(name, 4), torch.float32, INERT)


@pytest.mark.slow
@large
def test_every_parameter_of_a_large_one_learns(name: str) -> None:
    check_gradients(efnet.create_model(name, 4), torch.float32, INERT, SIZES.get(name, (64, 96)))


@small
def test_round_trip(name: str, tmp_path: Path) -> None:
    for other, modality in PAIRS:
        if other == name:
            check_round_trip(efnet.create_model(name, 4, modality=modality), tmp_path / modality)


def check_program(model: SegmentationModel) -> None:
    """The program that all export formats come from answers as the network, at another size and batch."""
    program = trace(Deployed(model.eval(), "float", "logits")).module(check_guards=False)
    for pair in (random_pair(64, 96, 3), random_pair(50, 70)):
        with torch.inference_mode():
            torch.testing.assert_close(program(*pair), model(*pair), rtol=1e-3, atol=1e-3)


def test_one_exported_program_serves_every_size() -> None:
    check_program(efnet.create_model("mfnet", 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efnet_tiny", "segformer_b0", "cmx_b0", "tuni_t", *LARGE])
def test_one_exported_program_of_the_others(name: str) -> None:
    if name == "mmsmcnet":
        pytest.skip("takes one size alone")
    check_program(efnet.create_model(name, 3))


def test_the_refusal_names_the_least_size_that_is_taken() -> None:
    """Images below 64 pixels are padded to 64, those of 32 are not."""
    with pytest.raises(InputError, match="sgfnet needs images of 33x33 or more"):
        sketch("sgfnet")(*images(32, 96))
    assert sketch("sgfnet")(*images(33, 33)).shape == (1, 9, 33, 33)


@pytest.mark.parametrize(("name", "size"), [("mmsmcnet", (480, 632)), ("sgfnet", (32, 96))])
def test_images_that_a_network_cannot_take_are_refused(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"{name} (takes|needs) images of"):
        sketch(name)(*images(*size))
