"""ResNet (He 2016, arXiv 1512.03385) as an encoder of five maps, named as in torchvision's weight files."""

from __future__ import annotations

import os
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from efnet.core.errors import InputError
from efnet.models.baselines.base import COUNTER, PaddedBaseline
from efnet.models.weights import LoadReport, describe_misfit, fill_encoders, read_state_dict


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (figure 5, left)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, width, h / stride, w / stride)."""
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(features)))))
        return F.relu(inner + (features if self.downsample is None else self.downsample(features)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 around a shortcut (figure 5, right); the 3x3 one strides, as in the published weights."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, 4 * width, h / stride, w / stride)."""
        inner = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(features))))))
        inner = self.bn3(self.conv3(inner))
        return F.relu(inner + (features if self.downsample is None else self.downsample(features)))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """A projection where a block changes the shape."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


_BLOCKS: dict[int, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    50: (Bottleneck, (3, 4, 6, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def pool(features: Tensor) -> Tensor:
    """Halve a map, as between the stem and layer 1."""
    return F.max_pool2d(features, 3, stride=2, padding=1)


class ResNet(nn.Module):
    """Five levels at strides 2, 4, 8, 16, 32, of `widths` channels; `depth` is 18, 50 or 152.

    It may have fewer `layers` than four, and no stem.
    """

    def __init__(self, depth: int, in_channels: int = 3, layers: int = 4, stem: bool = True) -> None:
        super().__init__()
        block, counts = _BLOCKS[depth]
        self.depth = depth
        self.widths = (64, *(width * block.expansion for width in (64, 128, 256, 512)[:layers]))
        self.levels = len(self.widths)
        if stem:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for level, count in enumerate(counts[:layers], 1):
            first = block(channels, 32 << level, 2 if level > 1 else 1)
            channels = self.widths[level]
            rest = (block(channels, 32 << level, 1) for _ in range(count - 1))
            self.add_module(f"layer{level}", nn.Sequential(first, *rest))
        self.apply(init_convolution)
        for module in self.modules():
            # A fresh block starts as its shortcut (arXiv 1706.02677, section 5.1): dozens of sums of noise
            # would overflow before training has normalised them. Authors start from pretrained weights.
            if isinstance(module, BasicBlock | Bottleneck):
                last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
                nn.init.zeros_(last.weight)

    def level(self, index: int, features: Tensor) -> Tensor:
        """Compute a level: 0 takes images (B, in_channels, H, W), every other the map of the level before."""
        if index == 0:
            return F.relu(self.bn1(self.conv1(features)))
        if index == 1:
            features = pool(features)
        deeper: Tensor = self.get_submodule(f"layer{index}")(features)
        return deeper

    def pooled_stem(self, images: Tensor) -> Tensor:
        """(B, in_channels, H, W) to the input of `layer1`, (B, 64, H / 4, W / 4)."""
        return pool(self.level(0, images))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, in_channels, H, W) to the maps of all levels."""
        maps = [images]
        for index in range(self.levels):
            maps.append(self.level(index, maps[-1]))
        return maps[1:]


def init_convolution(module: nn.Module) -> None:
    """Initialise a convolution as ResNet does (He 2015, arXiv 1502.01852): for `nn.Module.apply`."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def load_resnets(network: nn.Module, path: str | os.PathLike[str]) -> LoadReport:
    """Fill every ResNet of a network from one file with torchvision's names.

    A stem for one channel gets the mean of the three channels' filters, as in all authors' code. Of encoders
    of several depths those of the file's depth are filled.

    Raises:
        InputError: the file cannot be read, is not a ResNet, or is one of another depth.
    """
    state = read_state_dict(path)
    if "conv1.weight" not in state or "layer1.0.conv1.weight" not in state:
        raise InputError(f"{path}: not a ResNet checkpoint (no conv1.weight and layer1.0.conv1.weight in it)")
    encoders = [module for module in network.modules() if isinstance(module, ResNet)]
    left_over = [name for name in state if not any(name in encoder.state_dict() for encoder in encoders)]
    depths = {encoder.depth for encoder in encoders if _misfit(encoder, state) is None}

    def fit(encoder: ResNet) -> dict[str, Tensor]:
        if depths and encoder.depth not in depths:
            return {}
        detail = _misfit(encoder, state)
        if detail is None:
            return _values(encoder, state)
        raise InputError(
            f"{path}: weights of another network ({detail}); a ResNet-{encoder.depth} is needed, "
            f"such as resnet{encoder.depth}-*.pth"
        )

    return fill_encoders(network, path, ResNet, fit, left_over)


def _values(encoder: ResNet, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the file's entries for an encoder."""
    own = encoder.state_dict()
    values = {name: value for name, value in state.items() if name in own}
    stem = values.get("conv1.weight")
    if stem is not None and own["conv1.weight"].shape[1] == 1 and stem.shape[1:] == (3, 7, 7):
        values["conv1.weight"] = stem.mean(1, keepdim=True)
    return values


def _misfit(encoder: ResNet, state: dict[str, Tensor]) -> str | None:
    """Describe the first entry that does not fit an encoder; None: all do."""
    own, values = encoder.state_dict(), _values(encoder, state)
    missing = [name for name in own if name not in values and not name.endswith(COUNTER)]
    layers = {name.partition(".")[0] for name in own if name.startswith("layer")}
    surplus = [name for name in state if name.partition(".")[0] in layers and name not in own]
    return describe_misfit(own, {} if missing or surplus else values, missing, surplus)


class TwoResNets(PaddedBaseline):
    """Two encoders of one depth, the thermal one of one channel; a subclass adds what follows them."""

    depth: ClassVar[int] = 50
    renames: ClassVar[tuple[tuple[str, str], ...]] = ((r"encoder_(rgb|thermal)_", r"encoder_\1."),)
    load_encoder = load_resnets

    def _build(self) -> None:
        self.encoder_rgb = ResNet(self.depth)
        self.encoder_thermal = ResNet(self.depth, in_channels=1)
