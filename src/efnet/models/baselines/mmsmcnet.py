"""MMSMCNet (Zhou 2023, IEEE TCSVT, "Modal memory sharing and morphological complementary") as in its code.

Two MiT-B3, fused at four levels through attention along rows and columns, and a decoder of boundaries and
salient parts. Its layers run along whole rows and columns, so **the network takes images of 480x640 alone**.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from efnet.core.errors import InputError
from efnet.models.baselines.base import GREY, HeadedBaseline, conv, conv_norm, enlarge_by
from efnet.models.baselines.segformer import MIT, MiT, load_mit, official_mit

WIDTH = 64
SIZE = (480, 640)


def leaky(in_channels: int, out_channels: int = WIDTH, dilation: int = 1) -> nn.Sequential:
    """Make a 3x3 convolution, batch normalisation and leaky ReLU."""
    return conv_norm(in_channels, out_channels, 3, nn.LeakyReLU(0.01), ("conv", "bnop"), dilation=dilation)


def pointed(in_channels: int, stride: int = 1) -> nn.Sequential:
    """Make a 1x1 and a 3x3 convolution, batch normalisation and leaky ReLU."""
    layers = nn.Conv2d(in_channels, WIDTH, 1), conv(WIDTH, WIDTH, stride=stride)
    return nn.Sequential(*layers, nn.BatchNorm2d(WIDTH), nn.LeakyReLU(0.01))


class SplicingAttention(nn.Module):
    """Linear layers along rows and columns of a map of a fixed size (H, W).

    The first of two paths goes along rows, then along consecutive runs of H values of the flattened result,
    which lie across rows, columns and channels: probably a slip, but what the weights expect.
    """

    def __init__(self, in_channels: int, size: tuple[int, int], stride: int = 1) -> None:
        super().__init__()
        self.proj = conv(in_channels, WIDTH, stride=stride)
        nn.init.normal_(self.proj.weight, std=math.sqrt(2 / (9 * WIDTH)))
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)
        for path in (1, 2):
            for axis, length in (("r", size[1]), ("c", size[0])):
                self.add_module(f"norm{path}_{axis}", nn.LayerNorm(length))
                self.add_module(f"linear{path}_{axis}", nn.Linear(length, length, bias=False))
        self.conv_cat = leaky(3 * WIDTH)

    def _along(self, step: str, features: Tensor) -> Tensor:
        """Normalise the last axis and mix its values."""
        mixed: Tensor = self.get_submodule(f"linear{step}")(self.get_submodule(f"norm{step}")(features))
        return mixed

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, 64, H, W)."""
        features = self.proj(features)
        height, width = features.shape[2:]
        runs = self._along("1_r", features).reshape(features.shape[0], -1, height)
        first = self._along("1_c", runs).reshape(-1, WIDTH, width, height).transpose(2, 3)
        second = self._along("2_r", self._along("2_c", features.transpose(2, 3)).transpose(2, 3))
        joined: Tensor = self.conv_cat(torch.cat([first + second, first, second], dim=1))
        return joined


class Fusion(nn.Module):
    """Sum and product of a level's maps, each attended and gated, with the finer level's result."""

    def __init__(self, level: int, channels: int) -> None:
        super().__init__()
        self.level = level
        stride = 1 if level == 4 else 2
        factor = 2 ** min(level + 2, 5)
        size = (SIZE[0] // factor, SIZE[1] // factor)
        self.reach = "conv1" if level == 4 else "conv3"
        for name, kind in (("rgb", "add"), ("t", "mul")):
            attention = SplicingAttention(channels, size, stride)
            self.add_module(f"pe_mha_{name}", nn.ModuleDict({"patchembed_add": attention}))
            self.add_module(f"{self.reach}_{kind}", conv(channels, WIDTH, stride=stride))
            self.add_module(f"conv1_{name}1", nn.Conv2d(WIDTH, WIDTH // 4, 1))
            self.add_module(f"conv1_{name}2", nn.Conv2d(WIDTH // 4, WIDTH, 1))
        self.cbl_1 = pointed(WIDTH)
        self.cbl_2 = pointed(WIDTH)
        if level > 1:
            self.add_module("cbl_3_4" if level == 4 else "cbl_3", pointed(WIDTH, stride))
        self.add_module("cbl_4_1" if level == 1 else "cbl_4", pointed(WIDTH * (2 if level == 1 else 3)))

    def forward(self, rgb: Tensor, thermal: Tensor, finer: Tensor | None = None) -> Tensor:
        """Two maps (B, C, h, w), and the finer level's result, to (B, 64, h / stride, w / stride)."""
        part, views = self.get_submodule, []
        for name, kind, project, mixed in (
            ("rgb", "add", self.cbl_1, rgb + thermal),
            ("t", "mul", self.cbl_2, rgb * thermal),
        ):
            reduced = part(f"{self.reach}_{kind}")(mixed)
            attended = part(f"pe_mha_{name}.patchembed_add")(mixed) + reduced
            gate = part(f"conv1_{name}2")(part(f"conv1_{name}1")(reduced))
            views.append(project(attended * gate))
        if finer is None:
            last = "cbl_4_1"
        else:
            last = "cbl_4"
            views.append(part("cbl_3_4" if self.level == 4 else "cbl_3")(finer))
        fused: Tensor = part(last)(torch.cat(views, dim=1))
        return fused


class BoundaryPart(nn.Module):
    """The two fine results and the step before, at several dilations."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.factors = ((2, 1, 4), (4, 2, 2), (8, 4, 2))[index - 1]
        for name in ("cbl1", "cbl2", "cbl3", "cbl4"):
            self.add_module(name, leaky(WIDTH))
        self.cbl5 = nn.Sequential(nn.Conv2d(2 * WIDTH, WIDTH, 1), leaky(WIDTH))
        for rate in (1, 3, 6, 12):
            self.add_module(f"cbl_d{rate}", leaky(WIDTH, dilation=rate))
        self.cbl6 = leaky(4 * WIDTH)

    def forward(self, first: Tensor, second: Tensor, before: Tensor) -> Tensor:
        """Three maps of 64 channels to (B, 64, h, w)."""
        part = self.get_submodule
        second = part("cbl1")(enlarge_by(second, self.factors[0]))
        first = part("cbl2")(enlarge_by(first, self.factors[1]))
        before = part("cbl3")(enlarge_by(before, self.factors[2]))
        features = part("cbl4")(first * second) + self.cbl5(torch.cat([first, before], dim=1))
        views = [part(f"cbl_d{rate}")(features) for rate in (1, 3, 6, 12)]
        seen: Tensor = self.cbl6(torch.cat(views, dim=1))
        return seen


class SaliencyPart(nn.Module):
    """The two deep results, weighted by their strongest channels, and the step before, attended."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.factors = ((4, 4), (8, 2), (16, 2))[index - 1]
        for number in (1, 2, 3, 4):
            self.add_module(f"cbl{number}", leaky(WIDTH))
        factor = 2 ** (4 - index)
        self.TdSAtt = SplicingAttention(2 * WIDTH, (SIZE[0] // factor, SIZE[1] // factor))

    def forward(self, third: Tensor, fourth: Tensor, before: Tensor) -> Tensor:
        """Three maps of 64 channels to (B, 64, h, w)."""
        part = self.get_submodule
        before = part("cbl1")(enlarge_by(before, self.factors[1]))
        third = part("cbl2")(enlarge_by(third, self.factors[0]))
        fourth = enlarge_by(fourth, self.factors[0])
        # Of each two neighbouring channels the larger one: 32 of either map.
        both = torch.cat([third, fourth], dim=1)
        peaks = torch.maximum(both[:, ::2], both[:, 1::2])
        weighted = part("cbl3")(fourth + third) * peaks
        seen: Tensor = part("cbl4")(self.TdSAtt(torch.cat([before, weighted], dim=1)))
        return seen


class JoinedPart(nn.Module):
    """Boundary and saliency, weighted by the boundary, and the step before."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.factor = 4 if index == 1 else 2
        self.cbl1 = leaky(WIDTH)
        self.cbl2 = leaky(WIDTH)
        self.cbl3 = leaky(3 * WIDTH)

    def forward(self, boundary: Tensor, saliency: Tensor, before: Tensor) -> Tensor:
        """Three maps of 64 channels to (B, 64, h, w)."""
        before = self.cbl2(enlarge_by(before, self.factor))
        saliency = self.cbl1(saliency)
        weighted = (1 - torch.sigmoid(boundary)) * saliency + boundary
        joined: Tensor = self.cbl3(torch.cat([saliency, before, weighted], dim=1))
        return joined


class MMSMCNet(HeadedBaseline):
    """Encoders, four fusions, three steps of the decoder."""

    architecture = "mmsmcnet"
    thermal_pixels = GREY
    input_size = fixed_size = SIZE
    load_encoder = load_mit
    auxiliary = tuple(f"cbl_{kind}{index}." for kind in "bS" for index in (1, 2, 3))
    unused = (
        r"fusion\d\.pe_mha_(rgb|t)\.(laynorm_[rc]|patchembed_mul)\.",
        r"fusion1\.(cbl_3|cbl_3_4|cbl_4|conv1_add|conv1_mul)\.",
        r"fusion[23]\.(cbl_3_4|cbl_4_1|conv1_add|conv1_mul)\.",
        r"fusion4\.(cbl_3|cbl_4_1|conv3_add|conv3_mul)\.",
    )

    @classmethod
    def official_name(cls, name: str) -> str | None:
        """Return our name of a tensor in the authors' file; None if the output does not depend on it."""
        side, _, rest = name.partition(".")
        ours = official_mit(rest) if side in ("rgb", "t") else None
        return super().official_name(name) if ours is None else f"{side}.{ours}"

    def _build(self) -> None:
        self.rgb = MiT(MIT["b3"])
        self.t = MiT(MIT["b3"])
        for level, channels in enumerate(MIT["b3"].widths, 1):
            self.add_module(f"fusion{level}", Fusion(level, channels))
        for index in (1, 2, 3):
            self.add_module(f"bp{index}", BoundaryPart(index))
            self.add_module(f"sp{index}", SaliencyPart(index))
            self.add_module(f"ep{index}", JoinedPart(index))
            self.add_module(f"cbl_b{index}", leaky(WIDTH, 2))
            self.add_module(f"cbl_S{index}", leaky(WIDTH, 2))
        self.cbl_out = nn.Sequential(
            *(conv(WIDTH, WIDTH), nn.BatchNorm2d(WIDTH), nn.LeakyReLU(0.01)),
            conv(WIDTH, self.config.num_classes),
        )

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images (B, 3, 480, 640) to logits (B, K, 480, 640)."""
        assert rgb is not None
        assert thermal is not None
        if tuple(rgb.shape[2:]) != SIZE:
            raise InputError(
                f"{self.architecture} takes images of {SIZE[0]}x{SIZE[1]} alone, got {rgb.shape[2]}x"
                f"{rgb.shape[3]}: its layers run along whole rows; give `size` {SIZE[0]}x{SIZE[1]}"
            )
        return self.score_padded(rgb, thermal)

    def score_all(self, rgb: Tensor, thermal: Tensor, auxiliary: bool) -> dict[str, Tensor]:
        """`logits` (B, K, H, W), `boundary1` to `boundary3` and `saliency1` to `saliency3` (B, 2, H, W)."""
        part, fused, finer = self.get_submodule, [], None
        for level, (first, second) in enumerate(zip(self.rgb(rgb), self.t(thermal), strict=True), 1):
            finer = part(f"fusion{level}")(first, second, finer)
            fused.append(finer)
        before, others = fused[3], {}
        for index in (1, 2, 3):
            boundary = part(f"bp{index}")(fused[0], fused[1], before)
            saliency = part(f"sp{index}")(fused[2], fused[3], before)
            before = part(f"ep{index}")(boundary, saliency, before)
            if auxiliary:
                factor = 2 ** (4 - index)
                others[f"boundary{index}"] = enlarge_by(part(f"cbl_b{index}")(boundary), factor)
                others[f"saliency{index}"] = enlarge_by(part(f"cbl_S{index}")(saliency), factor)
        return {"logits": enlarge_by(self.cbl_out(before), 2), **others}
