"""A ResNet with published names, written a second time: names, shapes and what they compute."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

COUNTS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 152: (3, 8, 36, 3)}


def published_shapes(depth: int) -> dict[str, tuple[int, ...]]:
    """Name to shape, as in the files `resnet18-*.pth` and its likes (without their batch counters)."""
    expansion = 1 if depth == 18 else 4
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **_norm("bn1", 64)}
    before = 64
    for layer, count in enumerate(COUNTS[depth], 1):
        width = 64 * 2 ** (layer - 1)
        for block in range(count):
            name = f"layer{layer}.{block}"
            kernels = [3, 3] if expansion == 1 else [1, 3, 1]
            inputs = [before, width, width]
            for index, kernel in enumerate(kernels, 1):
                out = width * expansion if index == len(kernels) else width
                shapes[f"{name}.conv{index}.weight"] = (out, inputs[index - 1], kernel, kernel)
                shapes |= _norm(f"{name}.bn{index}", out)
            if block == 0 and before != width * expansion:
                shapes[f"{name}.downsample.0.weight"] = (width * expansion, before, 1, 1)
                shapes |= _norm(f"{name}.downsample.1", width * expansion)
            before = width * expansion
    return shapes | {"fc.weight": (1000, before), "fc.bias": (1000,)}


def _norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


def published_state(depth: int) -> dict[str, Tensor]:
    """Random values, of a scale that keeps features near one."""
    generator = torch.Generator().manual_seed(depth)
    state = {}
    for name, shape in published_shapes(depth).items():
        values = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            state[name] = values / math.sqrt(math.prod(shape[1:]))
        elif name.endswith(("weight", "var")):
            state[name] = (1 + 0.1 * values).abs()
        else:
            state[name] = 0.05 * values
    return state


def plain_resnet(state: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """(B, 3, H, W) in float64 to the maps of five levels."""
    state = {name: value.double() for name, value in state.items()}

    def conv(name: str, norm: str, inputs: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        maps = F.conv2d(inputs, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        scale, shift = state[f"{norm}.weight"], state[f"{norm}.bias"]
        mean, var, scale, shift = (value[:, None, None] for value in (mean, var, scale, shift))
        return (maps - mean) / (var + 1e-5).sqrt() * scale + shift

    levels = [conv("conv1", "bn1", images, 2).relu()]
    maps = F.max_pool2d(levels[0], 3, 2, 1)
    for layer in range(1, 5):
        block = 0
        while f"layer{layer}.{block}.conv1.weight" in state:
            name = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            last = 3 if f"{name}.conv3.weight" in state else 2
            inner = maps
            for index in range(1, last + 1):
                # The first 3x3 convolution strides.
                strides = stride if index == last - 1 else 1
                inner = conv(f"{name}.conv{index}", f"{name}.bn{index}", inner, strides)
                inner = inner.relu() if index < last else inner
            if f"{name}.downsample.0.weight" in state:
                maps = conv(f"{name}.downsample.0", f"{name}.downsample.1", maps, stride)
            maps = (maps + inner).relu()
            block += 1
        levels.append(maps)
    return levels
