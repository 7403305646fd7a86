"""LASNet (Li 2022, arXiv 2210.14530): ResNet-152 on both images, three kinds of fusion, one decoder.

Of five levels the deepest is fused by location, the middle three by activation, the first by sharpening; a
decoder restores the size level by level. One ResNet-152 serves both modalities: two of them alone would
have 116 M parameters, the official code has 93.6 M in all. The decoder is inferred from the same count: a
3x3 convolution per level from its channels to those of the level above. Training here has one loss, on the
logits; the paper adds supervision of location, of edges and, twice, of the classes within the decoder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor, nn

from efnet.classes import ClassSet
from efnet.models.official import LoadReport
from efnet.models.rivals.base import RivalConfig
from efnet.models.rivals.lasnet_modules import (
    CollaborativeLocation,
    ComplementaryActivation,
    EdgeSharpening,
)
from efnet.models.rivals.padded import PaddedRival
from efnet.models.rivals.resnet import ConvNorm, ResNet, encode_alone, enlarge, init_convolution
from efnet.models.rivals.resnet_weights import load_resnets


class LASNetDecoder(nn.Module):
    """Enlarge, convolve, add the fused map; four times, then classify at stride 2."""

    def __init__(self, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        pairs = zip(widths[:0:-1], widths[-2::-1], strict=True)
        self.steps = nn.ModuleList(ConvNorm(deep, shallow, 3) for deep, shallow in pairs)
        self.classify = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Five maps at strides 2 to 32 to logits (B, K, H / 2, W / 2)."""
        features = maps[-1]
        for step, fused in zip(self.steps, maps[-2::-1], strict=True):
            features = step(enlarge(features, fused.shape[2:])) + fused
        logits: Tensor = self.classify(features)
        return logits


class LASNet(PaddedRival):
    """Of one modality alone: the encoder and the decoder."""

    architecture = "lasnet"

    def __init__(self, config: RivalConfig, name: str = "", classes: ClassSet | None = None) -> None:
        super().__init__(config, name, classes)
        self.encoder = ResNet(152)
        first, *middle, last = self.encoder.widths
        fusions: list[nn.Module] = []
        if config.modality == "rgbt":
            fusions = [
                EdgeSharpening(first),
                *map(ComplementaryActivation, middle),
                CollaborativeLocation(last),
            ]
        self.fuse = nn.ModuleList(fusions)
        self.decoder = LASNetDecoder(self.encoder.widths, config.num_classes)
        self.fuse.apply(init_convolution)
        self.decoder.apply(init_convolution)

    def score_padded(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H / 2, W / 2)."""
        maps = [encode_alone(self.encoder, images) for images in (rgb, thermal) if images is not None]
        fused = maps[0]
        if self.fuse:
            fused = [fuse(*level) for fuse, *level in zip(self.fuse, *maps, strict=True)]
        logits: Tensor = self.decoder(fused)
        return logits

    def load_encoder(self, path: str | os.PathLike[str]) -> LoadReport:
        """Start the encoder from a published ResNet-152.

        Raises:
            InputError: the file cannot be read, is no ResNet, or is one of another depth.
        """
        return load_resnets(self, path)
