"""LASNet (Li 2022, arXiv 2210.14530) as in its authors' code: location, activation, sharpening.

One ResNet-152 for both images. Its five maps are reduced, and fused by a correlation of all cells at the
deepest level (CLM), by attention at the middle ones (CAM) and by dilated convolutions at the first (ESM).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.baselines.base import GREY, HeadedBaseline, conv, conv_norm
from efnet.models.baselines.pstnet import resize
from efnet.models.baselines.resnet import ResNet, load_resnets

_WIDTHS = (64, 128, 256, 256, 512)  # channels of the reduced maps


def leaky(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    """Make a 3x3 convolution, batch normalisation and leaky ReLU."""
    return conv_norm(in_channels, out_channels, activation=nn.LeakyReLU(0.1), dilation=dilation)


class Correlation(nn.Module):
    """Each exemplar cell gets a mean of the query's cells, weighted by their correlation.

    The weights are a softmax over the query's cells, without a scale.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear_e = nn.Linear(channels, channels, bias=False)
        self.fusion = leaky(channels, channels)

    def forward(self, exemplar: Tensor, query: Tensor) -> Tensor:
        """(B, C, h, w) twice, to the same."""
        cells = query.flatten(2)  # (B, C, N)
        weights = (self.linear_e(exemplar.flatten(2).transpose(1, 2)) @ cells).softmax(dim=2)
        gathered = cells @ weights.transpose(1, 2)
        fused: Tensor = self.fusion(gathered.reshape(exemplar.shape))
        return fused


class Location(nn.Module):
    """CLM: both maps gathered by their product's cells, then their sum and their product."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.corr_x_2_x_ir = Correlation(channels)
        self.corr_ir_2_x_ir = Correlation(channels)
        self.smooth1 = leaky(channels, channels)
        self.smooth2 = leaky(channels, channels)
        self.fusion = leaky(2 * channels, channels)
        self.pred = conv(channels, 2)

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        """Two maps (B, C, h, w) to one."""
        product = rgb * thermal
        first, second = self.corr_x_2_x_ir(product, rgb), self.corr_ir_2_x_ir(product, thermal)
        both = torch.cat([self.smooth1(first + second), self.smooth2(first * second)], dim=1)
        fused: Tensor = self.fusion(both)
        return fused


class ChannelAttention(nn.Module):
    """Channels attend to the channels that they correlate least with (DANet's order), scaled by `gamma`."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        cells = features.flatten(2)
        energy = cells @ cells.transpose(1, 2)
        weights = (energy.amax(2, keepdim=True) - energy).softmax(dim=2)
        return self.gamma * (weights @ cells).reshape(features.shape) + features


class Activation(nn.Module):
    """CAM: the sum, weighted per cell by the product's maximum, then channel attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv2 = leaky(channels, channels)
        self.sa = nn.ModuleDict({"conv1": conv(1, 1, bias=False)})
        self.cam = ChannelAttention()

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        """Two maps (B, C, h, w) to one."""
        weights = torch.sigmoid(self.sa["conv1"]((rgb * thermal).amax(1, keepdim=True)))
        fused: Tensor = self.cam(self.conv2(rgb + thermal) * weights)
        return fused


class Sharpening(nn.Module):
    """ESM: sum and product at four dilations."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = leaky(channels, channels)
        self.conv2 = leaky(channels, channels)
        for index, rate in enumerate((1, 3, 5, 7), 1):
            self.add_module(f"dconv{index}", leaky(channels, channels // 4, rate))
        self.fuse_dconv = conv(channels, channels)
        self.pred = conv(channels, 2)

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        """Two maps (B, C, h, w) to one."""
        features = self.conv2(rgb + thermal) + self.conv1(rgb * thermal)
        views = [self.get_submodule(f"dconv{index}")(features) for index in range(1, 5)]
        fused: Tensor = self.fuse_dconv(torch.cat(views, dim=1))
        return fused


class Decoder(nn.Module):
    """From the deepest level to full size; each step doubles it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for level in (5, 4, 3, 2, 1):
            width, below = _WIDTHS[level - 1], _WIDTHS[max(0, level - 2)]
            steps: list[nn.Module] = [nn.Dropout2d(0.1), leaky(width, width, 3), leaky(width, below)]
            steps.append(nn.UpsamplingBilinear2d(scale_factor=2))
            if level == 1:
                steps += [leaky(below, below), conv(below, num_classes)]
            self.add_module(f"decoder{level}", nn.Sequential(*steps))
        self.semantic_pred2 = conv(_WIDTHS[0], num_classes)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Five maps to logits (B, K, H, W), and the features (B, 64, H / 2, W / 2) of the auxiliary ones."""
        features = self.get_submodule("decoder5")(maps[4])
        # Where an odd side was halved, twice the half is one too many.
        features = resize(features, maps[3].shape[2:])
        for level in (4, 3, 2):
            features = self.get_submodule(f"decoder{level}")(features + maps[level - 1])
        return self.get_submodule("decoder1")(features + maps[0]), features


class LASNet(HeadedBaseline):
    """Encoder, five fusions, decoder."""

    architecture = "lasnet"
    stride = 16
    thermal_pixels = GREY
    load_encoder = load_resnets
    auxiliary = ("decoder.semantic_pred2.", "CLM5.pred.", "ESM1.pred.")
    renames = (
        (r"layer1_rgb\.0\.", "encoder.conv1."),
        (r"layer1_rgb\.1\.", "encoder.bn1."),
        (r"layer2_rgb\.1\.", "encoder.layer1."),
        (r"layer3_rgb\.", "encoder.layer2."),
        (r"layer4_rgb\.", "encoder.layer3."),
        (r"layer5_rgb\.", "encoder.layer4."),
    )

    def _build(self) -> None:
        self.encoder = ResNet(152)
        for level, (wide, width) in enumerate(zip(self.encoder.widths, _WIDTHS, strict=True), 1):
            self.add_module(f"rgbconv{level}", leaky(wide, width))
        self.CLM5 = Location(_WIDTHS[4])
        for level in (4, 3, 2):
            self.add_module(f"CAM{level}", Activation(_WIDTHS[level - 1]))
        self.ESM1 = Sharpening(_WIDTHS[0])
        self.decoder = Decoder(self.config.num_classes)

    def score_all(self, rgb: Tensor, thermal: Tensor, auxiliary: bool) -> dict[str, Tensor]:
        """`logits` and `logits_aux` (B, K, H, W), `location` and `edge` (B, 2, H, W)."""
        size = rgb.shape[2:]
        reduced = [
            [self.get_submodule(f"rgbconv{level}")(features) for level, features in enumerate(maps, 1)]
            for maps in (self.encoder(rgb), self.encoder(thermal))
        ]
        fusions = (self.ESM1, *(self.get_submodule(f"CAM{level}") for level in (2, 3, 4)), self.CLM5)
        fused = [fusion(*pair) for fusion, pair in zip(fusions, zip(*reduced, strict=True), strict=True)]
        logits, features = self.decoder(fused)
        if not auxiliary:
            return {"logits": logits}
        others = {
            "logits_aux": self.decoder.semantic_pred2(features),
            "location": self.CLM5.pred(fused[4]),
            "edge": self.ESM1.pred(fused[0]),
        }
        return {"logits": logits} | {
            name: F.interpolate(output, size, mode="bilinear", align_corners=False)
            for name, output in others.items()
        }
