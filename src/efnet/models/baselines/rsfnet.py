"""RSFNet (Li 2024, arXiv 2306.10364) as in its authors' code: the variant with ResNet-50 and ResNet-18.

They released that one; the re-parameterised blocks of the paper are switched off in it. Gates for whole
images weigh the modalities, which exchange at four levels and have a decoder each. Colours are blue,
green, red, and there is no ReLU behind the stems' normalisation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.baselines.base import HeadedBaseline, Pixels, conv, conv_norm, enlarge_by
from efnet.models.baselines.pstnet import resize
from efnet.models.baselines.resnet import ResNet, load_resnets, pool

_WIDTHS = (64, 128, 256, 256)  # compressed maps at strides 4, 8, 16, 32
_PIXELS = ((58.6573, 65.9755, 56.4990, 100.8296), (60.2980, 59.0457, 58.0989, 47.1224))
"""Mean and deviation of blue, green, red and thermal, from 0 to 255."""


def pixels(*channels: int) -> Pixels:
    """Constants of three channels of the above."""
    mean, std = (tuple(values[channel] / 255 for channel in channels) for values in _PIXELS)
    return Pixels((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


class Compression(nn.Module):
    """Channels weighted by a convolution along their means, and fewer of them."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        reach = int((math.log2(in_channels) + 1) / 2)
        reach += 1 - reach % 2
        self.conv = nn.Conv1d(1, 1, reach, padding=reach // 2, bias=False)
        self.compress = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, out_channels, h, w)."""
        weights = torch.sigmoid(self.conv(features.mean((2, 3))[:, None])[:, 0, :, None, None])
        fewer: Tensor = self.compress(features * weights + features)
        return fewer


class Exchange(nn.Module):
    """Each modality's map plus what both see, times its gate."""

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        for name in ("rgb", "inf"):
            self.add_module(f"{name}_1x1", conv_norm(channels, width, 1, nn.ReLU()))
            self.add_module(f"{name}_kxk", conv(width, width, 5, bias=False))
            self.add_module(f"{name}_fusion", conv_norm(2 * width, channels, 1, nn.ReLU()))

    def forward(self, rgb: Tensor, thermal: Tensor, gates: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Two maps (B, C, h, w), and gates (B, 1, 1, 1), to two maps."""
        part, names = self.get_submodule, ("rgb", "inf")
        near = [part(f"{name}_1x1")(maps) for name, maps in zip(names, (rgb, thermal), strict=True)]
        wide = [part(f"{name}_kxk")(features) for name, features in zip(names, near, strict=True)]
        first, second = (
            gates[index]
            * part(f"{names[index]}_fusion")(
                torch.cat([wide[index] * torch.sigmoid(wide[1 - index]), near[index]], dim=1)
            )
            for index in (0, 1)
        )
        return first + rgb, second + thermal


class Aggregation(nn.Module):
    """A decoder's step: a finer map and a coarser one, each multiplied by what the other becomes."""

    def __init__(self, fine: int, coarse: int) -> None:
        super().__init__()
        self.conv_l2d = conv(fine, coarse)
        self.conv_d21 = conv(coarse, fine)
        self.conv3 = conv(fine + coarse, fine)
        self.bn3 = nn.BatchNorm2d(fine)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(B, L, h, w) and (B, D, h', w') to (B, L, h, w)."""
        size = fine.shape[2:]
        first = F.relu(self.conv_l2d(fine) * resize(coarse, size))
        second = F.relu(resize(self.conv_d21(coarse), size) * fine)
        return F.relu(self.bn3(self.conv3(torch.cat([first, second], dim=1))))


class Head(nn.Module):
    """Logits of a map."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.cls = nn.Sequential(
            conv(channels, 128, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Dropout2d(0.1),
            nn.Conv2d(128, num_classes, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, K, h, w)."""
        logits: Tensor = self.cls(features)
        return logits


class RSFNet(HeadedBaseline):
    """Encoders, gates, four exchanges, two decoders."""

    architecture = "rsfnet"
    blue_first = True
    rgb_pixels = pixels(0, 1, 2)
    thermal_pixels = pixels(3, 3, 3)
    load_encoder = load_resnets
    auxiliary = ("aux1.", "aux2.")
    renames = (
        (r"layer0_(rgb|th)\.0\.", r"\1.conv1."),
        (r"layer0_(rgb|th)\.1\.", r"\1.bn1."),
        (r"layer([1-4])_(rgb|th)\.", r"\2.layer\1."),
    )

    def _build(self) -> None:
        self.rgb = ResNet(50)
        self.th = ResNet(18)
        for index, width in ((1, self.rgb.widths[4]), (2, self.th.widths[4])):
            self.add_module(f"fc{index}", nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 1)))
        for level, width in enumerate(_WIDTHS, 1):
            self.add_module(f"rgb_down{level}", Compression(self.rgb.widths[level], width))
            self.add_module(f"th_down{level}", Compression(self.th.widths[level], width))
            self.add_module(f"gate{level}", Exchange(width))
        for side in ("rgb", "th"):
            for level in (3, 2, 1):
                step = Aggregation(_WIDTHS[level - 1], _WIDTHS[level])
                self.add_module(f"fam{level + 2}{level + 1}_{side}", step)
        self.cls = Head(_WIDTHS[0], self.config.num_classes)
        self.aux1 = Head(_WIDTHS[1], self.config.num_classes)
        self.aux2 = Head(_WIDTHS[2], self.config.num_classes)

    @staticmethod
    def _encode(encoder: ResNet, images: Tensor) -> list[Tensor]:
        """Maps at strides 4, 8, 16, 32."""
        maps = [pool(encoder.bn1(encoder.conv1(images)))]
        for level in range(1, encoder.levels):
            maps.append(encoder.get_submodule(f"layer{level}")(maps[-1]))
        return maps[1:]

    def score_all(self, rgb: Tensor, thermal: Tensor, auxiliary: bool) -> dict[str, Tensor]:
        """`logits`, `aux_8` and `aux_16` (B, K, H, W), `gate_rgb` (B, 1)."""
        part = self.get_submodule
        colour, heat = self._encode(self.rgb, rgb), self._encode(self.th, thermal)
        confidences = [
            torch.sigmoid(part(f"fc{index}")(maps[3].mean((2, 3))))
            for index, maps in ((1, colour), (2, heat))
        ]
        share = confidences[0] / (confidences[0] + confidences[1] + 1e-7)
        gates = share[..., None, None], 1 - share[..., None, None]
        pairs = []
        for level, (first, second) in enumerate(zip(colour, heat, strict=True), 1):
            fewer = part(f"rgb_down{level}")(first), part(f"th_down{level}")(second)
            pairs.append(part(f"gate{level}")(*fewer, gates))
        sums, sides = {}, list(pairs[3])
        for level in (3, 2, 1):
            for index, side in enumerate(("rgb", "th")):
                step = part(f"fam{level + 2}{level + 1}_{side}")
                sides[index] = step(pairs[level - 1][index], sides[index])
            sums[level] = sides[0] + sides[1]
        logits = enlarge_by(self.cls(sums[1]), 4)
        if not auxiliary:
            return {"logits": logits}
        others = {"aux_8": self.aux1(sums[2]), "aux_16": self.aux2(sums[3]), "gate_rgb": share}
        others["aux_8"] = enlarge_by(others["aux_8"], 8)
        others["aux_16"] = enlarge_by(others["aux_16"], 16)
        return {"logits": logits} | others
