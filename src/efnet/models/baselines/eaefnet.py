"""EAEFNet (Liang 2023, arXiv 2303.15710) as in its authors' code: one network for MFNet, another for PST900.

Two ResNets exchange at five levels. A gate per channel divides each map into a part that both modalities
support, which channel weights enhance, and the rest; spatial weights then merge both. The decoder refines the
shallow maps by an attention map from the deep ones, and gives two outputs: the MFNet network adds them, the
PST900 network uses the lower one.

The gate of the code is not the one of the paper: it compares every thermal channel with the *first* RGB
channel. With several pairs in training it also exchanges gates among them, so that a result depends on its
batch. Here every pair is computed by itself, as the authors test; `mix_pairs` restores their training.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.models.baselines.base import PLAIN, HeadedBaseline, Pixels, conv, conv_norm, enlarge_by
from efnet.models.baselines.resnet import TwoResNets
from efnet.models.baselines.rtfnet import TransBottleneck


class Perceptron(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Linear(channels, hidden)
        self.up = nn.Linear(hidden, channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C) to the same."""
        raised: Tensor = self.up(F.gelu(self.down(features)))
        return raised


class EAEF(nn.Module):
    """Explicit attention-enhanced fusion: two maps in, two maps out.

    The descriptors' network is shared and twice as wide as its input, with a learned factor of the gate; in
    the network for PST900 (`small`) each modality has its own narrow one, and the factor is C.
    """

    def __init__(self, channels: int, small: bool) -> None:
        super().__init__()
        self.mixes_pairs = False
        self.small = small
        if small:
            self.mlp_pool_rgb = Perceptron(channels, channels // 16)
            self.mlp_pool_t = Perceptron(channels, channels // 16)
            self.T_c: float | nn.Parameter = float(channels)
        else:
            self.mlp_pool = Perceptron(channels, 2 * channels)
            self.T_c = nn.Parameter(torch.tensor(float(channels)))
        # Its groups hold two neighbouring channels of one modality: RGB and thermal do not meet in it.
        self.dwconv = nn.Conv2d(2 * channels, 2 * channels, 7, padding=3, groups=channels)
        self.cse = Perceptron(2 * channels, channels // 8)
        self.sse_r = nn.ModuleDict({"conv1": nn.Conv2d(channels, 1, 1)})
        self.sse_t = nn.ModuleDict({"conv1": nn.Conv2d(channels, 1, 1)})

    def gate(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        """Two maps (B, C, h, w) to the gates (B, C, 1, 1) of their common part."""
        networks = (self.mlp_pool_rgb, self.mlp_pool_t) if self.small else (self.mlp_pool, self.mlp_pool)
        vectors = (network(maps.mean((2, 3))) for network, maps in zip(networks, (rgb, thermal), strict=True))
        first, second = (vector / vector.norm(dim=1, keepdim=True) for vector in vectors)
        if self.mixes_pairs and self.training:
            product = (first.diagonal()[:, None] * second).t().reshape(second.shape)
        else:
            product = first[:, :1] * second
        return torch.sigmoid(self.T_c * product)[..., None, None]

    def forward(self, rgb: Tensor, thermal: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps (B, C, h, w) to the merged one and the thermal encoder's."""
        gate = self.gate(rgb, thermal)
        common = rgb * gate, thermal * gate
        peaks = self.dwconv(torch.cat(common, dim=1)).amax((2, 3))
        weights = torch.sigmoid(self.cse(peaks))[..., None, None].chunk(2, dim=1)
        rgb, thermal = (
            features * (1 - gate) + part * weight
            for features, part, weight in zip((rgb, thermal), common, weights, strict=True)
        )
        shares = torch.cat([self.sse_r["conv1"](rgb), self.sse_t["conv1"](thermal)], dim=1).softmax(dim=1)
        thermal = shares[:, 1:] * thermal
        return shares[:, :1] * rgb + thermal, thermal


class SqueezeExcite(nn.Module):
    """Channels weighted by a small network on their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 4), nn.GELU(), nn.Linear(channels // 4, channels)
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        return features * torch.sigmoid(self.fc(features.mean((2, 3))))[..., None, None]


class ContextModule(nn.Module):
    """GCM: four branches of growing reach, weighted by one shared network, and a shortcut."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.branch0 = nn.Sequential(conv_norm(in_channels, width, 1))
        for branch, reach in ((1, 3), (2, 5), (3, 7)):
            self.add_module(f"branch{branch}", conv_norm(in_channels, width, 1))
            self.add_module(f"branch{branch}_1", conv_norm(width, width, (1, reach)))
            self.add_module(f"branch{branch}_2", conv_norm(width, width, (reach, 1)))
        self.se = SqueezeExcite(width)
        self.conv_res = nn.Conv2d(in_channels, width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, width, h, w)."""
        total = self.conv_res(features) + self.se(self.branch0(features))
        for branch in (1, 2, 3):
            part = features
            for step in ("", "_1", "_2"):
                part = self.get_submodule(f"branch{branch}{step}")(part)
            total = total + self.se(part)
        return F.relu(total)


class Aggregation(nn.Module):
    """Three maps at strides 32, 16 and 8 to one at stride 8, by products and concatenations.

    The network for MFNet creates `se` and does not use it.
    """

    def __init__(self, width: int, out_channels: int, squeeze: bool) -> None:
        super().__init__()
        for index, channels in enumerate((width, width, width, width, 2 * width), 1):
            self.add_module(f"conv_upsample{index}", conv_norm(channels, channels))
        self.conv_concat2 = conv_norm(2 * width, 2 * width)
        self.conv_concat3 = conv_norm(3 * width, 3 * width)
        self.conv4 = conv_norm(3 * width, 3 * width)
        self.se: nn.Module = SqueezeExcite(3 * width) if squeeze else nn.Identity()
        self.conv = nn.Conv2d(3 * width, out_channels, 1)

    def forward(self, deep: Tensor, middle: Tensor, fine: Tensor) -> Tensor:
        """(B, width, h, w) three times, each twice the size before, to (B, out_channels, 4h, 4w)."""
        step = {index: self.get_submodule(f"conv_upsample{index}") for index in range(1, 6)}
        raised = enlarge_by(deep, 2)
        product = step[1](raised) * middle
        both = self.conv_concat2(torch.cat([product, step[4](raised)], dim=1))
        product = step[2](enlarge_by(raised, 2)) * step[3](enlarge_by(middle, 2)) * fine
        three = self.conv_concat3(torch.cat([product, step[5](enlarge_by(both, 2))], dim=1))
        joined: Tensor = self.conv(self.se(self.conv4(three)))
        return joined


class DilatedSum(nn.Module):
    """The sum of three dilated convolutions, each followed by the same normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for rate in (6, 12, 18):
            self.add_module(f"conv_{rate}", conv(channels, channels, dilation=rate))
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        views = [self.bn(self.get_submodule(f"conv_{rate}")(features)) for rate in (6, 12, 18)]
        total: Tensor = views[0] + views[1] + views[2]
        return total


class TurboDecoder(nn.Module):
    """Both outputs from five fused maps."""

    def __init__(self, num_classes: int, small: bool, width: int = 64) -> None:
        super().__init__()
        for name, channels in (
            *(("rfb2_1", 512), ("rfb3_1", 1024), ("rfb4_1", 2048)),
            *(("rfb0_2", 64), ("rfb1_2", 256), ("rfb5_2", 512)),
        ):
            self.add_module(name, ContextModule(channels, width))
        self.agg1 = Aggregation(width, num_classes, squeeze=small)
        self.agg1_splat = Aggregation(width, 1, squeeze=small)
        self.miniaspp: nn.Module = nn.Identity() if small else DilatedSum(width)
        for index in (1, 2):
            self.add_module(f"agant{index}", conv_norm(width, width, 3, nn.ReLU(), ("0", "1")))
            blocks = (TransBottleneck(width, width, double=last) for last in (False, False, True))
            self.add_module(f"deconv{index}", nn.Sequential(*blocks))
        self.out2_conv = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: list[Tensor], with_high: bool) -> tuple[Tensor, Tensor | None]:
        """Five maps (strides 4, 4, 8, 16, 32) to the lower and the higher logits, (B, K, H, W) each."""
        context = {name: part for name, part in self.named_children() if name.startswith("rfb")}
        fine, middle, deep = (
            context["rfb2_1"](maps[2]),
            context["rfb3_1"](maps[3]),
            context["rfb4_1"](maps[4]),
        )
        attention = torch.sigmoid(self.agg1_splat(deep, middle, fine))
        raised = enlarge_by(attention, 2)
        shallow = (maps[0] + maps[0] * raised, maps[1] + maps[1] * raised, maps[2] + maps[2] * attention)
        first, second, third = (
            context[name](refined)
            for name, refined in zip(("rfb0_2", "rfb1_2", "rfb5_2"), shallow, strict=True)
        )
        total = enlarge_by(third, 2) + second + enlarge_by(fine, 2) + enlarge_by(middle, 4)
        features = self.miniaspp(total + first + enlarge_by(deep, 8))
        for name in ("agant1", "deconv1", "agant2", "deconv2"):
            features = self.get_submodule(name)(features)
        high = enlarge_by(self.agg1(deep, middle, fine), 8) if with_high else None
        return self.out2_conv(features), high


class EAEFNet(HeadedBaseline, TwoResNets):
    """Encoders, five fusions, decoder. `depth` is that of the encoders."""

    architecture = "eaefnet"
    depth = 152
    small: ClassVar[bool] = False
    rgb_pixels = PLAIN
    thermal_pixels = PLAIN
    renames = (
        (r"FA_encoder\.encoder_(rgb|thermal)_", r"encoder_\1."),
        (r"FA_encoder\.", ""),
        ("Turbo_decoder", "decoder"),
    )
    unused: ClassVar[tuple[str, ...]] = (r"Turbo_decoder\.agg1(_splat)?\.se\.",)

    def _build(self) -> None:
        super()._build()
        for level, width in enumerate(self.encoder_rgb.widths):
            self.add_module(f"idam_{level}", EAEF(width, self.small))
        self.decoder = TurboDecoder(self.config.num_classes, self.small)

    def score_all(self, rgb: Tensor, thermal: Tensor, auxiliary: bool) -> dict[str, Tensor]:
        """`logits` (B, K, H, W), the sum of `high` and `low`; of the network for PST900 `low` alone."""
        thermal, maps = thermal[:, :1], []
        for level in range(self.encoder_rgb.levels):
            # The first fusion stands behind the pooling, not before it.
            steps = (
                encoder.pooled_stem if level == 0 else encoder.get_submodule(f"layer{level}")
                for encoder in (self.encoder_rgb, self.encoder_thermal)
            )
            rgb, thermal = (step(features) for step, features in zip(steps, (rgb, thermal), strict=True))
            rgb, thermal = self.get_submodule(f"idam_{level}")(rgb, thermal)
            maps.append(rgb)
        low, high = self.decoder(maps, with_high=auxiliary or not self.small)
        if high is None:
            return {"logits": low}
        return {"logits": low if self.small else high + low, "high": high, "low": low}

    def mix_pairs(self) -> None:
        """In training, exchange the gates among the pairs of a batch, as the authors' code does."""
        for module in self.modules():
            if isinstance(module, EAEF):
                module.mixes_pairs = True


class EAEFNet50(EAEFNet, architecture="eaefnet50", depth=50):
    """EAEFNet with ResNet-50, as EFNet's table III has it."""


class EAEFNetPST900(EAEFNet, architecture="eaefnet_pst900", small=True):
    """The authors' other network, for PST900: images at 480x640, values not divided by 255."""

    rgb_pixels = Pixels((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
    thermal_pixels = rgb_pixels
    input_size = (480, 640)
    unused = ()
    auxiliary = ("decoder.agg1.",)
