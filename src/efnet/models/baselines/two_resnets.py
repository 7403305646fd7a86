"""RTFNet and EAEFNet: two ResNets, the thermal one of one channel, fused at all five levels.

RTFNet (Sun 2019, IEEE RA-L 4(3), "RGB-thermal fusion network") adds the thermal map to the colour map of each
level; the thermal encoder goes on by itself. Five Upception blocks, each a block A and a block B, bring 2048
channels at 1/32 to K at full size. The official code's parameter count determines their kernel sizes: A is
1x1, 3x3, 3x3; B is 1x1, 3x3, transposed 2x2, beside a transposed 2x2 shortcut.

EAEFNet (Liang 2023, arXiv 2303.15710) distinguishes whether both modalities are informative, one, or neither.
With w_R, w_T the channel weights of both maps (a small network on their means), W = sigmoid(w_R * w_T) is
near one where they agree in sign. The interaction branch enhances W * F of each modality from both; the
complement branch adds (1 - W) * (F_R + F_T) to both. The sums are merged by spatial weights that add up to
one, and both encoders continue with the mean of their own map and the merged one. The layers within are ours,
and so is the decoder: an atrous pyramid on the deepest map, then one step per level that appends the fused
map in few channels (`docs/rivals.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.base import CLASSIFIER_STD
from efnet.models.baselines.base import PaddedBaseline
from efnet.models.baselines.resnet import ResNet, enlarge, init_convolution, load_resnets
from efnet.models.decoders import AtrousPyramid
from efnet.models.layers import ConvNorm


class TwoResNets(PaddedBaseline):
    """Both encoders, or with one modality its own, and a decoder; a subclass fuses the maps of a level."""

    depth: ClassVar[int] = 152
    load_encoder = load_resnets

    def _build(self) -> None:
        self.rgb = ResNet(self.depth) if self.config.modality != "thermal" else None
        self.thermal = ResNet(self.depth, in_channels=1) if self.config.modality != "rgb" else None
        encoder = self.rgb or self.thermal
        assert encoder is not None
        self._build_rest(encoder.widths, self.config.num_classes)

    def _build_rest(self, widths: Sequence[int], num_classes: int) -> None:
        """Make what follows the encoders, for maps of `widths` channels."""
        raise NotImplementedError

    def fuse_level(self, level: int, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Two maps (B, C, h, w) to the encoders' next inputs, and the fused map."""
        raise NotImplementedError

    def _encode(self, rgb: Tensor | None, thermal: Tensor | None) -> list[Tensor]:
        """Normalised images to the fused maps of all levels."""
        thermal = None if thermal is None else thermal[:, :1]
        if self.rgb is None or self.thermal is None:
            encoder, images = (self.rgb, rgb) if self.thermal is None else (self.thermal, thermal)
            assert encoder is not None
            return [*encoder(images)]
        assert rgb is not None
        assert thermal is not None
        maps = []
        for level in range(ResNet.levels):
            rgb, thermal = self.rgb.level(level, rgb), self.thermal.level(level, thermal)
            rgb, thermal, fused = self.fuse_level(level, rgb, thermal)
            maps.append(fused)
        return maps


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
    """Twice the size, other channels, with a shortcut that enlarges too; `linear` (for logits) omits ReLU."""

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
        steps = (nn.Sequential(BlockA(wide), BlockB(wide, narrow)) for wide, narrow in pairwise(widths))
        self.blocks = nn.Sequential(*steps, BlockA(widths[-1]))
        self.classify = BlockB(widths[-1], num_classes, linear=True)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)
        # Like every network's classifier, the block that makes the logits starts near zero.
        for branch in (self.classify.inner, self.classify.shortcut):
            nn.init.constant_(branch.get_parameter(f"{len(branch) - 1}.weight"), CLASSIFIER_STD)

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, H / 32, W / 32) to logits (B, K, H, W)."""
        logits: Tensor = self.classify(self.blocks(features))
        return logits


class RTFNet(TwoResNets):
    """A subclass names the encoders' depth."""

    def _build_rest(self, widths: Sequence[int], num_classes: int) -> None:
        self.decoder = UpceptionDecoder(widths[-1], num_classes)

    def fuse_level(self, level: int, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The colour encoder goes on with the sums, the thermal one by itself."""
        fused = rgb + thermal
        return fused, thermal, fused

    def score_padded(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H, W)."""
        logits: Tensor = self.decoder(self._encode(rgb, thermal)[-1])
        return logits


class RTFNet50(RTFNet, architecture="rtfnet50", depth=50):
    """RTFNet with ResNet-50."""


class RTFNet152(RTFNet, architecture="rtfnet152"):
    """RTFNet with ResNet-152."""


class EAEF(nn.Module):
    """Both branches and the merge.

    Ours: a hidden layer of a sixteenth in the channel weights; in the interaction a 3x3 convolution of each
    channel with its counterpart and a pointwise one; 3x3 for the spatial weights.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.weigh = nn.ModuleList(_channel_weights(channels, reduction) for _ in range(2))
        self.enhance = nn.ModuleList(_interaction(channels) for _ in range(2))
        self.merge = nn.Conv2d(2 * channels, 2, 3, padding=1)

    def forward(self, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Two maps (B, C, h, w) to the encoders' next inputs, and the merged map."""
        agreement = torch.sigmoid(self.weigh[0](rgb) * self.weigh[1](thermal))
        complement = (1 - agreement) * (rgb + thermal)
        both = torch.cat([agreement * rgb, agreement * thermal], dim=1)
        of_rgb = self.enhance[0](both) + complement
        of_thermal = self.enhance[1](both) + complement
        share = self.merge(torch.cat([of_rgb, of_thermal], dim=1)).softmax(dim=1)
        merged = share[:, :1] * of_rgb + share[:, 1:] * of_thermal
        return (rgb + merged) / 2, (thermal + merged) / 2, merged


def _channel_weights(channels: int, reduction: int) -> nn.Sequential:
    """(B, C, h, w) to weights (B, C, 1, 1) of either sign."""
    hidden = max(4, channels // reduction)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
    )


def _interaction(channels: int) -> nn.Sequential:
    """(B, 2C, h, w) to (B, C, h, w): each channel sees its counterpart, then all channels each other."""
    return nn.Sequential(
        nn.Conv2d(2 * channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    )


class StepDecoder(nn.Module):
    """From the pyramid up to stride 2: `width` channels to stride 4, then `detail` channels."""

    def __init__(self, widths: Sequence[int], num_classes: int, width: int = 256, detail: int = 64) -> None:
        super().__init__()
        self.pyramid = AtrousPyramid(widths[-1], width)
        self.details = nn.ModuleList(ConvNorm(channels, detail, 1) for channels in widths[-2:0:-1])
        self.steps = nn.ModuleList(ConvNorm(width + detail, width, 3) for _ in self.details)
        self.narrow = ConvNorm(width, detail, 3)
        self.last = ConvNorm(detail, detail, 3)
        self.classify = nn.Conv2d(detail, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Five maps to logits (B, K, H / 2, W / 2)."""
        features = self.pyramid.views(maps[-1])
        for fused, detail, step in zip(maps[-2:0:-1], self.details, self.steps, strict=True):
            features = step(torch.cat([enlarge(features, fused.shape[2:]), detail(fused)], dim=1))
        features = self.narrow(enlarge(features, maps[0].shape[2:])) + maps[0]
        logits: Tensor = self.classify(self.last(features))
        return logits


class EAEFNet(TwoResNets):
    """Encoders, five fusions, decoder."""

    architecture = "eaefnet"

    def _build_rest(self, widths: Sequence[int], num_classes: int) -> None:
        fused = widths if self.config.modality == "rgbt" else ()
        self.fuse = nn.ModuleList(EAEF(width) for width in fused)
        self.decoder = StepDecoder(widths, num_classes)
        self.fuse.apply(init_convolution)
        self.decoder.apply(init_convolution)

    def fuse_level(self, level: int, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both encoders go on with the mean of their map and the merged one."""
        rgb, thermal, merged = self.fuse[level](rgb, thermal)
        return rgb, thermal, merged

    def score_padded(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H / 2, W / 2)."""
        logits: Tensor = self.decoder(self._encode(rgb, thermal))
        return logits


class EAEFNet50(EAEFNet, architecture="eaefnet50", depth=50):
    """EAEFNet with ResNet-50, as EFNet's table III has it."""
