"""TUNI (Guo 2025, arXiv 2509.10005): one encoder whose blocks extract from both images and fuse them at once.

What the authors tell in the abstract and beside their code, and what is DFormer's or ours, stands in
`docs/rivals.md`; the modules of a block are in `efnet.models.rivals.tuni_modules`. Depths are DFormer-B's for
`tuni_b`; the decoder is SegFormer's, of a width that meets the published counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from efnet.classes import ClassSet
from efnet.models.layers import Linear, init_weights, layer_norm
from efnet.models.rivals.base import Rival, RivalConfig
from efnet.models.rivals.segformer_decoder import SegFormerDecoder
from efnet.models.rivals.tuni_modules import RGBLocalModule, RGBTGlobalModule, RGBTLocalModule


@dataclass(frozen=True)
class TUNIConfig:
    """One size: a value per stage. The thermal branch has half of each width."""

    depths: tuple[int, int, int, int]
    """Blocks."""
    widths: tuple[int, int, int, int]
    """Channels of the RGB branch."""
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    """Of the global module."""
    mlp_ratios: tuple[int, int, int, int] = (8, 8, 4, 4)
    """Hidden width of the feed-forward part over the width."""


class TUNIBlock(nn.Module):
    """Three modules side by side, concatenated; each branch goes on with a projection of all of them.

    Args:
        width: channels C of the RGB branch.
        thermal_width: channels C_T of the thermal one; 0: there is none, and no RGB-T local module.
        heads: of the global module.
        ratio: of the feed-forward parts.
        last: whether the thermal branch ends here: nobody reads it after the last block.
    """

    def __init__(self, width: int, thermal_width: int, heads: int, ratio: int, last: bool) -> None:
        super().__init__()
        branches = [width, thermal_width] if thermal_width else [width]
        after = branches[:1] if last else branches
        half = width // 2
        joined = width + half + (width if thermal_width else 0)
        self.norms = nn.ModuleList(layer_norm(channels) for channels in branches)
        self.rgb_local = RGBLocalModule(width)
        self.rgbt_local = RGBTLocalModule(width, thermal_width) if thermal_width else None
        self.rgbt_global = RGBTGlobalModule(width, sum(branches), half, heads)
        self.projects = nn.ModuleList(Linear(joined, channels) for channels in after)
        self.mlps = nn.ModuleList(FeedForward(channels, ratio) for channels in after)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """One map (B, h, w, C), or two of them, the second (B, h, w, C_T), to those that go on."""
        normed = [norm(cells) for norm, cells in zip(self.norms, branches, strict=True)]
        parts = [self.rgb_local(normed[0]), self.rgbt_global(*normed)]
        if self.rgbt_local is not None:
            parts.append(self.rgbt_local(*normed))
        joined = torch.cat(parts, dim=3)
        fused = [cells + project(joined) for cells, project in zip(branches, self.projects, strict=False)]
        return [cells + mlp(cells) for cells, mlp in zip(fused, self.mlps, strict=True)]


class FeedForward(nn.Sequential):
    """Norm and two linear layers, cell by cell."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__(
            layer_norm(width), Linear(width, ratio * width), nn.GELU(), Linear(ratio * width, width)
        )


class Downsampling(nn.Sequential):
    """3x3 convolutions of stride 2, each normalised; between two of them a GELU."""

    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            if layers:
                layers.append(nn.GELU())
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after)]
        super().__init__(*layers)


class TUNIStage(nn.Module):
    """Both branches at a half of the size (the first stage: a quarter), then blocks.

    Args:
        config: depths and widths.
        stage: 0 to 3.
        channels: of the branches that come in.
    """

    def __init__(self, config: TUNIConfig, stage: int, channels: Sequence[int]) -> None:
        super().__init__()
        width, depth = config.widths[stage], config.depths[stage]
        thermal_width = width // 2 if len(channels) > 1 else 0
        self.widths = (width, thermal_width)[: len(channels)]
        # The stem takes two steps, over half of its width.
        between = [(after // 2,) if stage == 0 else () for after in self.widths]
        self.downsample = nn.ModuleList(
            Downsampling(before, *middle, after)
            for before, middle, after in zip(channels, between, self.widths, strict=True)
        )
        self.blocks = nn.ModuleList(
            TUNIBlock(
                width,
                thermal_width,
                config.heads[stage],
                config.mlp_ratios[stage],
                last=stage == len(config.depths) - 1 and index == depth - 1,
            )
            for index in range(depth)
        )
        self.norm = layer_norm(width)

    def forward(self, branches: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Maps (B, C, H, W) of the branches to theirs, and to the normalised one for the decoder."""
        maps = [shrink(features) for shrink, features in zip(self.downsample, branches, strict=True)]
        cells = [features.permute(0, 2, 3, 1) for features in maps]
        for block in self.blocks:
            cells = block(cells)
        seen: Tensor = self.norm(cells[0])
        return [branch.permute(0, 3, 1, 2) for branch in cells], seen.permute(0, 3, 1, 2)


class TUNI(Rival):
    """Four stages, and a decoder that reads the RGB branch alone, which holds both by then.

    Of one modality alone, thermal too, it is the wide branch with the RGB-RGB local and the global module:
    the slim one has no modules of its own. A subclass names its size.
    """

    encoder_config: ClassVar[TUNIConfig]
    decoder_width: ClassVar[int]

    def __init__(self, config: RivalConfig, name: str = "", classes: ClassSet | None = None) -> None:
        super().__init__(config, name, classes)
        channels: Sequence[int] = {"rgbt": (3, 1), "rgb": (3,), "thermal": (1,)}[config.modality]
        stages: list[TUNIStage] = []
        for index in range(len(self.encoder_config.widths)):
            stages.append(TUNIStage(self.encoder_config, index, channels))
            channels = stages[-1].widths
        self.stages = nn.ModuleList(stages)
        self.decoder = SegFormerDecoder(self.encoder_config.widths, config.num_classes, self.decoder_width)
        self.apply(init_weights)

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H/4, W/4)."""
        # Of the thermal image's three equal channels one is enough.
        branches = [] if rgb is None else [rgb]
        if thermal is not None:
            branches.append(thermal[:, :1])
        maps = []
        for stage in self.stages:
            branches, seen = stage(branches)
            maps.append(seen)
        logits: Tensor = self.decoder(maps)
        return logits


class TUNIS(TUNI):
    """TUNI-S."""

    architecture = "tuni_s"
    encoder_config = TUNIConfig((2, 2, 4, 2), (48, 96, 192, 384))
    decoder_width = 256


class TUNIB(TUNI):
    """TUNI-B, with the depths and widths of DFormer-B."""

    architecture = "tuni_b"
    encoder_config = TUNIConfig((3, 3, 12, 2), (64, 128, 256, 512))
    decoder_width = 256
