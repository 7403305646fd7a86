"""CMNeXt (Zhang 2023, arXiv 2303.01480) for RGB and thermal as in its authors' code, Apache-2.0.

Of the authors of CMX, whose rectification, fusion and decoder it shares. The second branch is convolutional:
blocks of pooling attention on maps. Thermal images are only divided by 255.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.baselines.base import PLAIN, conv
from efnet.models.baselines.cmx import RectifiedPair
from efnet.models.baselines.segformer import DROP_PATH, MIT, MiTConfig, decoder_renames
from efnet.models.layers import DropPath

RATIOS = (8, 8, 4, 4)  # hidden width of the second branch's feed-forward parts over the width


class MapNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PoolingAttention(nn.Module):
    """A depthwise convolution and its means over three windows decide how far each value is raised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv0 = conv(width, width, 7, groups=width)
        self.conv4 = nn.Conv2d(width, width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        seen = self.conv0(features)
        total = seen
        for side in (3, 7, 11):
            total = total + F.avg_pool2d(seen, side, 1, side // 2, count_include_pad=False)
        return features + features * torch.sigmoid(self.conv4(total))


class MapMLP(nn.Module):
    """Feed-forward part on a map, with a depthwise convolution in its middle."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, ratio * width, 1)
        self.dwconv = nn.ModuleDict({"dwconv": conv(ratio * width, ratio * width, groups=ratio * width)})
        self.fc2 = nn.Conv2d(ratio * width, width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        raised: Tensor = self.fc2(F.gelu(self.dwconv["dwconv"](self.fc1(features))))
        return raised


class MapBlock(nn.Module):
    """Pooling attention and feed-forward part; the latter's residual is damped channel by channel."""

    def __init__(self, width: int, ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width)
        self.attn = PoolingAttention(width)
        self.norm2 = nn.BatchNorm2d(width)
        self.mlp = MapMLP(width, ratio)
        self.c_nets = nn.Sequential(nn.Conv1d(1, 1, 3, padding=1, bias=False))
        self.layer_scale_1 = nn.Parameter(torch.full((width,), 1e-2))
        self.layer_scale_2 = nn.Parameter(torch.full((width,), 1e-2))
        self.drop_path = DropPath(drop_path)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        read = self._scaled(self.layer_scale_1, self.attn(self.norm1(features)))
        features = features + read
        damping = torch.sigmoid(self.c_nets(features.mean((2, 3))[:, None]))[:, 0, :, None, None]
        return damping * features + self._scaled(self.layer_scale_2, self.mlp(self.norm2(features)))

    def _scaled(self, scale: Tensor, residual: Tensor) -> Tensor:
        dropped: Tensor = self.drop_path((scale[:, None, None] * residual).flatten(2)).view_as(residual)
        return dropped


class MapStage(nn.Sequential):
    """A quarter of the cells (in stage 0 a sixteenth), then blocks."""

    def __init__(self, config: MiTConfig, stage: int) -> None:
        width, before = config.widths[stage], sum(config.depths[:stage])
        kernel, stride, channels = (7, 4, 3) if stage == 0 else (3, 2, config.widths[stage - 1])
        last = sum(config.depths) - 1
        super().__init__()
        self.proj = conv(channels, width, kernel, stride=stride)
        self.norm = MapNorm(width)
        self.blocks = nn.Sequential(
            *(
                MapBlock(width, RATIOS[stage], DROP_PATH * (before + index) / last)
                for index in range(config.depths[stage])
            )
        )
        self.last_norm = MapNorm(width)


class SecondBranch(nn.Module):
    """Four stages, at strides 4, 8, 16 and 32."""

    def __init__(self, config: MiTConfig) -> None:
        super().__init__()
        self.stages = nn.ModuleList(MapStage(config, stage) for stage in range(4))


class CMNeXt(RectifiedPair):
    """MiT for colour, the convolutional branch for thermal. A subclass names their size."""

    thermal_pixels = PLAIN
    fuse_bias = False
    renames = (
        *(
            (rf"backbone\.extra_{theirs}\.", f"thermal.stages.{stage}.{ours}.")
            for stage in range(4)
            for theirs, ours in (
                (rf"downsample_layers\.{stage}\.proj\.module", "proj"),
                (rf"downsample_layers\.{stage}\.norm\.ln_0", "norm"),
                (f"block{stage + 1}", "blocks"),
                (f"norm{stage + 1}", "last_norm"),
            )
        ),
        (r"backbone\.", ""),
        *decoder_renames("conv", "bn"),
    )

    def _build(self) -> None:
        super()._build()
        for module in self.modules():
            # The authors' initialisation forgets that a filter of a depthwise convolution sees one channel.
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                nn.init.normal_(
                    module.weight, std=math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels))
                )

    def _second_encoder(self) -> nn.Module:
        # Unlike in the network that its ImageNet weights come from.
        for module in self.rgb.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = 1e-5
        return SecondBranch(self.encoder_config)


class CMNeXtB2(CMNeXt, architecture="cmnext_b2", encoder_config=MIT["b2"]):
    """CMNeXt with MiT-B2."""


class CMNeXtB4(CMNeXt, architecture="cmnext_b4", encoder_config=MIT["b4"]):
    """CMNeXt with MiT-B4."""
