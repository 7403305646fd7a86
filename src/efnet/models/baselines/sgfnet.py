"""SGFNet (Wang 2023, IEEE TCSVT, "Semantic-guided fusion network") as in its authors' code.

A ResNet-50 of the thermal image makes semantics that guide the fusions of the colour one, also a ResNet-50.
The decoder is one of large windows (Lawin, arXiv 2201.01615), with ReLUs in its attention as in their code.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.core.errors import InputError
from efnet.models.baselines.base import GREY, HeadedBaseline, conv, conv_norm, enlarge_by
from efnet.models.baselines.feanet import CellWeights, ChannelWeights
from efnet.models.baselines.pstnet import resize
from efnet.models.baselines.resnet import TwoResNets
from efnet.models.baselines.tuni import bins
from efnet.models.layers import Linear

ROWS = 16  # height bands of the row attention
WINDOW = 8
HEADS = {8: 64, 4: 16, 2: 4}  # by the ratio of context to window
LEAST_SIDE = 64  # at which the map of windows holds one
THERMAL_CLASSES = 9  # of the thermal semantics, whatever the data set has


def unit(in_channels: int, out_channels: int, kernel: int = 1) -> nn.Sequential:
    """Make a convolution, batch normalisation and ReLU."""
    return conv_norm(in_channels, out_channels, kernel, nn.ReLU(), ("conv", "norm"))


class ThermalSemantics(nn.Module):
    """From the thermal maps up to half size: the guide."""

    def __init__(self) -> None:
        super().__init__()
        for wide, narrow in ((2048, 1024), (1024, 512), (512, 256), (256, 64), (64, THERMAL_CLASSES)):
            self.add_module(f"conv{wide}", unit(wide, narrow, 3))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Five maps to (B, 64, H / 2, W / 2)."""
        features = maps[4]
        for wide, finer in zip((2048, 1024, 512, 256), maps[3::-1], strict=True):
            features = enlarge_by(self.get_submodule(f"conv{wide}")(features), 2, False) + finer
        return features


class CASA(nn.Module):
    """Channels weighted by their maxima, then cells by theirs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ca = ChannelWeights(channels)
        self.sa = CellWeights()

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        features = features * self.ca(features)
        weighted: Tensor = features * self.sa(features)
        return weighted


class ProductPair(nn.Module):
    """Both maps weighted by their product: the shallow levels' pair."""

    def __init__(self) -> None:
        super().__init__()
        self.sa = CellWeights()

    def forward(self, thermal: Tensor, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps (B, C, h, w) to two."""
        product = thermal * rgb
        weights = torch.sigmoid(product * self.sa(product))
        return thermal * weights, rgb * weights


class ChosenPair(nn.Module):
    """Both maps weighted per cell, with weights that sum to one: the deep levels' pair."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        both = 2 * channels
        steps = {
            "depthwise": conv(both, both, dilation=3, groups=both),
            "pointwise": nn.Conv2d(both, channels // 2, 1),
        }
        self.choose = nn.ModuleDict({"conv3": nn.ModuleDict(steps), "conv": nn.Conv2d(channels // 2, 2, 1)})

    def forward(self, thermal: Tensor, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps (B, C, h, w) to two."""
        inner = torch.cat([thermal, rgb], dim=1)
        for name in ("conv3.depthwise", "conv3.pointwise", "conv"):
            inner = self.choose.get_submodule(name)(inner)
        first, second = inner.softmax(dim=1).chunk(2, dim=1)
        return thermal * first, rgb * second


class Fusion(nn.Module):
    """Both maps and their pair, channels weighted, added to the colour map."""

    def __init__(self, level: int, channels: int) -> None:
        super().__init__()
        self.liner_s = nn.Conv2d(4 * channels, channels // 4, 1)
        self.liner_e = nn.Conv2d(channels // 4, 4 * channels, 1)
        self.conv = nn.Conv2d(4 * channels, channels, 1)
        self.fuseblock: nn.Module = ChosenPair(channels) if level > 3 else ProductPair()

    def forward(self, thermal: Tensor, rgb: Tensor) -> Tensor:
        """Two maps (B, C, h, w) to one."""
        four = torch.cat([thermal, rgb, *self.fuseblock(thermal, rgb)], dim=1)
        inner = F.relu(self.liner_s(four.mean((2, 3), keepdim=True)))
        fused: Tensor = self.conv(four * F.hardswish(self.liner_e(inner))) + rgb
        return fused


class GuidedAggregation(nn.Module):
    """A map and the guide, each weighted by the other."""

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.left1 = nn.Sequential(
            conv(channels, channels, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, width, 1, bias=False),
        )
        self.right1 = conv_norm(width, width, names=("0", "1"))
        self.conv = conv_norm(width, channels, 3, nn.ReLU(), ("0", "1"))

    def forward(self, features: Tensor, guide: Tensor) -> Tensor:
        """(B, C, h, w) and (B, 64, H / 2, W / 2) to (B, C, h, w)."""
        left = self.left1(features)
        right = resize(self.right1(guide), features.shape[2:])
        joined: Tensor = self.conv(left * torch.sigmoid(right) + right * torch.sigmoid(left))
        return joined


class RowAttention(nn.Module):
    """Rows of a map weighted by a finer map's 16 bands (HANet)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        width = in_channels // 4
        self.attention_first = nn.Sequential(
            nn.Conv1d(in_channels, width, 1, bias=False), nn.BatchNorm1d(width), nn.ReLU()
        )
        self.attention_second = nn.Sequential(
            nn.Conv1d(width, 2 * width, 3, padding=1), nn.BatchNorm1d(2 * width), nn.ReLU()
        )
        self.attention_third = nn.Sequential(nn.Conv1d(2 * width, out_channels, 3, padding=1), nn.Sigmoid())

    def forward(self, finer: Tensor, features: Tensor) -> Tensor:
        """(B, in_channels, h', w') and (B, out_channels, h, w) to the latter's shape."""
        bands = finer.mean(3) @ bins(finer.shape[2], ROWS, finer).t()
        weights = self.attention_third(self.attention_second(self.attention_first(bands)))
        rows = F.interpolate(weights, features.shape[2:3], mode="linear", align_corners=False)
        return features * rows[..., None]


class WindowAttention(nn.Module):
    """Windows read a context around them, pooled to their size, in many heads."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        for name in ("g", "theta", "phi"):
            self.add_module(name, unit(channels, channels // 2))
        self.conv_out = unit(channels // 2, channels)
        self.position_mixing = nn.ModuleList(nn.Linear(WINDOW**2, WINDOW**2) for _ in range(heads))

    def forward(self, windows: Tensor, context: Tensor) -> Tensor:
        """Both (B, C, 8, 8), to the same."""
        groups = context.reshape(context.shape[0], self.heads, -1, WINDOW**2)  # (B, heads, C / heads, 64)
        weight, bias = (
            torch.stack([layer.get_parameter(name) for layer in self.position_mixing])
            for name in ("weight", "bias")
        )
        mixed = groups + groups @ weight.transpose(1, 2) + bias[:, None]
        mixed = mixed.flatten(1, 2).reshape(context.shape)
        query, key, value = (
            self.get_submodule(name)(source).flatten(2).unflatten(1, (self.heads, -1))
            for name, source in (("theta", windows), ("phi", mixed), ("g", mixed))
        )
        weights = (query.transpose(2, 3) @ key / math.sqrt(query.shape[2])).softmax(dim=3)
        read = (value @ weights.transpose(2, 3)).flatten(1, 2)
        out: Tensor = self.conv_out(read.reshape(windows.shape[0], -1, WINDOW, WINDOW)) + windows
        return out


class Projection(nn.Module):
    """A linear layer per cell."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = Linear(in_channels, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, out_channels, h, w)."""
        projected: Tensor = self.proj(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return projected


class LawinDecoder(nn.Module):
    """Three levels joined at 1/8, attended by windows in three contexts, refined by a shallow map."""

    def __init__(self, num_classes: int, width: int = 768, channels: int = 512) -> None:
        super().__init__()
        for level, wide, narrow in ((4, 512, width), (3, 320, width), (2, 128, width), (1, 64, 48)):
            self.add_module(f"linear_c{level}", Projection(wide, narrow))
        self.linear_fuse = unit(3 * width, channels)
        for ratio, heads in HEADS.items():
            self.add_module(f"lawin_{ratio}", WindowAttention(channels, heads))
            self.add_module(f"ds_{ratio}", nn.ModuleDict({"norm": nn.LayerNorm(channels)}))
        self.short_path = unit(channels, channels)
        self.image_pool = nn.Sequential(nn.Identity(), unit(channels, channels))
        self.cat = unit(5 * channels, channels)
        self.low_level_fuse = unit(channels + 48, channels)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def attend(self, ratio: int, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same: its whole windows, put back and stretched over a remainder."""
        size, channels = features.shape[2:], features.shape[1]
        rows, columns = size[0] // WINDOW, size[1] // WINDOW
        # Contexts share a grid of pooled blocks: pooling it once is pooling each of them.
        reach = WINDOW * (ratio - 1) // 2
        around = F.pad(features, (reach, reach, reach, reach))
        pooled = 0.5 * (F.max_pool2d(around, ratio) + F.avg_pool2d(around, ratio))
        norm = self.get_submodule(f"ds_{ratio}.norm")
        pooled = norm(pooled.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        context = F.unfold(pooled, WINDOW, stride=WINDOW // ratio)
        windows = F.unfold(features, WINDOW, stride=WINDOW)
        context, windows = (
            patches.transpose(1, 2).reshape(-1, channels, WINDOW, WINDOW) for patches in (context, windows)
        )
        out: Tensor = self.get_submodule(f"lawin_{ratio}")(windows, context)
        grid = out.view(-1, rows, columns, channels, WINDOW, WINDOW).permute(0, 3, 1, 4, 2, 5)
        grid = grid.reshape(features.shape[0], channels, rows * WINDOW, columns * WINDOW)
        return F.interpolate(grid, size, mode="bilinear", align_corners=False)

    def forward(self, low: Tensor, maps: list[Tensor]) -> Tensor:
        """A map at 1/4 and three at 1/8, 1/16, 1/32 to logits (B, K, H / 4, W / 4)."""
        size = maps[0].shape[2:]
        levels = [
            F.interpolate(
                self.get_submodule(f"linear_c{level}")(features), size, mode="bilinear", align_corners=False
            )
            for level, features in ((4, maps[2]), (3, maps[1]), (2, maps[0]))
        ]
        fused = self.linear_fuse(torch.cat(levels, dim=1))
        mean = self.image_pool(fused.mean((2, 3), keepdim=True)).expand(-1, -1, *size)
        views = [self.attend(ratio, fused) for ratio in HEADS]
        joined = self.cat(torch.cat([self.short_path(fused), mean, *views], dim=1))
        joined = F.interpolate(joined, low.shape[2:], mode="bilinear", align_corners=False)
        detail = self.get_submodule("linear_c1")(low)
        logits: Tensor = self.conv_seg(self.low_level_fuse(torch.cat([joined, detail], dim=1)))
        return logits


class SGFNet(HeadedBaseline, TwoResNets):
    """Encoders, guided fusions, decoder."""

    architecture = "sgfnet"
    thermal_pixels = GREY
    unused = (r"binaryout\.|hanet\d\d\.pos_emb|SE_block[45]\.fuseblock\.sa\.",)
    auxiliary = ("edgeout.", "t_semout.conv64.")

    def _build(self) -> None:
        super()._build()
        widths = self.encoder_rgb.widths
        for level, width in enumerate(widths, 1):
            self.add_module(f"casa{level}", CASA(width))
            self.add_module(f"SE_block{level}", Fusion(level, width))
            if level < 5:
                self.add_module(f"haconv{level}", GuidedAggregation(width))
                self.add_module(f"hanet{level}{level + 1}", RowAttention(width, widths[level]))
        self.t_semout = ThermalSemantics()
        self.lowconv = nn.Conv2d(320, 64, 1)
        for index, (wide, narrow) in enumerate(((512, 128), (1024, 320), (2048, 512)), 1):
            self.add_module(f"compressconv{index}", nn.Conv2d(wide, narrow, 1))
        self.edgeout = conv(64, 2)
        self.lawin = LawinDecoder(self.config.num_classes)

    def score_all(self, rgb: Tensor, thermal: Tensor, auxiliary: bool) -> dict[str, Tensor]:
        """`logits` (B, K, H, W), `edge` (B, 2, H, W), `thermal_semantic` (B, 9, H, W)."""
        if min(rgb.shape[2:]) < LEAST_SIDE:
            least = LEAST_SIDE - self.stride + 1  # padded to LEAST_SIDE
            raise InputError(f"{self.architecture} needs images of {least}x{least} or more")
        part, heat = self.get_submodule, self.encoder_thermal(thermal[:, :1])
        guide = self.t_semout(heat)
        maps: list[Tensor] = []
        for level, features in enumerate(heat, 1):
            rgb = self.encoder_rgb.level(level - 1, rgb)
            rgb = part(f"SE_block{level}")(part(f"casa{level}")(features), rgb)
            if maps:
                guided = part(f"haconv{level - 1}")(maps[-1], guide)
                rgb = part(f"hanet{level - 1}{level}")(guided, rgb)
            maps.append(rgb)
        shrunk = F.interpolate(maps[0], maps[1].shape[2:], mode="bilinear", align_corners=False)
        low = self.lowconv(torch.cat([shrunk, maps[1]], dim=1))
        compressed = [part(f"compressconv{index}")(maps[index + 1]) for index in (1, 2, 3)]
        logits = enlarge_by(self.lawin(low, compressed), 4, False)
        if not auxiliary:
            return {"logits": logits}
        semantic = self.t_semout.get_submodule("conv64")(guide)
        return {
            "logits": logits,
            "edge": enlarge_by(self.edgeout(low), 4, False),
            "thermal_semantic": enlarge_by(semantic, 2, False),
        }
