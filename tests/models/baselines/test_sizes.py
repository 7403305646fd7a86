"""Networks of other papers: padding, and names, shapes and sizes beside those of the authors' code."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import efnet
from efnet.models.baselines import BASELINES
from efnet.models.baselines.sfafma import SFAFMA
from efnet.models.complexity import measure
from efnet.models.config import BaselineConfig


@pytest.mark.parametrize(("name", "stride"), [("mfnet", 16), ("pstnet", 8)])
@pytest.mark.parametrize("size", [(64, 96), (50, 70)])
def test_padding_changes_nothing_but_the_border(name: str, stride: int, size: tuple[int, int]) -> None:
    """Cropping is from the lower right: the upper left stays in place."""
    model = efnet.create_model(name, 4).eval()
    rgb, thermal = torch.rand(1, 3, *size), torch.rand(1, 1, *size)
    whole = [-(-side // stride) * stride for side in size]
    pads = (0, whole[1] - size[1], 0, whole[0] - size[0])
    by_hand = [torch.nn.functional.pad(images, pads, mode="replicate") for images in (rgb, thermal)]
    with torch.inference_mode():
        expected = model(*by_hand)[:, :, : size[0], : size[1]]
        torch.testing.assert_close(model(rgb, thermal), expected)


@pytest.mark.parametrize(
    ("name", "parameters", "operations"),
    [
        ("mfnet", 736_275, 8.296),
        ("rtfnet50", 185_238_501, 198.57),
        ("rtfnet152", 254_510_053, 289.48),
        ("feanet", 255_207_130, 289.49),
        ("lasnet", 93_575_604, 234.33),
        ("pstnet", 19_868_788, 129.20),
        ("segformer_b0", 3_716_457, 9.35),
        ("segformer_b2", 27_353_545, 71.76),
        ("cmx_b0", 11_193_041, 15.18),
        ("cmx_b2", 66_565_521, 77.90),
        ("cmx_b4", 139_858_321, 157.63),
        ("cmnext_b2", 58_686_017, 73.92),
        ("cmnext_b4", 116_560_396, 143.34),
        ("tuni_t", 4_993_209, 10.67),
        ("tuni_s", 10_635_761, 16.99),
        ("tuni_v1_s", 10_635_761, 16.99),
        ("tuni_b", 29_570_441, 42.37),
    ],
)
def test_sizes_are_those_of_the_authors_code(name: str, parameters: int, operations: float) -> None:
    """Operations without auxiliary outputs (LASNet's are 0.5), and with TUNI's pooling (0.02 to 0.07)."""
    counted = measure(name, 9, (480, 640), modality=BASELINES[name].modalities[0])
    assert counted.parameters == parameters
    assert (counted.layers + counted.attention) / 1e9 == pytest.approx(operations, rel=2.5e-3)


@pytest.mark.parametrize(
    ("name", "classes", "parameters", "registered", "operations"),
    [
        # Registered and unused: `se` of both aggregations.
        ("eaefnet", 9, 147_203_498, 147_240_842, 189.70),
        ("eaefnet50", 9, 77_931_946, 77_969_290, 98.79),
        ("eaefnet_pst900", 5, 126_220_517, 126_220_517, 182.93),
        ("gmnet", 9, 153_014_338, 153_472_410, 129.04),
        ("sgfnet", 9, 125_248_233, 125_256_229, 142.62),
        ("egfnet", 9, 62_776_692, 62_817_972, 199.92),
        ("mdrnet", 9, 64_602_944, 210_866_368, 223.87),
        ("mmsmcnet", 9, 95_602_473, 99_298_337, 203.93),
        ("sfafma", 9, 86_888_745, 232_083_113, 72.24),
        ("rsfnet", 9, 45_015_877, 45_015_877, 65.19),
    ],
)
def test_sizes_without_what_the_authors_create_and_do_not_use(
    name: str, classes: int, parameters: int, registered: int, operations: float
) -> None:
    """Auxiliary outputs are not computed: of GMNet these are 19.8 G, of the PST900 network 4.5 G."""
    counted = measure(name, classes, (480, 640))
    assert counted.parameters == parameters <= registered
    assert (counted.layers + counted.attention) / 1e9 == pytest.approx(operations, rel=2e-3)


def count(shapes: dict[str, list[int]]) -> int:
    """Parameters among the entries of a state dict."""
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    return sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith(buffers))


@pytest.mark.parametrize("name", BASELINES)
def test_official_names_are_ours_or_listed_as_unused(name: str, samples: Path) -> None:
    """Every name and shape of the authors' state dict; ours has no other ones."""
    recorded, classes = RECORDED.get(name, (f"{name}/shapes.json", 9))
    path = samples / "rivals" / recorded
    if not path.is_file():
        pytest.skip(f"no recorded names in {path}")
    shapes = json.loads(path.read_text())
    network = BASELINES[name]
    with torch.device("meta"):
        model = efnet.create_model(name, classes, modality=network.modalities[0])
    theirs = {ours: tuple(shapes[key]) for key in shapes if (ours := network.official_name(key)) is not None}
    own = {key: tuple(value.shape) for key, value in model.state_dict().items() if key not in ("mean", "std")}
    assert theirs == own
    unused = {key: shapes[key] for key in shapes if network.official_name(key) is None}
    parameters = sum(value.numel() for value in model.parameters())
    assert parameters + count(unused) == count(shapes)


def test_sfafmas_printed_size_is_of_another_depth() -> None:
    """156 M of table I are the used parameters with ResNet-152 (156,160,297), not with ResNet-50."""
    with torch.device("meta"):
        deep = type("Deep", (SFAFMA,), {"depth": 152})(BaselineConfig(9))
    assert sum(value.numel() for value in deep.parameters()) == 156_160_297


RECORDED = {
    "rtfnet50": ("rtfnet/shapes_50.json", 9),
    "rtfnet152": ("rtfnet/shapes_152.json", 9),
    "eaefnet": ("eaefnet/shapes_152.json", 9),
    "eaefnet50": ("eaefnet/shapes_50.json", 9),
    "eaefnet_pst900": ("eaefnet/shapes_pst900_152.json", 5),
    "pstnet": ("pstnet/shapes.json", 5),
    **{f"tuni_{size}": (f"tuni_v2_{size}/shapes.json", 9) for size in "tsb"},
}
