"""MiT, the encoder of SegFormer (arXiv 2105.15203, section 3.1 and table 6): one map per stage.

Its blocks are those of this package on a regular grid (`efnet.models.layers`): attention whose keys come
from patches of the map (the paper's equations 1 and 2) and Mix-FFN (equation 3). Normalisations, their
epsilons and stochastic depth, of which the paper says nothing, are those of the published weights and of
the configurations that lie beside them (`nvidia/mit-b0`, `nvidia/mit-b2` on the Hugging Face hub).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from efnet.models.layers import Block, layer_norm
from efnet.models.tokens import Tokens
from efnet.ops.tokens import Size, TokenGrid

HEADS = (1, 2, 5, 8)
REDUCTIONS = (8, 4, 2, 1)
MLP_RATIO = 4
DROP_PATH = 0.1
"""Chance to skip the last block's residuals in training; rises linearly from 0 at the first."""


@dataclass(frozen=True)
class MiTConfig:
    """One row of table 6: a value per stage."""

    depths: tuple[int, int, int, int]
    """Transformer blocks."""
    widths: tuple[int, int, int, int]
    """Channels."""


MIT: dict[str, MiTConfig] = {
    "b0": MiTConfig((2, 2, 2, 2), (32, 64, 160, 256)),
    "b2": MiTConfig((3, 4, 6, 3), (64, 128, 320, 512)),
}


class PatchMerging(nn.Module):
    """Overlapped patch merging: a convolution with a kernel wider than its stride, then LayerNorm.

    Args:
        in_channels: of the map.
        width: channels of a token.
        kernel: side of a patch.
        stride: distance of patches.
    """

    def __init__(self, in_channels: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(width)

    def forward(self, maps: Tensor) -> Tokens:
        """(B, in_channels, H, W) to one token per patch, on a grid of their own."""
        patches = self.proj(maps)
        size: Size = (patches.shape[2], patches.shape[3])
        features = self.norm(patches.flatten(2).transpose(1, 2))
        return Tokens(features, TokenGrid.whole(patches.shape[0], size, patches.device), size)


class MiTStage(nn.Module):
    """A quarter of the cells (a sixteenth in the first stage), then transformer blocks.

    Args:
        config: depths and widths.
        stage: 0 to 3.
        in_channels: of the images, for the first stage.
    """

    def __init__(self, config: MiTConfig, stage: int, in_channels: int = 3) -> None:
        super().__init__()
        width = config.widths[stage]
        before, total = sum(config.depths[:stage]), sum(config.depths)
        self.patch_embed = (
            PatchMerging(in_channels, width, 7, 4)
            if stage == 0
            else PatchMerging(config.widths[stage - 1], width, 3, 2)
        )
        self.blocks = nn.ModuleList(
            Block(
                width,
                HEADS[stage],
                MLP_RATIO,
                REDUCTIONS[stage],
                drop_path=DROP_PATH * (before + index) / (total - 1),
                skip=False,
            )
            for index in range(config.depths[stage])
        )
        self.norm = layer_norm(width)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', h, w)."""
        tokens: Tokens = self.patch_embed(maps)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.with_features(self.norm(tokens.features)).to_map()


class MiT(nn.Module):
    """Four stages, at strides 4, 8, 16 and 32.

    Args:
        config: depths and widths.
        in_channels: of the images.
    """

    def __init__(self, config: MiTConfig, in_channels: int = 3) -> None:
        super().__init__()
        self.stages = nn.ModuleList(MiTStage(config, stage, in_channels) for stage in range(4))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, in_channels, H, W) to the maps of four stages, (B, C, h, w) each."""
        maps = [images]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]
