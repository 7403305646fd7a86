"""TUNI (Guo, arXiv 2509.10005, and its journal version) as in its authors' code.

One encoder whose blocks extract from both images and fuse them at once. Maps are (B, h, w, C) within a stage:
C are the channels of the RGB branch, C / 2 those of the thermal one. The two versions have the same names and
shapes and differ in the order in which a block concatenates its three modules, and in the decoder's names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.core.precision import at_least_float32
from efnet.models.baselines.base import GREY, Baseline, conv
from efnet.models.baselines.segformer import SegFormerDecoder, decoder_renames
from efnet.models.layers import DropPath, Linear, layer_norm
from efnet.ops.linear import attention

REACH = 7  # side of the depthwise convolutions and of the pooled queries
LAYER_SCALE = 1e-6
HEADS = (1, 2, 4, 8)  # of the global module, which stage 1 has none of
MLP_RATIOS = (8, 8, 4, 4)  # hidden width of the feed-forward parts over the width


class DepthwiseConv(nn.Conv2d):
    """Each channel sees the cells around it."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__(width, width, kernel, padding=kernel // 2, groups=width)

    def forward(self, input: Tensor) -> Tensor:
        """(B, h, w, C) to the same."""
        return super().forward(input.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class RGBTLocalModule(nn.Module):
    """RGB-T local module: the consistent and the distinct part of both modalities, weighted by channel.

    The weight comes from the cosine similarity, over all cells, of each channel to the mean channel.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.linear1 = Linear(width, half)
        self.linear2 = Linear(half, half)
        self.conv1 = DepthwiseConv(half, REACH)
        self.conv2 = DepthwiseConv(half, REACH)
        nn.init.xavier_normal_(self.conv1.weight)
        nn.init.xavier_normal_(self.conv2.weight)
        self.fc_channel = nn.Sequential(
            nn.Linear(width, width // 8, bias=False), nn.GELU(), nn.Linear(width // 8, width, bias=False)
        )
        self.linear3 = Linear(width, half)

    def forward(self, cells: Tensor, thermal: Tensor) -> Tensor:
        """(B, h, w, C) and (B, h, w, C / 2) to (B, h, w, C / 2)."""
        rgb, thermal = self.linear1(cells), self.linear2(thermal)
        both = torch.cat([self.conv1(rgb * thermal), self.conv2((rgb - thermal).abs())], dim=3)
        weights = torch.sigmoid(self.fc_channel(similarity(both).to(both.dtype)))
        fused: Tensor = self.linear3(both * weights[:, None, None])
        return fused


def similarity(cells: Tensor) -> Tensor:
    """Cosine similarity (B, C) over all cells of each channel of (B, h, w, C) to the mean channel."""
    values = at_least_float32(cells).flatten(1, 2)
    mean = values.mean(2, keepdim=True)
    norms = mean.norm(dim=1) * values.norm(dim=1)
    cosine: Tensor = (mean * values).sum(1) / (norms + 1e-6)
    return cosine


class FusedAttention(nn.Module):
    """The three modules side by side, concatenated and projected into both branches.

    Stage 1 (`heads` 0) has no RGB-T global module; with `last` the thermal branch ends here. `order` is that
    of the concatenation of L (RGB-RGB local), R (RGB-T local) and G (RGB-T global).
    """

    def __init__(self, width: int, heads: int, last: bool, order: str) -> None:
        super().__init__()
        self.heads = heads
        self.order = order if heads else "LR"
        half = width // 2
        self.norm = layer_norm(width)
        self.norm_e = layer_norm(half)
        self.local_rr1 = Linear(width, width)
        self.local_rr2 = Linear(width, width)
        self.local_rr3 = Linear(width, width)
        self.conv = DepthwiseConv(width, REACH)
        self.local_rx = RGBTLocalModule(width)
        if heads:
            self.kv_rx = Linear(width, width)
            self.q_rx = Linear(width + half, half)
        joined = width + half * (len(self.order) - 1)
        self.proj = Linear(joined, width)
        self.proj_e = None if last else Linear(joined, half)

    def forward(self, cells: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, h, w, C) and (B, h, w, C / 2) to residuals of the same shapes; None where nothing reads one."""
        cells, thermal = self.norm(cells), self.norm_e(thermal)
        parts = {
            "L": self.local_rr1(cells) * self.local_rr3(self.conv(self.local_rr2(cells))),
            "R": self.local_rx(cells, thermal),
        }
        if self.heads:
            parts["G"] = self._gather(cells, thermal)
        joined = torch.cat([parts[module] for module in self.order], dim=3)
        return self.proj(joined), None if self.proj_e is None else self.proj_e(joined)

    def _gather(self, cells: Tensor, thermal: Tensor) -> Tensor:
        """RGB-T global module: queries of both maps, pooled to 7 x 7, read all RGB cells; then enlarged."""
        pooled = pool_cells(torch.cat([cells, thermal], dim=3), REACH).flatten(1, 2)
        q = self.q_rx(pooled).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, 49, d)
        k, v = self.kv_rx(cells.flatten(1, 2)).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        gathered = attention(q, k, v).permute(0, 1, 3, 2).flatten(1, 2)  # (B, C / 2, 49)
        grid = gathered.reshape(*gathered.shape[:2], REACH, REACH)
        enlarged = F.interpolate(grid, cells.shape[1:3], mode="bilinear", align_corners=False)
        return enlarged.permute(0, 2, 3, 1)


def pool_cells(cells: Tensor, side: int) -> Tensor:
    """Adaptive average pooling, (B, h, w, C) to (B, side, side, C), as products that export for any size."""
    rows, columns = (bins(length, side, cells) for length in cells.shape[1:3])
    by_row = torch.einsum("ih,bhwc->biwc", rows, cells)
    return torch.einsum("jw,biwc->bijc", columns, by_row)


def bins(length: int, count: int, like: Tensor) -> Tensor:
    """Weights (count, length) that average `length` cells into `count` bins, overlapping where they must."""
    first = torch.arange(count, device=like.device)[:, None]
    cells = torch.arange(length, device=like.device)[None, :]
    # Bin i spans floor(i * length / count) up to, without it, ceil((i + 1) * length / count).
    inside = ((cells + 1) * count > first * length) & (cells * count < (first + 1) * length)
    weights = inside.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)


@dataclass(frozen=True)
class TUNIConfig:
    """One size: a value per stage. The thermal branch has half of each width."""

    depths: tuple[int, int, int, int]  # blocks
    widths: tuple[int, int, int, int]  # channels of the RGB branch
    drop_path: float = 0.0  # of the last block; rises linearly from 0 at the first
    order: str = "LGR"  # of the concatenation in a block; version 1 has "LRG"


class FeedForward(nn.Module):
    """Norm and two linear layers with a depthwise convolution, itself a residual, in their middle."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.norm = layer_norm(width)
        self.fc1 = Linear(width, ratio * width)
        self.pos = DepthwiseConv(ratio * width, 3)
        self.fc2 = Linear(ratio * width, width)

    def forward(self, cells: Tensor) -> Tensor:
        """(B, h, w, C) to the same."""
        hidden = self.fc1(self.norm(cells))
        raised: Tensor = self.fc2(F.gelu(hidden + self.pos(hidden)))
        return raised


class TUNIBlock(nn.Module):
    """Fused attention and feed-forward parts, as scaled residuals; `last` ends the thermal branch."""

    def __init__(self, width: int, stage: int, drop_path: float, order: str, last: bool) -> None:
        super().__init__()
        self.attn = FusedAttention(width, HEADS[stage] if stage else 0, last, order)
        self.drop_path = DropPath(drop_path)
        self.mlp = FeedForward(width, MLP_RATIOS[stage])
        self.mlp_e2 = None if last else FeedForward(width // 2, MLP_RATIOS[stage])
        for index in (1, 2):
            scale = nn.Parameter(torch.full((width,), LAYER_SCALE))
            self.register_parameter(f"layer_scale_{index}", scale)
            if not last:
                scale = nn.Parameter(torch.full((width // 2,), LAYER_SCALE))
                self.register_parameter(f"layer_scale_{index}_e", scale)

    def forward(self, cells: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor]:
        """(B, h, w, C) and (B, h, w, C / 2) to the same."""
        read, read_e = self.attn(cells, thermal)
        cells = cells + self._scaled("layer_scale_1", read)
        cells = cells + self._scaled("layer_scale_2", self.mlp(cells))
        if self.mlp_e2 is not None:
            thermal = thermal + self._scaled("layer_scale_1_e", read_e)
            thermal = thermal + self._scaled("layer_scale_2_e", self.mlp_e2(thermal))
        return cells, thermal

    def _scaled(self, scale: str, residual: Tensor) -> Tensor:
        scaled = self.get_parameter(scale) * residual
        dropped: Tensor = self.drop_path(scaled.flatten(2)).view_as(scaled)
        return dropped


def stem(channels: int, width: int) -> nn.Sequential:
    """Make two convolutions of stride 2, over half of the width."""
    return nn.Sequential(
        conv(channels, width // 2, stride=2),
        nn.BatchNorm2d(width // 2),
        nn.GELU(),
        conv(width // 2, width, stride=2),
        nn.BatchNorm2d(width),
    )


class TUNIEncoder(nn.Module):
    """Four stages of both branches, at strides 4, 8, 16 and 32."""

    def __init__(self, config: TUNIConfig) -> None:
        super().__init__()
        self.downsample_layers = _steps(3, config.widths)
        self.downsample_layers_e = _steps(1, [width // 2 for width in config.widths])
        blocks, total = 0, sum(config.depths)
        self.stages = nn.ModuleList()
        for stage, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
            indices = range(blocks, blocks + depth)
            self.stages.append(
                nn.ModuleList(
                    TUNIBlock(
                        *(width, stage, config.drop_path * index / (total - 1), config.order),
                        last=index == total - 1,
                    )
                    for index in indices
                )
            )
            blocks += depth

    def forward(self, rgb: Tensor, thermal: Tensor) -> list[Tensor]:
        """(B, 3, H, W) and (B, 1, H, W) to the RGB branch's maps (B, C, h, w) of all stages."""
        maps = []
        steps = zip(self.downsample_layers, self.downsample_layers_e, self.stages, strict=True)
        for shrink, shrink_e, blocks in steps:
            cells, cells_e = shrink(rgb).permute(0, 2, 3, 1), shrink_e(thermal).permute(0, 2, 3, 1)
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                cells, cells_e = block(cells, cells_e)
            rgb, thermal = cells.permute(0, 3, 1, 2), cells_e.permute(0, 3, 1, 2)
            maps.append(rgb)
        return maps


def _steps(channels: int, widths: Sequence[int]) -> nn.ModuleList:
    """Make the stem of a branch, and the steps between its stages."""
    steps = nn.ModuleList([stem(channels, widths[0])])
    for before, after in pairwise(widths):
        steps.append(nn.Sequential(nn.BatchNorm2d(before), conv(before, after, stride=2)))
    return steps


class TUNI(Baseline):
    """The encoder, and SegFormer's decoder on the RGB branch, into which both are fused.

    The second decoder of the authors' training, on the thermal branch, is left out: its loss is not public.
    """

    encoder_config: ClassVar[TUNIConfig]
    thermal_pixels = GREY
    unused = (r"MLP2\.", r"decoder\.MLP2\.", r"(decoder\.)?linear_pred2\.")
    renames = (
        (r"encoder\.enc\.", "encoder."),
        *(
            (rf"decoder\.MLP1\.linear{stage}\.proj\.", f"decoder.linears.{stage - 1}.")
            for stage in range(1, 5)
        ),
        (r"decoder\.MLP1\.linear_fuse\.", "decoder.fuse."),
        (r"decoder\.linear_pred1\.", "decoder.classify."),
    )

    def _build(self) -> None:
        self.encoder = TUNIEncoder(self.encoder_config)
        self.decoder = SegFormerDecoder(self.encoder_config.widths, self.config.num_classes, 256, bias=True)

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H/4, W/4)."""
        assert thermal is not None
        logits: Tensor = self.decoder(self.encoder(rgb, thermal[:, :1]))
        return logits


class TUNIT(TUNI, architecture="tuni_t", encoder_config=TUNIConfig((2, 2, 4, 2), (32, 64, 128, 256))):
    """TUNI-T of version 2."""


class TUNIS(TUNI, architecture="tuni_s", encoder_config=TUNIConfig((2, 2, 4, 2), (48, 96, 192, 384))):
    """TUNI-S of version 2."""


class TUNIB(TUNI, architecture="tuni_b", encoder_config=TUNIConfig((3, 3, 12, 2), (64, 128, 256, 512), 0.1)):
    """TUNI-B of version 2."""


class TUNIS1(
    TUNI,
    architecture="tuni_v1_s",
    encoder_config=TUNIConfig((2, 2, 4, 2), (48, 96, 192, 384), 0.1, "LRG"),
    renames=((r"encoder\.enc\.", "encoder."), *decoder_renames("0", "1", "decoder")),
):
    """The one network of version 1."""
