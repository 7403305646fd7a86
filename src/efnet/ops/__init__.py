"""Pure tensor functions, without weights: clustering, token and map transforms, windows, distances.

Shape letters used throughout: B batch, N tokens, C channels, K classes or clusters, h x w the initial
grid (stride 4), n = h * w its cells, H x W a feature map.
"""

from efnet.ops.clustering.dpc_knn import Clusters, dpc_knn
from efnet.ops.linear import squared_distance
from efnet.ops.tokens import (
    cell_index,
    map_to_token,
    merge_tokens,
    merge_windows,
    split_windows,
    token_to_map,
)

__all__ = [
    "Clusters",
    "cell_index",
    "dpc_knn",
    "map_to_token",
    "merge_tokens",
    "merge_windows",
    "split_windows",
    "squared_distance",
    "token_to_map",
]
