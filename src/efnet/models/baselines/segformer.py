"""SegFormer (Xie 2021, arXiv 2105.15203) with a fourth channel: early fusion that costs nothing.

The paper's network looks at colour images. Ours takes the thermal image as a fourth channel of the stem,
which adds 49 weights per stem filter and nothing else; with modality `rgb` or `thermal` it is the paper's,
with three channels.

SegFormer's all-MLP decoder (arXiv 2105.15203, section 3.2, equation 4).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.core.classes import ClassSet
from efnet.models.baselines.base import Rival, RivalConfig
from efnet.models.baselines.mit import MIT, MiT, MiTConfig, load_mit
from efnet.models.decoders import ConvNorm
from efnet.models.layers import Linear, init_weights
from efnet.models.tcformer_weights import LoadReport


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


class SegFormer(Rival):
    """MiT and the all-MLP decoder. A subclass names the row of table 6."""

    encoder_config: ClassVar[MiTConfig]
    decoder_width: ClassVar[int]

    def __init__(self, config: RivalConfig, name: str = "", classes: ClassSet | None = None) -> None:
        super().__init__(config, name, classes)
        self.encoder = MiT(self.encoder_config, in_channels=4 if config.modality == "rgbt" else 3)
        self.decoder = SegFormerDecoder(self.encoder_config.widths, config.num_classes, self.decoder_width)
        self.apply(init_weights)

    def score_cells(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H/4, W/4)."""
        # Of the thermal image's three equal channels one is enough.
        channels = [image for image in (rgb, thermal) if image is not None]
        images = channels[0] if len(channels) == 1 else torch.cat([channels[0], channels[1][:, :1]], dim=1)
        logits: Tensor = self.decoder(self.encoder(images))
        return logits

    def load_encoder(self, path: str | os.PathLike[str]) -> LoadReport:
        """Start the encoder from published weights: `mit_b2.pth`, or `nvidia/mit-b2` of the hub.

        Raises:
            InputError: the file cannot be read, is no MiT, or is one of another size.
        """
        return load_mit(self, path)


class SegFormerB0(SegFormer):
    """SegFormer-B0: MiT-B0, decoder of width 256."""

    architecture = "segformer_b0"
    encoder_config = MIT["b0"]
    decoder_width = 256


class SegFormerB2(SegFormer):
    """SegFormer-B2: MiT-B2, decoder of width 768."""

    architecture = "segformer_b2"
    encoder_config = MIT["b2"]
    decoder_width = 768
