"""Square windows of a feature map, padded at the right and bottom where the size is not a multiple."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def split_windows(features: Tensor, size: int) -> Tensor:
    """Cut a map into windows, zero-padded to whole windows.

    Args:
        features: (B, H, W, C).
        size: side of a window in cells.

    Returns:
        (B, windows, size * size, C), windows and cells in row-major order.
    """
    batch, height, width, channels = features.shape
    rows, columns = (height + size - 1) // size, (width + size - 1) // size
    features = F.pad(features, (0, 0, 0, columns * size - width, 0, rows * size - height))
    features = features.view(batch, rows, size, columns, size, channels)
    return features.transpose(2, 3).reshape(batch, rows * columns, size * size, channels)


def merge_windows(windows: Tensor, size: int, map_size: tuple[int, int]) -> Tensor:
    """Put windows back into a map and cut the padding off: the inverse of `split_windows`.

    Args:
        windows: (B, windows, size * size, C).
        size: side of a window in cells.
        map_size: (H, W) of the map.

    Returns:
        (B, H, W, C).
    """
    batch, _, _, channels = windows.shape
    height, width = map_size
    rows, columns = (height + size - 1) // size, (width + size - 1) // size
    features = windows.view(batch, rows, columns, size, size, channels).transpose(2, 3)
    return features.reshape(batch, rows * size, columns * size, channels)[:, :height, :width]
