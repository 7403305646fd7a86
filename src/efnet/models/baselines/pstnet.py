"""PSTNet (Shivakumar 2020, arXiv 1909.10980): a colour stream that works alone, and one that refines it.

The colour stream is a ResNet-18 with skip connections as in U-Net. The fusion stream is an ERFNet that sees
the colour stream's softmax together with the thermal and the colour image. Colour alone uses the first
stream, thermal alone the second, which then sees nothing else. `docs/rivals.md` lists our readings of the
paper.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.baselines.base import PaddedBaseline
from efnet.models.baselines.resnet import ResNet, init_convolution, load_resnets
from efnet.models.layers import ConvNorm
from efnet.models.weights import LoadReport


class Factorized(nn.Module):
    """Non-bottleneck-1D (figure 2c): 3x1, 1x3, dilated 3x1, dilated 1x3, dropout, around a shortcut."""

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(channels, channels, (3, 1), padding=(1, 0)),
            nn.ReLU(),
            nn.Conv2d(channels, channels, (1, 3), padding=(0, 1), bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, (3, 1), padding=(dilation, 0), dilation=(dilation, 1)),
            nn.ReLU(),
            nn.Conv2d(channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation), bias=False),
            nn.BatchNorm2d(channels),
            nn.Dropout2d(dropout),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, h, w) to the same."""
        return F.relu(self.inner(features) + features)


class Downsampler(nn.Module):
    """Half the size: a strided convolution beside a pooling, concatenated (section III-C)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels - in_channels, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, out_channels, h / 2, w / 2)."""
        both = torch.cat([self.conv(features), F.max_pool2d(features, 2)], dim=1)
        return F.relu(self.norm(both))


class Upsampler(nn.Sequential):
    """Twice the size by a transposed convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(in_channels, out_channels, 3, 2, padding=1, output_padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )


class ERFNet(nn.Module):
    """ERFNet (Romera 2018, IEEE T-ITS 19(1)), table I: 16, 64, 128 channels at strides 2, 4, 8, and back.

    The first layer convolves only. ERFNet's keeps a pooled copy of its three input channels among the 16;
    here there are 4 + K of them, which leave no room.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(in_channels, 16, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            Downsampler(16, 64),
            *(Factorized(64, 1, 0.03) for _ in range(5)),
            Downsampler(64, 128),
            *(Factorized(128, dilation, 0.3) for dilation in (2, 4, 8, 16) * 2),
        )
        self.decoder = nn.Sequential(
            Upsampler(128, 64),
            *(Factorized(64, 1, 0.0) for _ in range(2)),
            Upsampler(64, 16),
            *(Factorized(16, 1, 0.0) for _ in range(2)),
        )
        self.classify = nn.ConvTranspose2d(16, num_classes, 2, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        """(B, in_channels, H, W), sides multiples of 8, to logits (B, K, H, W)."""
        logits: Tensor = self.classify(self.decoder(self.encoder(images)))
        return logits


class UNetDecoder(nn.Module):
    """Five times: enlarge by two, append the encoder's map of that size, convolve twice."""

    step_widths = (256, 128, 64, 64, 32)

    def __init__(self, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        steps, channels = [], widths[-1]
        for skip, width in zip((*widths[-2::-1], 0), self.step_widths, strict=True):
            steps.append(nn.Sequential(ConvNorm(channels + skip, width, 3), ConvNorm(width, width, 3)))
            channels = width
        self.steps = nn.ModuleList(steps)
        self.classify = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Five maps at strides 2 to 32 to logits (B, K, H, W)."""
        features = maps[-1]
        for step, skip in zip(self.steps, (*maps[-2::-1], None), strict=True):
            features = F.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
            features = step(features if skip is None else torch.cat([features, skip], dim=1))
        logits: Tensor = self.classify(features)
        return logits


class ColourStream(nn.Module):
    """ResNet-18 and the decoder: a network of its own."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.encoder = ResNet(18)
        self.decoder = UNetDecoder(self.encoder.widths, num_classes)

    def forward(self, rgb: Tensor) -> Tensor:
        """(B, 3, H, W), sides multiples of 32, to logits (B, K, H, W)."""
        logits: Tensor = self.decoder(self.encoder(rgb))
        return logits


class PSTNet(PaddedBaseline):
    """Both streams, or the one of the modality."""

    architecture = "pstnet"

    def _build(self) -> None:
        count, modality = self.config.num_classes, self.config.modality
        self.rgb = ColourStream(count) if modality != "thermal" else None
        self.fusion = ERFNet(1 if self.rgb is None else 4 + count, count) if modality != "rgb" else None
        self.apply(init_convolution)

    def score_padded(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H, W)."""
        seen = [] if thermal is None else [thermal[:, :1]]
        if self.rgb is not None:
            assert rgb is not None
            logits: Tensor = self.rgb(rgb)
            if self.fusion is None:
                return logits
            seen += [rgb, logits.softmax(dim=1)]
        assert self.fusion is not None
        refined: Tensor = self.fusion(torch.cat(seen, dim=1))
        return refined

    def load_encoder(self, path: str | os.PathLike[str]) -> LoadReport:
        """Start the colour stream's encoder from a published ResNet-18; for thermal alone there is none."""
        if self.rgb is None:
            return super().load_encoder(path)
        return load_resnets(self, path)
