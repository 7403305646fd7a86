"""MDRNet+ (Zhao 2023, IEEE TNNLS, "Mitigating modality discrepancies") as in its authors' code at test.

Two ResNet-50, fused per level by channel weights, and a third one that fuses on, with context modules over
positions (MSC) and over channels (MCC). Their training also translates each image into the other modality,
with discriminators, for which their files hold 146 M further parameters; these are left out here.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from efnet.models.baselines.base import GREY, PaddedBaseline, conv, conv_norm
from efnet.models.baselines.resnet import ResNet, load_resnets, pool

EPSILON = 1e-5
RATES = (1, 6, 12, 18)


def rectified(in_channels: int, out_channels: int, kernel: int = 3, dilation: int = 1) -> nn.Sequential:
    """Make a convolution, batch normalisation and ReLU."""
    return conv_norm(in_channels, out_channels, kernel, nn.ReLU(), dilation=dilation)


def doubling(in_channels: int, out_channels: int) -> nn.Sequential:
    """Make a transposed 2x2 convolution of stride 2, batch normalisation and ReLU."""
    layer = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)
    return nn.Sequential(
        OrderedDict([("conv", layer), ("bn", nn.BatchNorm2d(out_channels)), ("activation", nn.ReLU())])
    )


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(module.weight)


class ContextModule(nn.Module):
    """Four dilated views, whose union and the input itself weigh positions, or with `channels` channels."""

    def __init__(self, channels: int, over_channels: bool) -> None:
        super().__init__()
        self.over_channels = over_channels
        for index, rate in enumerate(RATES, 1):
            self.add_module(f"conv{index}", rectified(channels, channels // 2, 1))
            self.add_module(f"Dconv{index}", rectified(channels // 2, channels // 2, dilation=rate))
        self.conv5 = rectified(2 * channels, channels, 1)
        self.conv6: nn.Module = rectified(channels, channels, 1) if over_channels else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        views = [
            self.get_submodule(f"Dconv{index}")(self.get_submodule(f"conv{index}")(features))
            for index in range(1, 5)
        ]
        given, union = features.flatten(2), self.conv5(torch.cat(views, dim=1)).flatten(2)
        total = given
        for source in (union, given):
            unit = source / (source.norm(dim=1, keepdim=True) + EPSILON)
            if self.over_channels:
                weights = (unit @ unit.transpose(1, 2)).relu()
            else:
                weights = (unit.transpose(1, 2) @ unit).relu()
            # Columns sum to one in both, though over channels it is rows that the product reads.
            weights = weights / (weights.sum(1, keepdim=True) + EPSILON)
            total = total + (weights @ union if self.over_channels else union @ weights)
        fused: Tensor = self.conv6(total.reshape(features.shape))
        return fused


class MDRNet(PaddedBaseline):
    """Encoders, four fusions, fusion encoder, decoder."""

    architecture = "mdrnet"
    thermal_pixels = GREY
    load_encoder = load_resnets
    unused = (r"encoder_(RGB3|T3)_layer4\.|encoder_fake|fake_|toclassconv|latent_|recon_",)
    renames = (
        (r"encoder_RGB3_", "encoder_RGB3."),
        (r"encoder_T3_", "encoder_T3."),
        (r"encoder_fusion_layer1\.", "encoder_fusion.layer1."),
        (r"encoder_fusion_layer2\.", "encoder_fusion.layer2."),
        (r"encoder_fusion_layer4\.", "encoder_fusion.layer3."),
    )

    def _build(self) -> None:
        self.encoder_RGB3 = ResNet(50, layers=3)
        self.encoder_T3 = ResNet(50, layers=3)
        self.encoder_fusion = ResNet(50, layers=3, stem=False)
        for name, width in zip(("d1", "d2", "d3", "s"), self.encoder_T3.widths[:4], strict=True):
            steps = (
                nn.ModuleDict({"conv": conv(2 * width, width, 1, bias=False)}),
                nn.ModuleDict({"conv": conv(width, width, bias=False)}),
            )
            self.add_module(f"{name}_weight_classifier", nn.ModuleList(steps))
        self.encoder_fusion_layer3 = ContextModule(512, over_channels=False)
        self.encoder_fusion_layer5 = ContextModule(1024, over_channels=True)
        widths = (1024, 512, 256, 64, 64)
        for step in range(4):
            self.add_module(f"fusion_decoder{step}", doubling(widths[step], widths[step + 1]))
        for step in (1, 2, 3):
            self.add_module(f"fusion_conv{step}", rectified(widths[step], widths[step]))
        self.fusion_conv4 = conv(64, self.config.num_classes, 1, bias=False)
        for child in self.children():
            if not isinstance(child, ResNet):
                child.apply(_init)

    def weigh(self, name: str, rgb: Tensor, thermal: Tensor) -> Tensor:
        """Channel weights (B, C, 1, 1) of the colour map, averaged after the sigmoid."""
        steps = self.get_submodule(f"{name}_weight_classifier")
        inner = steps.get_submodule("0.conv")(torch.cat([rgb, thermal], dim=1)).relu()
        weights: Tensor = steps.get_submodule("1.conv")(inner).sigmoid().mean((2, 3), keepdim=True)
        return weights

    def score_padded(self, rgb: Tensor | None, thermal: Tensor | None) -> Tensor:
        """Normalised images to logits (B, K, H, W)."""
        assert rgb is not None
        assert thermal is not None
        fused = []
        for level, name in enumerate(("d1", "d2", "d3", "s")):
            rgb, thermal = self.encoder_RGB3.level(level, rgb), self.encoder_T3.level(level, thermal)
            share = self.weigh(name, rgb, thermal)
            fused.append(share * rgb + (1 - share) * thermal)
        layers = self.encoder_fusion.get_submodule
        skips = [fused[0]]
        skips.append(layers("layer1")(pool(fused[0])) + fused[1])
        skips.append(self.encoder_fusion_layer3(layers("layer2")(skips[1]) + fused[2]))
        features = self.encoder_fusion_layer5(layers("layer3")(skips[2]) + fused[3])
        for step in (0, 1, 2):
            raised = self.get_submodule(f"fusion_decoder{step}")(features)
            features = self.get_submodule(f"fusion_conv{step + 1}")(raised + skips[2 - step])
        logits: Tensor = self.fusion_conv4(self.get_submodule("fusion_decoder3")(features))
        return logits
