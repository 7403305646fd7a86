"""Average pooling in place of DBTC: what the network is without clustering (an ablation of ours)."""

from __future__ import annotations

from torch import Tensor, nn

from efnet.models.dbtc import halve
from efnet.models.layers import TokenConv
from efnet.models.tokens import Tokens
from efnet.ops.tokens import cell_index, merge_tokens


class AveragePooling(nn.Module):
    """Merge the four cells of each 2x2 block of a stage's map into one token, their mean.

    The convolution and the norm are DBTC's; importance and position have no part. The tokens that come in
    must be the cells of their map, as those of stage 1 are and those that this module returns.

    Args:
        in_channels: width of the tokens that come in.
        out_channels: width of the next stage.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = TokenConv(in_channels, out_channels, stride=2)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, tokens: Tokens) -> tuple[Tokens, Tokens, None]:
        """Merge N = H * W tokens into ceil(H / 2) * ceil(W / 2).

        Args:
            tokens: features (B, N, in_channels).

        Returns:
            as of `DBTC`: merged tokens (B, M, out_channels), the tokens they were made of
            (B, N, out_channels), and no importance.
        """
        features = self.norm(self.conv(tokens))
        size = halve(tokens.map_size)
        cells: Tensor = cell_index(tokens.map_size, size, features.device)
        clusters = cells.expand(features.shape[0], -1)
        equal = features.new_zeros(features.shape[:2])
        merged = merge_tokens(features, equal, clusters, size[0] * size[1])
        return (
            Tokens(merged, tokens.grid.merged(clusters, size[0] * size[1]), size),
            tokens.with_features(features),
            None,
        )
