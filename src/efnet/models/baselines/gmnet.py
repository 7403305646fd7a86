"""GMNet (Zhou 2021, IEEE TIP 30, "Graded-feature multilabel-learning network") as in its authors' code.

Two ResNet-50 that do not exchange anything. The three deep levels are fused by dense blocks, the two shallow
ones by the thermal map's strongest cells. Further outputs for foreground and boundaries exist for training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from efnet.models.baselines.base import GREY, HeadedBaseline, conv, conv_norm, enlarge_by
from efnet.models.baselines.feanet import ChannelWeights
from efnet.models.baselines.resnet import TwoResNets

WIDTH = 64


class Wrapped(nn.ModuleDict):
    """One module under the name that the authors' wrapper of it gives."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the module's map."""
        (module,) = self.values()
        result: Tensor = module(features)
        return result


def rectified(in_channels: int, out_channels: int) -> Wrapped:
    """Make a 3x3 convolution, batch normalisation and ReLU."""
    return Wrapped({"basicconv": conv_norm(in_channels, out_channels, 3, nn.ReLU(), ("0", "1"))})


class DenseBlock(nn.Module):
    """Convolutions that see all earlier results, the oldest but one first, and the reduced input last."""

    def __init__(self, channels: int, width: int, layers: list[nn.Module]) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, width, 1)
        self.denseblock = nn.ModuleList(layers)
        self.fuse = rectified(channels + width, channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        reduced = self.down(features)
        results: list[Tensor] = []
        for layer in self.denseblock:
            results.append(layer(torch.cat([*results, reduced], dim=1)))
        fused: Tensor = self.fuse(torch.cat([features, results[-1]], dim=1))
        return fused


class DeepFusion(nn.Module):
    """Sum and product of both maps, through a dense block, to 64 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [rectified(WIDTH * count, WIDTH) for count in (1, 2, 3, 4)]
        self.dense = nn.ModuleDict(
            {
                "fuse_down_mul": rectified(channels, channels),
                "res_main": DenseBlock(channels, WIDTH, layers),
                "fuse_main": rectified(channels, WIDTH),
            }
        )

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        """Two maps (B, C, h, w) to (B, 64, h, w)."""
        mixed = self.dense["fuse_down_mul"](rgb + thermal + rgb * thermal)
        fused: Tensor = self.dense["fuse_main"](self.dense["res_main"](mixed) + mixed)
        return fused


def context_module() -> DenseBlock:
    """Make a CMC: the same plan with 1 x k, k x 1 and dilated 3x3 convolutions, for k = 3, 5, 7."""
    width, layers = WIDTH // 4, []
    for count in (1, 2, 3):
        reach = 2 * count + 1
        steps = (
            conv_norm(count * width, width, (1, reach)),
            conv_norm(width, width, (reach, 1)),
            conv_norm(width, width, 3, dilation=reach),
        )
        layers.append(Wrapped({"cov": nn.Sequential(*steps)}))
    return DenseBlock(WIDTH, width, [*layers])


class ShallowFusion(nn.Module):
    """The colour map, weighted by the thermal map's strongest cells, which are added to it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(1, 1, 7, bias=False)
        self.tp = nn.Conv2d(channels, WIDTH, 1)
        self.ca = ChannelWeights(WIDTH)

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        """Two maps (B, C, h, w) to (B, 64, h, w)."""
        seen = self.conv1(thermal.amax(1, keepdim=True))
        projected = self.tp(rgb * torch.sigmoid(seen + rgb) + seen)
        fused: Tensor = self.ca(projected) * projected
        return fused


class DecoderBlock(nn.Module):
    """Three convolutions, each normalised twice, around a shortcut; then perhaps twice the size."""

    def __init__(self, double: bool = True) -> None:
        super().__init__()
        self.factor = 2 if double else 1
        for index in (1, 2, 3):
            steps = conv_norm(WIDTH, WIDTH), nn.BatchNorm2d(WIDTH), nn.ReLU()
            self.add_module(f"block{index}", nn.Sequential(*steps))

    def forward(self, features: Tensor) -> Tensor:
        """(B, 64, h, w) to (B, 64, 2h, 2w), or the same."""
        inner = features
        for index in (1, 2, 3):
            inner = self.get_submodule(f"block{index}")(inner)
        return enlarge_by(inner + features, self.factor)


class GMNet(HeadedBaseline, TwoResNets):
    """Encoders, five fusions, decoder."""

    architecture = "gmnet"
    thermal_pixels = GREY
    unused = (r"tp1\.|tp2\.|tpmid\.|convb\.|ss1\.|ss2\.|decoder1\.|con1\.|projectlayer\.|classify\.",)
    auxiliary = ("lfe1.", "lfe2.", "decoder2_withoutup.", "md.", "fd.", "classfier2.", "classfier3.")

    def _build(self) -> None:
        super()._build()
        for level, channels in enumerate((512, 1024, 2048), 1):
            self.add_module(f"densefuse{level}", DeepFusion(channels))
            self.add_module(f"in{level}", context_module())
            self.add_module(f"gc{level}", context_module())
            self.add_module(f"tp{level + 2}", nn.Conv2d(channels, WIDTH, 1))
        self.lfe1 = ShallowFusion(64)
        self.lfe2 = ShallowFusion(256)
        for level in (5, 4, 3, 2):
            self.add_module(f"decoder{level}", DecoderBlock())
        self.decoder2_withoutup = DecoderBlock(double=False)
        self.fd = DecoderBlock(double=False)
        self.md = DecoderBlock(double=False)
        for index, classes in ((1, self.config.num_classes), (2, 2), (3, 2)):
            self.add_module(f"classfier{index}", nn.Sequential(nn.Conv2d(WIDTH, classes, 1, bias=False)))

    def score_all(self, rgb: Tensor, thermal: Tensor, auxiliary: bool) -> dict[str, Tensor]:
        """`logits` (B, K, H, W), `binary` and `boundary` (B, 2, H, W)."""
        colour, heat = self.encoder_rgb(rgb), self.encoder_thermal(thermal[:, :1])
        part, fused, contexts = self.get_submodule, [], []
        for level in (1, 2, 3):
            fused.append(part(f"densefuse{level}")(colour[level + 1], heat[level + 1]))
            raised = part(f"in{level}")(fused[-1]) + part(f"tp{level + 2}")(colour[level + 1])
            contexts.append(part(f"gc{level}")(raised))
        features = part("decoder5")(contexts[2])
        features = part("decoder4")(contexts[1] + features)
        third = part("decoder3")(contexts[0] + features)
        last = part("decoder2")(third)
        logits = enlarge_by(part("classfier1")(last), 2)
        if not auxiliary:
            return {"logits": logits}
        shallow = self.lfe2(colour[1], heat[1]) + enlarge_by(fused[0], 2)
        binary = self.md(enlarge_by(shallow * self.decoder2_withoutup(third), 2))
        boundary = self.fd(self.lfe1(colour[0], heat[0]) * last)
        return {
            "logits": logits,
            "binary": enlarge_by(part("classfier2")(binary), 2),
            "boundary": enlarge_by(part("classfier3")(boundary), 2),
        }
