"""Tokens, and the small layers that work on them: stem, convolution, feed-forward part, attention, block.

TCFormer (arXiv 2204.08680, section 3.4). On the regular grid of stage 1 these are the blocks of PVTv2
(arXiv 2106.13797), which lack the token skip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.core.compat import (
    has_onednn_bfloat16,
    has_onednn_convolution,
    is_eager_on_cpu,
    is_exporting,
    onednn_convolution,
)
from efnet.core.precision import at_least_float32
from efnet.ops.linear import attention, linear
from efnet.ops.tokens import Size, TokenGrid, map_to_token, token_to_map


@dataclass(frozen=True)
class Tokens:
    """Features of tokens and where the tokens lie."""

    features: Tensor  # (B, N, C)
    grid: TokenGrid  # the token of every cell of the initial grid
    map_size: Size  # (H, W) of the map on which this stage's convolutions see the tokens

    @property
    def assignment(self) -> Tensor:
        """(B, h * w) token of each cell of the initial grid."""
        return self.grid.assignment

    def with_features(self, features: Tensor) -> Tokens:
        """The same tokens with other features (B, N, C')."""
        return replace(self, features=features)

    def to_map(self, map_size: Size | None = None) -> Tensor:
        """(B, C, H, W) the features as a map, by default of this stage's size."""
        return token_to_map(self.features, self.grid, map_size or self.map_size)

    def from_map(self, features: Tensor) -> Tensor:
        """(B, N, C) a map (B, C, H, W) at these tokens."""
        return map_to_token(features, self.grid)


CHUNK = 128
"""Channels of a hidden layer that inference computes at a time: they stay in the processor's cache."""

HALF_CHUNK = 512
"""The same in half precision, whose products are so fast that adding up their parts costs more."""


def layer_norm(width: int) -> nn.LayerNorm:
    """LayerNorm of blocks and stages.

    The stem, reduced keys and clusterings use PyTorch's epsilon 1e-5 instead, as the official network does:
    its recorded features depend on the difference.
    """
    return nn.LayerNorm(width, eps=1e-6)


def init_weights(module: nn.Module) -> None:
    """Initialise a module as PVTv2 and TCFormer do: 1x1 skips (`nn.Conv1d`) keep PyTorch's own values."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


class Linear(nn.Linear):
    """`nn.Linear`, computed by the matrix multiplication that is fastest on this machine."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        return linear(input, self.weight, self.bias)


Activation = Literal["relu", "relu6"]
_HIGHEST: dict[Activation, float] = {"relu": math.inf, "relu6": 6.0}


def conv_norm(
    features: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, activation: Activation | None = None
) -> Tensor:
    """Convolution without bias, batch normalisation, activation; in inference on a CPU in one pass.

    There the normalisation is a factor and a sum per channel, which become the convolution's weight and bias.
    The sums are the same, in another order; the map is written once in place of three times. A value that is
    not a number becomes 0 by a clamp of this pass: `read_state_dict` and training refuse such weights.

    Args:
        features: (B, C, h, w).
        conv: padding with zeros.
        norm: of the D channels of `conv`.
        activation: what follows.

    Returns:
        (B, D, h', w').
    """
    mean, variance, dtype = norm.running_mean, norm.running_var, _one_pass_type(features, conv.weight)
    if mean is None or variance is None or norm.training or dtype is None:
        features = norm(conv(features))
        if activation is None:
            return features
        return F.relu(features) if activation == "relu" else F.relu6(features)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    # The product keeps the order of the weight in memory; the map has that of its input.
    weight, bias = conv.weight * scale[:, None, None, None], norm.bias - mean * scale
    highest = None if activation is None else _HIGHEST[activation]
    return onednn_convolution(features.to(dtype), weight.to(dtype), bias.to(dtype), conv, highest)


def _one_pass_type(features: Tensor, weight: Tensor) -> torch.dtype | None:
    """The type in which oneDNN computes this, at once and without gradients; None where it does not."""
    if torch.is_grad_enabled() or not is_eager_on_cpu(features) or not has_onednn_convolution():
        return None
    casts = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if casts else torch.float32
    if dtype == torch.bfloat16 and not has_onednn_bfloat16():
        return None
    usable = dtype in (torch.float32, torch.bfloat16) and features.dtype in (torch.float32, dtype)
    return dtype if usable and weight.dtype == torch.float32 else None


class ConvNorm(nn.Sequential):
    """Convolution that keeps the size, batch normalisation, activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        dilation: int = 1,
        groups: int = 1,
        activation: Activation | None = "relu",
    ) -> None:
        padding = dilation * (kernel // 2)
        conv = nn.Conv2d(in_channels, out_channels, kernel, 1, padding, dilation, groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(out_channels))
        self.activation = activation

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, out_channels, h, w)."""
        conv, norm = self
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        return conv_norm(features, conv, norm, self.activation)


class PatchEmbedding(nn.Module):
    """Stem: overlapping 7x7 patches at stride 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 7, stride=4, padding=3)
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """(B, 3, H, W) to tokens (B, h * w, C) and (h, w)."""
        patches = self.proj(images)
        size = (patches.shape[2], patches.shape[3])
        return self.norm(patches.flatten(2).transpose(1, 2)), size


class TokenConv(nn.Conv2d):
    """3x3 convolution of the tokens' map, plus a 1x1 convolution (skip) of the tokens themselves.

    The map blurs tokens smaller than its cells; the skip keeps their detail. The regular grid needs none. A
    stride shrinks the map, not the number of tokens.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, groups: int = 1, skip: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups)
        self.skip = nn.Conv1d(in_channels, out_channels, 1, groups=groups, bias=False) if skip else None

    def forward(self, tokens: Tokens) -> Tensor:  # type: ignore[override]
        """Tokens with features (B, N, in_channels) to features (B, N, out_channels)."""
        features = tokens.from_map(super().forward(tokens.to_map()))
        if self.skip is None:
            return features
        # The 1x1 convolution as a matrix product, which needs no transposed tokens.
        weight = self.skip.weight.squeeze(-1)
        if self.groups > 1:
            return features + tokens.features * weight.squeeze(-1)
        return features + linear(tokens.features, weight)

    def of_channels(self, tokens: Tokens, channels: slice) -> Tensor:
        """Depthwise convolution of `channels` alone, without gradients: (B, N, c) to a new (B, N, c)."""
        weight, bias = self.weight[channels], None if self.bias is None else self.bias[channels]
        convolved = F.conv2d(tokens.to_map(), weight, bias, self.stride, self.padding, groups=len(weight))
        features = tokens.from_map(convolved)
        if self.skip is not None:
            features.addcmul_(tokens.features, self.skip.weight[channels].flatten().to(features.dtype))
        return features


class MLP(nn.Module):
    """Feed-forward part with a depthwise convolution in its middle."""

    def __init__(self, width: int, ratio: int, skip: bool) -> None:
        super().__init__()
        hidden = width * ratio
        self.fc1 = Linear(width, hidden)
        self.dwconv = TokenConv(hidden, hidden, groups=hidden, skip=skip)
        self.fc2 = Linear(hidden, width)

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens to features (B, N, C)."""
        # In an exported program the runtime decides about caching.
        if not torch.is_grad_enabled() and not is_exporting():
            return self._by_chunks(tokens)
        hidden = self.dwconv(tokens.with_features(self.fc1(tokens.features)))
        features: Tensor = self.fc2(F.gelu(hidden))
        return features

    def _by_chunks(self, tokens: Tokens) -> Tensor:
        """The same without storing the hidden layer: its channels meet only in the last product."""
        total: Tensor | None = None
        chunk = HALF_CHUNK if tokens.features.element_size() == 2 else CHUNK
        for start in range(0, self.fc1.out_features, chunk):
            channels = slice(start, start + chunk)
            hidden = linear(tokens.features, self.fc1.weight[channels], self.fc1.bias[channels])
            hidden = F.gelu(self.dwconv.of_channels(tokens.with_features(hidden), channels))
            bias = self.fc2.bias if total is None else None
            part = linear(hidden, self.fc2.weight[:, channels], bias)
            total = at_least_float32(part) if total is None else total.add_(part)
        assert total is not None
        return total.to(part.dtype)


class Attention(nn.Module):
    """Multi-head attention whose keys and values come from the source's map, reduced by patches.

    Queries and source have `width` channels, a multiple of `heads`. A patch of `reduction` cells a side makes
    one key; with 1 the source's tokens are the keys.
    """

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.reduction = reduction
        self.q = Linear(width, width)
        self.kv = Linear(width, 2 * width)
        self.proj = Linear(width, width)
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, stride=reduction)
            self.norm = nn.LayerNorm(width)

    def forward(self, queries: Tokens, source: Tokens, importance: Tensor | None = None) -> Tensor:
        """Attend from (B, N, C) to (B, N', C), biased by its importance (B, N', 1) (eq. 5): (B, N, C)."""
        keys, bias = source.features, None if importance is None else importance.squeeze(-1)
        if self.reduction > 1:
            keys = self.norm(self.sr(source.to_map(queries.map_size)).flatten(2).transpose(1, 2))
            if importance is not None:
                pooled = source.with_features(importance).to_map(queries.map_size)
                bias = F.avg_pool2d(pooled, self.reduction).flatten(1)
        q = self.q(queries.features).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, C/heads)
        k, v = self.kv(keys).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        features: Tensor = self.proj(attention(q, k, v, bias).transpose(1, 2).flatten(2))
        return features


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training, drop a sample's residual with a chance."""

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def forward(self, residual: Tensor) -> Tensor:
        """(B, N, C) to (B, N, C), some samples zero and the others scaled to keep the mean."""
        if not self.training or self.chance == 0:
            return residual
        kept = torch.rand(residual.shape[0], 1, 1, device=residual.device) >= self.chance
        return residual * (kept.to(residual.dtype) / (1 - self.chance))


class Block(nn.Module):
    """Transformer block: attention and feed-forward part, each on normalised features, as residuals."""

    def __init__(
        self, width: int, heads: int, ratio: int, reduction: int, drop_path: float, skip: bool
    ) -> None:
        super().__init__()
        self.norm1 = layer_norm(width)
        self.attn = Attention(width, heads, reduction)
        self.norm2 = layer_norm(width)
        self.mlp = MLP(width, ratio, skip)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, tokens: Tokens, source: Tokens | None = None, importance: Tensor | None = None
    ) -> Tokens:
        """Tokens to tokens; keys and values come from `source` (None: the tokens), with its importance."""
        queries = tokens.with_features(self.norm1(tokens.features))
        keys = queries if source is None else source.with_features(self.norm1(source.features))
        features = tokens.features + self.drop_path(self.attn(queries, keys, importance))
        normed = tokens.with_features(self.norm2(features))
        return tokens.with_features(features + self.drop_path(self.mlp(normed)))
