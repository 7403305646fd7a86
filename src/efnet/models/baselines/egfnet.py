"""EGFNet (Zhou 2022, AAAI, "Edge-aware guidance fusion network") as in its authors' code.

One ResNet-152 for both images, multiplicative fusion at five levels, and an edge map of both images that
guides the output. The authors make that map beforehand; here the network makes it from its input. As in their
script it has 8 bits and wraps around where both gradients together pass 255, and is not divided by 255.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.core.precision import at_least_float32
from efnet.models.baselines.base import GREY, HeadedBaseline, conv, conv_norm, enlarge_by
from efnet.models.baselines.resnet import ResNet, load_resnets

WIDTH = 64
GRAY = (0.299, 0.587, 0.114)  # weights of red, green and blue


def normed(channels: int, out_channels: int) -> nn.Sequential:
    """Make a 3x3 convolution with bias, batch normalisation and ReLU."""
    return conv_norm(channels, out_channels, 3, nn.ReLU(), ("0", "1"), bias=True)


def edge_map(rgb: Tensor, thermal: Tensor) -> Tensor:
    """Return the edges of both images, whole numbers from 0 to 255.

    Each image, as grey values of 8 bits, gives the rounded mean of its absolute Sobel derivatives, clipped at
    255; the sum of both is kept modulo 256.

    Args:
        rgb: (B, 3, H, W) in [0, 1].
        thermal: (B, 1, H, W) in [0, 1].

    Returns:
        (B, 1, H, W), of the images' type.
    """
    weights = at_least_float32(rgb).new_tensor(GRAY).view(1, 3, 1, 1)
    colour = (255 * at_least_float32(rgb)).round().mul(weights).sum(1, keepdim=True).round()
    smooth, slope = colour.new_tensor([1.0, 2.0, 1.0]), colour.new_tensor([-1.0, 0.0, 1.0])
    sobel = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)])[:, None]
    total = torch.zeros_like(colour)
    for image in (colour, (255 * at_least_float32(thermal)).round()):
        around = F.pad(image, (1, 1, 1, 1), mode="reflect")
        total = total + F.conv2d(around, sobel).abs().clamp(max=255).mean(1, keepdim=True).round()
    return torch.remainder(total, 256).to(rgb.dtype)


class Fusion(nn.Module):
    """Both maps times their sum, then four dilated views; also the level's own prediction."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(2 * WIDTH, WIDTH, 1)
        self.rconv = normed(WIDTH, WIDTH)
        self.rrconv = conv(WIDTH, WIDTH)
        self.rrbn = nn.BatchNorm2d(WIDTH)
        for rate in (1, 2, 3, 4):
            self.add_module(f"conv{rate}", conv(WIDTH, WIDTH, dilation=rate))
        self.conv = conv(5 * WIDTH, WIDTH)
        self.convs = normed(WIDTH, out_channels)

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        """Two maps (B, 64, h, w) to one; `convs` makes the prediction of it."""
        both = rgb + thermal
        mixed = self.conv0(torch.cat([rgb * both, thermal * both], dim=1))
        mixed = F.relu(mixed + self.rrbn(self.rrconv(self.rconv(mixed))))
        views = [self.get_submodule(f"conv{rate}")(mixed) for rate in (1, 2, 3, 4)]
        fused: Tensor = self.conv(torch.cat([mixed, *views], dim=1))
        return fused


class Pyramid(nn.Module):
    """Five views of the deepest map around a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(WIDTH, WIDTH, 1)
        for rate in (1, 2, 3, 4):
            self.add_module(f"conv{rate}", conv(WIDTH, WIDTH, dilation=rate))
        self.conv = nn.Conv2d(5 * WIDTH, WIDTH, 1)
        self.rconv = normed(WIDTH, WIDTH)

    def forward(self, features: Tensor) -> Tensor:
        """(B, 64, h, w) to the same."""
        views = [self.get_submodule(f"conv{rate}")(features) for rate in range(5)]
        seen: Tensor = self.rconv(self.conv(torch.cat(views, dim=1)) + features)
        return seen


class Refinement(nn.Module):
    """The fourth level's map and the deeper one, gated by both."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * WIDTH, WIDTH, 1)
        self.rconv = normed(WIDTH, WIDTH)
        self.rconv0 = conv(WIDTH, WIDTH)
        self.rbn = nn.BatchNorm2d(WIDTH)
        self.convfinal = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, deeper: Tensor, level: Tensor) -> Tensor:
        """Two maps (B, 64, h, w) to one."""
        gate = self.conv(torch.cat([deeper, level], dim=1))
        inner = self.rbn(self.rconv0(self.rconv(deeper * gate + level * gate)))
        refined: Tensor = self.convfinal(inner + deeper)
        return refined


class SemanticHead(nn.Module):
    """The second semantic output, of the two deepest predictions and the edges."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.rconv = normed(num_classes, num_classes)
        self.conv = nn.Conv2d(num_classes, num_classes, 1)
        self.convcat = nn.Conv2d(2 * num_classes, num_classes, 1)
        self.convedge = nn.Conv2d(1, num_classes, 1)

    def forward(self, fifth: Tensor, fourth: Tensor, edges: Tensor) -> Tensor:
        """Predictions at strides 32 and 16 and (B, 1, H, W) to logits (B, K, H, W)."""
        deep, middle = enlarge_by(fifth, 32, False), enlarge_by(fourth, 16, False)
        both = self.convcat(torch.cat([deep, middle], dim=1)) + deep + middle
        logits = self.conv(self.rconv(both) * deep)
        raised: Tensor = logits * self.convedge(edges) + logits
        return raised


class EGFNet(HeadedBaseline):
    """Encoder, five fusions, decoder and edges."""

    architecture = "egfnet"
    thermal_pixels = GREY
    load_encoder = load_resnets
    unused = (r"em\d\.convf\.",)
    auxiliary = (*(f"em{level}.convs." for level in range(1, 6)), "convb3.", "semantic.")
    renames = (
        (r"layer1_rgb\.0\.", "encoder.conv1."),
        (r"layer1_rgb\.1\.", "encoder.bn1."),
        (r"layer2_rgb\.1\.", "encoder.layer1."),
        (r"layer3_rgb\.", "encoder.layer2."),
        (r"layer4_rgb\.", "encoder.layer3."),
        (r"layer5_rgb\.", "encoder.layer4."),
    )

    def _build(self) -> None:
        classes = self.config.num_classes
        self.encoder = ResNet(152)
        for level, width in enumerate(self.encoder.widths, 1):
            self.add_module(f"rgbconv{level}", conv(width, WIDTH))
            self.add_module(f"em{level}", Fusion(classes if level > 3 else 2))
        self.aspp = Pyramid()
        self.resf4 = Refinement()
        self.finalconv = nn.Conv2d(WIDTH, classes, 1)
        self.convedge = nn.Conv2d(1, classes, 1)
        self.convb3 = nn.Conv2d(2, 2, 1)
        self.semantic = SemanticHead(classes)

    def edges(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to the edge map (B, 1, H, W)."""
        return edge_map(
            (rgb * self.std + self.mean).clamp(0, 1),
            (thermal * self.thermal_std + self.thermal_mean).clamp(0, 1)[:, :1],
        )

    def score_all(self, rgb: Tensor, thermal: Tensor, auxiliary: bool) -> dict[str, Tensor]:
        """`logits` and `semantic` (B, K, H, W), `boundary3`, `boundary2` and `boundary1` (B, 2, H, W)."""
        edges = self.edges(rgb, thermal)
        fused = []
        for level, pair in enumerate(zip(self.encoder(rgb), self.encoder(thermal), strict=True), 1):
            reduce = self.get_submodule(f"rgbconv{level}")
            fused.append(self.get_submodule(f"em{level}")(*map(reduce, pair)))
        deep = enlarge_by(self.aspp(fused[4]), 2, False)
        features = self.resf4(deep, fused[3])
        for level in (2, 1, 0):
            raised = enlarge_by(deep, 2 ** (3 - level), False)
            features = enlarge_by(features, 2, False) + fused[level] + raised
        logits = self.finalconv(enlarge_by(features, 2, False))
        logits = logits * self.convedge(edges) + logits
        if not auxiliary:
            return {"logits": logits}
        own = [self.get_submodule(f"em{level}.convs")(features) for level, features in enumerate(fused, 1)]
        boundaries = {
            f"boundary{level}": self.convb3(enlarge_by(own[level - 1], 2**level, False)) * edges
            for level in (3, 2, 1)
        }
        return {"logits": logits, "semantic": self.semantic(own[4], own[3], edges), **boundaries}
