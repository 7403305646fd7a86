"""MiT-B0 with published names: its shapes, and what it computes, written from the paper alone."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

DEPTHS, WIDTHS, HEADS, REDUCTIONS = (2, 2, 2, 2), (32, 64, 160, 256), (1, 2, 5, 8), (8, 4, 2, 1)


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of `mit_b0.pth`."""
    shapes: dict[str, tuple[int, ...]] = {}
    before = 3
    for stage, (depth, width, reduction) in enumerate(zip(DEPTHS, WIDTHS, REDUCTIONS, strict=True), start=1):
        kernel = 7 if stage == 1 else 3
        shapes[f"patch_embed{stage}.proj.weight"] = (width, before, kernel, kernel)
        norms = [f"patch_embed{stage}.norm", f"norm{stage}"]
        biases = {f"patch_embed{stage}.proj": width}
        for block in range(depth):
            prefix = f"block{stage}.{block}"
            norms += [f"{prefix}.norm1", f"{prefix}.norm2"]
            weights: dict[str, tuple[int, ...]] = {
                "attn.q": (width, width),
                "attn.kv": (2 * width, width),
                "attn.proj": (width, width),
                "mlp.fc1": (4 * width, width),
                "mlp.dwconv.dwconv": (4 * width, 1, 3, 3),
                "mlp.fc2": (width, 4 * width),
            }
            if reduction > 1:
                weights["attn.sr"] = (width, width, reduction, reduction)
                norms.append(f"{prefix}.attn.norm")
            for name, shape in weights.items():
                shapes[f"{prefix}.{name}.weight"] = shape
                biases[f"{prefix}.{name}"] = shape[0]
        for name in norms:
            shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)
        shapes |= {f"{name}.bias": (rows,) for name, rows in biases.items()}
        before = width
    return shapes | {"head.weight": (1000, 256), "head.bias": (1000,)}


class Plain:
    """MiT as SegFormer's section 3.1 writes it, on published names, in float64."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = {name: value.double() for name, value in state.items()}

    def __call__(self, maps: Tensor) -> list[Tensor]:
        stages = []
        for stage in range(1, 5):
            kernel, stride = (7, 4) if stage == 1 else (3, 2)
            maps = self.convolve(maps, f"patch_embed{stage}.proj", stride=stride, padding=kernel // 2)
            size = maps.shape[2:]
            tokens = self.norm(maps.flatten(2).transpose(1, 2), f"patch_embed{stage}.norm", 1e-5)
            for block in range(DEPTHS[stage - 1]):
                name = f"block{stage}.{block}"
                tokens = tokens + self.attend(self.norm(tokens, f"{name}.norm1"), name, stage - 1, size)
                tokens = tokens + self.feed(self.norm(tokens, f"{name}.norm2"), f"{name}.mlp", size)
            maps = self.norm(tokens, f"norm{stage}").transpose(1, 2).unflatten(2, size)
            stages.append(maps)
        return stages

    def linear(self, tokens: Tensor, name: str) -> Tensor:
        return F.linear(tokens, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def norm(self, tokens: Tensor, name: str, epsilon: float = 1e-6) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return F.layer_norm(tokens, weight.shape, weight, bias, epsilon)

    def convolve(self, maps: Tensor, name: str, **options: int) -> Tensor:
        return F.conv2d(maps, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **options)

    def attend(self, tokens: Tensor, name: str, stage: int, size: torch.Size) -> Tensor:
        """Equations 1 and 2, a head at a time."""
        reduced = tokens
        if REDUCTIONS[stage] > 1:
            maps = tokens.transpose(1, 2).unflatten(2, size)
            maps = self.convolve(maps, f"{name}.attn.sr", stride=REDUCTIONS[stage])
            reduced = self.norm(maps.flatten(2).transpose(1, 2), f"{name}.attn.norm", 1e-5)
        queries = self.linear(tokens, f"{name}.attn.q").chunk(HEADS[stage], dim=-1)
        keys, values = self.linear(reduced, f"{name}.attn.kv").chunk(2, dim=-1)
        read = []
        for q, k, v in zip(
            queries, keys.chunk(HEADS[stage], -1), values.chunk(HEADS[stage], -1), strict=True
        ):
            read.append((q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1) @ v)
        return self.linear(torch.cat(read, dim=-1), f"{name}.attn.proj")

    def feed(self, tokens: Tensor, name: str, size: torch.Size) -> Tensor:
        """Equation 3."""
        hidden = self.linear(tokens, f"{name}.fc1").transpose(1, 2).unflatten(2, size)
        hidden = self.convolve(hidden, f"{name}.dwconv.dwconv", padding=1, groups=hidden.shape[1])
        return self.linear(F.gelu(hidden.flatten(2).transpose(1, 2)), f"{name}.fc2")
