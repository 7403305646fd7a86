"""ERFNet (Romera 2018, IEEE T-ITS 19(1)): residual blocks of factorised convolutions; a stream of PSTNet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
            nn.ConvTranspose2d(
                in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=False
            ),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )


class ERFNet(nn.Module):
    """Table I of the paper: 16, 64 and 128 channels at strides 2, 4 and 8, and back.

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
