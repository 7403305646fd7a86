"""RTFNet (Sun 2019, IEEE RA-L 4(3), "RGB-thermal fusion network"): two ResNets, added at every level.

The thermal encoder (one channel) is added to the colour encoder after the stem and after each layer; five
Upception blocks, each a block A and a block B, bring 2048 channels at 1/32 to K at full size. The kernel
sizes within the blocks are those from which the official code's parameter count follows to the last digit
we have: A is 1x1, 3x3, 3x3; B is 1x1, 3x3, transposed 2x2, beside a transposed 2x2 shortcut. Our reading:
the last sum stays without ReLU, since a softmax follows.
"""

from __future__ import annotations

import itertools
import os
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from efnet.core.classes import ClassSet
from efnet.models.baselines.base import PaddedRival, RivalConfig
from efnet.models.baselines.resnet import ConvNorm, ResNet, encode_alone, load_resnets
from efnet.models.tcformer_weights import LoadReport


class BlockA(nn.Module):
    """Three convolutions around a shortcut; size and channels stay."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            ConvNorm(channels, channels, 1),
            ConvNorm(channels, channels, 3),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, h, w) to the same."""
        return F.relu(self.inner(features) + features)


class BlockB(nn.Module):
    """Twice the size, other channels, with a shortcut that enlarges too.

    Args:
        in_channels: of its input.
        out_channels: of its output.
        linear: leave the sum as it is: for logits.
    """

    def __init__(self, in_channels: int, out_channels: int, linear: bool = False) -> None:
        super().__init__()
        self.linear = linear
        self.inner = nn.Sequential(
            ConvNorm(in_channels, out_channels, 1),
            ConvNorm(out_channels, out_channels, 3),
            nn.ConvTranspose2d(out_channels, out_channels, 2, stride=2, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = nn.Sequential(
            nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, out_channels, 2h, 2w)."""
        both: Tensor = self.inner(features) + self.shortcut(features)
        return both if self.linear else F.relu(both)


class UpceptionDecoder(nn.Module):
    """Five Upception blocks, the last one of which gives the logits."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        widths = [channels >> step for step in range(5)]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(BlockA(wide), BlockB(wide, narrow))
                for wide, narrow in itertools.pairwise(widths)
            ),
            BlockA(widths[-1]),
        )
        self.classify = BlockB(widths[-1], num_classes, linear=True)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, H / 32, W / 32) to logits (B, K, H, W)."""
        logits: Tensor = self.classify(self.blocks(features))
        return logits


class RTFNet(PaddedRival):
    """A subclass names the encoders' depth. Of one modality alone: that encoder and the decoder."""

    depth: ClassVar[int]

    def __init__(self, config: RivalConfig, name: str = "", classes: ClassSet | None = None) -> None:
        super().__init__(config, name, classes)
        self.rgb = ResNet(self.depth) if config.modality != "thermal" else None
        self.thermal = ResNet(self.depth, in_channels=1) if config.modality != "rgb" else None
        encoder = self.rgb or self.thermal
        assert encoder is not None
        self.decoder = UpceptionDecoder(encoder.widths[-1], config.num_classes)

    def score_padded(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H, W)."""
        logits: Tensor = self.decoder(self._encode(rgb, None if thermal is None else thermal[:, :1]))
        return logits

    def _encode(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Images to the deepest map: the colour encoder goes on with the sums, the thermal one by itself."""
        if self.rgb is None:
            assert self.thermal is not None
            return encode_alone(self.thermal, thermal)[-1]
        if self.thermal is None:
            return encode_alone(self.rgb, rgb)[-1]
        assert rgb is not None
        assert thermal is not None
        for level in range(ResNet.levels):
            thermal = self.thermal.level(level, thermal)
            rgb = self.rgb.level(level, rgb) + thermal
        return rgb

    def load_encoder(self, path: str | os.PathLike[str]) -> LoadReport:
        """Start the encoders from a published ResNet of the same depth.

        Raises:
            InputError: the file cannot be read, is no ResNet, or is one of another depth.
        """
        return load_resnets(self, path)


class RTFNet50(RTFNet):
    """RTFNet with ResNet-50."""

    architecture = "rtfnet50"
    depth = 50


class RTFNet152(RTFNet):
    """RTFNet with ResNet-152."""

    architecture = "rtfnet152"
    depth = 152
