"""SegFormer (Xie 2021, arXiv 2105.15203) with a fourth channel: early fusion that costs nothing.

The paper's network looks at colour images. Ours takes the thermal image as a fourth channel of the stem,
which adds 49 weights per stem filter and nothing else; with modality `rgb` or `thermal` it is the paper's,
with three channels.
"""

from __future__ import annotations

import os
from typing import ClassVar

import torch
from torch import Tensor

from efnet.classes import ClassSet
from efnet.models.layers import init_weights
from efnet.models.official import LoadReport
from efnet.models.rivals.base import Rival, RivalConfig
from efnet.models.rivals.mit import MIT, MiT, MiTConfig
from efnet.models.rivals.mit_weights import load_mit
from efnet.models.rivals.segformer_decoder import SegFormerDecoder


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
