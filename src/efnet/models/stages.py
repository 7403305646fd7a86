"""The backbone's stages: blocks on the regular grid, then clustering (or pooling) and blocks on tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from efnet.models.config import BackboneConfig, Merging, Position
from efnet.models.dbtc import DBTC, Readings, halve
from efnet.models.layers import Block, PatchEmbedding, TokenConv, Tokens, layer_norm
from efnet.ops.tokens import TokenGrid, cell_index, merge_tokens


class AveragePooling(nn.Module):
    """Merge each 2x2 block of a stage's map into its mean: an ablation of ours, without clustering.

    The tokens must be the cells of their map, as those of stage 1 are and those that this module returns.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = TokenConv(in_channels, out_channels, stride=2)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, tokens: Tokens) -> tuple[Tokens, Tokens, None]:
        """Merge H * W tokens into ceil(H / 2) * ceil(W / 2); return as `DBTC` does, without importance."""
        features = self.norm(self.conv(tokens))
        size = halve(tokens.map_size)
        cells: Tensor = cell_index(tokens.map_size, size, features.device)
        clusters = cells.expand(features.shape[0], -1)
        equal = features.new_zeros(features.shape[:2])
        merged = merge_tokens(features, equal, clusters, size[0] * size[1])
        return (
            Tokens(merged, tokens.grid.merged(clusters, size[0] * size[1]), size),
            tokens.with_features(features),
            None,
        )


def _blocks(config: BackboneConfig, stage: int) -> nn.ModuleList:
    """The blocks of one stage; the chance to drop a path rises over the whole network."""
    before, total = sum(config.depths[:stage]), sum(config.depths)
    return nn.ModuleList(
        Block(
            config.widths[stage],
            config.heads[stage],
            config.mlp_ratios[stage],
            config.reductions[stage],
            drop_path=config.drop_path * (before + index) / max(1, total - 1),
            skip=stage > 0,
        )
        for index in range(config.depths[stage])
    )


def _run(block: nn.Module, again: bool, *args: Tokens | Tensor | None) -> Tokens:
    """Run a block; with `again` its activations are recomputed in the backward pass."""
    tokens: Tokens
    if again and block.training and torch.is_grad_enabled():
        tokens = checkpoint(block, *args, use_reentrant=False)
    else:
        tokens = block(*args)
    return tokens


class GridStage(nn.Module):
    """Stage 1: stem and blocks on the regular grid."""

    checkpoint_activations = False
    """In training, store only the input of a block and recompute the rest: less memory, more time."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(config.widths[0])
        self.blocks = _blocks(config, 0)
        self.norm = layer_norm(config.widths[0])

    def forward(self, images: Tensor) -> Tokens:
        """Normalised images (B, 3, H, W) to one token per cell of the initial grid."""
        features, size = self.patch_embed(images)
        tokens = Tokens(features, TokenGrid.whole(images.shape[0], size, images.device), size)
        for block in self.blocks:
            tokens = _run(block, self.checkpoint_activations, tokens)
        return tokens.with_features(self.norm(tokens.features))


class TokenStage(nn.Module):
    """Stages 2 to 4: cluster the tokens of the stage before (`stage`: 1 to 3), then blocks on the merged
    ones.
    """

    checkpoint_activations = False  # as of stage 1; the clustering is not repeated

    def __init__(
        self,
        config: BackboneConfig,
        stage: int,  # 1 to 3, counted from 0
        position: Position = "none",  # of the clustering, as of `NetworkOptions`
        tau: float = 1.0,  # of the clustering (eq. 1)
        merging: Merging = "dbtc",  # how the tokens become fewer
        readings: Readings | None = None,  # of equations 1 and 2; None: the default ones
    ) -> None:
        super().__init__()
        before, width = config.widths[stage - 1 : stage + 1]
        self.dbtc: DBTC | AveragePooling = (
            DBTC(before, width, config.neighbors, config.keep, position, tau, **(readings or Readings()))
            if merging == "dbtc"
            else AveragePooling(before, width)
        )
        self.blocks = _blocks(config, stage)
        self.norm = layer_norm(width)

    def forward(self, tokens: Tokens) -> Tokens:
        """Tokens of the stage before to a quarter as many, wider ones."""
        source: Tokens | None
        importance: Tensor | None
        tokens, source, importance = self.dbtc(tokens)
        for block in self.blocks:
            tokens = _run(block, self.checkpoint_activations, tokens, source, importance)
            source = importance = None  # they enter a stage's first block only
        return tokens.with_features(self.norm(tokens.features))
