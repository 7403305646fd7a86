"""SegFormer's all-MLP decoder (arXiv 2105.15203, section 3.2, equation 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.decoders import ConvNorm
from efnet.models.layers import Linear


class SegFormerDecoder(nn.Module):
    """A linear layer per stage, all brought to the first stage's size, concatenated, fused, classified.

    The paper leaves open what follows the fusing layer: batch normalisation, ReLU and dropout here.

    Args:
        in_channels: of the stages' maps.
        num_classes: K.
        width: channels C of the decoder.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, width: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(Linear(channels, width) for channels in in_channels)
        self.fuse = ConvNorm(len(in_channels) * width, width, 1)
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The stages' maps (B, C_i, h_i, w_i), the finest first, to logits (B, K, h_1, w_1)."""
        size = maps[0].shape[2:]
        projected = [
            linear(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            for linear, features in zip(self.linears, maps, strict=True)
        ]
        upsampled = [
            F.interpolate(features, size, mode="bilinear", align_corners=False) for features in projected
        ]
        logits: Tensor = self.classify(self.dropout(self.fuse(torch.cat(upsampled, dim=1))))
        return logits
