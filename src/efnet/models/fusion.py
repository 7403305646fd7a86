"""From two modalities to one map: MIF (EFNet section II-B) and the plain ways of table IV."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efnet.core.compat import is_exporting
from efnet.core.precision import at_least_float32
from efnet.models.config import Fusion
from efnet.models.layers import Linear, layer_norm
from efnet.ops.tokens import Size, merge_windows, split_windows

WINDOW = 8
HEAD_WIDTH = 32


class WindowCrossAttention(nn.Module):
    """Queries of one modality attend to the other inside each window; heads have at least 32 channels."""

    def __init__(self, width: int, window: int = WINDOW) -> None:
        super().__init__()
        most = max(1, width // HEAD_WIDTH)
        self.heads = next(heads for heads in range(most, 0, -1) if width % heads == 0)
        self.window = window
        self.q = Linear(width, width)
        self.kv = Linear(width, 2 * width)
        self.proj = Linear(width, width)

    def forward(self, queries: Tensor, source: Tensor) -> Tensor:
        """Both (B, h, w, C); returns (B, h, w, C)."""
        size: Size = (queries.shape[1], queries.shape[2])
        batch = queries.shape[0]
        q, k, v = (
            self._split_heads(split_windows(part, self.window))
            for part in (self.q(queries), *self.kv(source).chunk(2, dim=-1))
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=self._padding(size, batch, q))
        windows = attended.transpose(1, 2).flatten(2)
        windows = windows.view(batch, -1, *windows.shape[1:])
        features: Tensor = self.proj(merge_windows(windows, self.window, size))
        return features

    def _split_heads(self, windows: Tensor) -> Tensor:
        """(B, windows, cells, C) to (B * windows, heads, cells, C/heads): kernels take four dimensions."""
        windows = windows.flatten(0, 1)
        return windows.view(*windows.shape[:2], self.heads, -1).transpose(1, 2)

    def _padding(self, size: Size, batch: int, like: Tensor) -> Tensor | None:
        """(B * windows, 1, 1, cells) bias that hides padded keys; None where nothing is padded."""
        # Symbols are sizes of an exported program that must serve any.
        known = not is_exporting() or (isinstance(size[0], int) and isinstance(size[1], int))
        if known and size[0] % self.window == 0 and size[1] % self.window == 0:
            return None
        real = torch.ones(batch, *size, 1, dtype=torch.bool, device=like.device)
        cells = split_windows(real, self.window).squeeze(-1).flatten(0, 1)[:, None, None, :]
        # A large number, not infinity: a row that sees nothing must not become NaN.
        return torch.zeros_like(cells, dtype=like.dtype).masked_fill(~cells, -1e4)


class ChannelAttention(nn.Module):
    """Channel scores from the map's mean, maximum and variance, so that a window depends on the others."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 3 * width // 2
        self.mlp = nn.Sequential(nn.Linear(3 * width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, features: Tensor) -> Tensor:
        """(B, h, w, C) to scores (B, 1, 1, C) between 0 and 1."""
        cells = at_least_float32(features.flatten(1, 2))
        # Two sums over rows: PyTorch's variance along them is many times slower on a CPU.
        mean = cells.mean(1)
        variance = (cells - mean[:, None]).square().mean(1)
        statistics = torch.cat([mean, cells.amax(1), variance], dim=-1).to(features.dtype)
        scores: Tensor = self.mlp(statistics).sigmoid()
        return scores[:, None, None, :]


class MIF(nn.Module):
    """Multimodal feature interaction and fusion: F' = F + s * I for each modality, then their sum.

    I is what window cross-attention brings from the other modality, s its channel scores.
    """

    def __init__(self, width: int, window: int = WINDOW) -> None:
        super().__init__()
        self.rgb_from_thermal = WindowCrossAttention(width, window)
        self.thermal_from_rgb = WindowCrossAttention(width, window)
        self.rgb_channels = ChannelAttention(width)
        self.thermal_channels = ChannelAttention(width)

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        """Both (B, h, w, C); returns (B, h, w, C)."""
        to_rgb = self.rgb_from_thermal(rgb, thermal)
        to_thermal = self.thermal_from_rgb(thermal, rgb)
        rgb = rgb + self.rgb_channels(to_rgb) * to_rgb
        thermal = thermal + self.thermal_channels(to_thermal) * to_thermal
        return rgb + thermal


class Add(nn.Module):
    """The sum of both maps."""

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        """Both (B, h, w, C); returns (B, h, w, C)."""
        return rgb + thermal


class Cat(nn.Module):
    """Both maps side by side, brought back to their width by a 3x3 convolution and LayerNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * width, width, 3, padding=1)
        self.norm = layer_norm(width)

    def forward(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        """Both (B, h, w, C); returns (B, h, w, C)."""
        both = torch.cat([rgb, thermal], dim=-1).permute(0, 3, 1, 2)
        fused: Tensor = self.norm(self.conv(both).permute(0, 2, 3, 1))
        return fused


def make_fusion(kind: Fusion, width: int) -> nn.Module:
    """Make the module of a configuration's `fusion`."""
    if kind == "mif":
        return MIF(width)
    return Cat(width) if kind == "cat" else Add()
