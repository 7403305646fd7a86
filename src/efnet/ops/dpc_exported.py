"""Clustering for exported programs: plain operators and loops, for any batch and any number of tokens.

Each of the three searches of a clustering (neighbours, nearest denser token, nearest centre) first asks what
is cheap: on a regular grid the window around a token (`dpc_exported_window`); elsewhere the tiles near it
(`dpc_exported_tiles`), and then the neighbours already found. What that leaves open is compared with all
tokens (`dpc_loop`), so the result is the exact one and no N x N matrix exists. Tokens are found by float32
products, about the mean of a sample's features; densities are measured by plain differences, since products
know little of a distance near nought. Equal densities, scores and distances are ordered by index after that
rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from efnet.ops.dpc_exported_tiles import REACHED, nearest_in_tiles
from efnet.ops.dpc_exported_window import Window, window_of
from efnet.ops.dpc_loop import HUGE, Table, assign_open, masked_by_rank, neighbors_of_open, separate_open
from efnet.ops.tokens import sample_offsets


class Nearest(NamedTuple):
    """The k nearest tokens, the token itself among them, nearest first.

    Attributes:
        distance: (B, N, k).
        token: (B, N, k) int64.
    """

    distance: Tensor
    token: Tensor


def cluster(
    features: Tensor,
    positions: Tensor | None,
    spatial_weight: float,
    num_clusters: int,
    k: int,
    grid: tuple[int, int] | None,
) -> tuple[Tensor, Tensor]:
    """Equations 1-3 of EFNet (arXiv 2501.10958).

    Args:
        features: (B, N, C).
        positions: (B, N, P), or None without a spatial term.
        spatial_weight: its weight.
        num_clusters: M.
        k: neighbours that make the density, the token itself one of them; at most N.
        grid: size of the regular grid whose cells the tokens are, positions linear in row and column.

    Returns:
        assignment (B, N) and centres (B, M), as of `dpc_knn`.
    """
    table = Table.of(_numbers(features), positions, spatial_weight)
    window = None if grid is None or table.places is None else window_of(table, grid)
    nearest = _neighbors(table, window, k)
    squares = _mean_square(nearest.distance)
    rank = _ranks(squares)
    delta = _separation(table, window, nearest, squares, rank, num_clusters)
    score = _scores(table, squares, rank, delta)
    # A stable sort, not top-k: of equal scores the first wins.
    centers = score.argsort(dim=1, descending=True, stable=True)[:, :num_clusters].sort(1).values
    return _assign(table, window, nearest, centers), centers


def _numbers(features: Tensor) -> Tensor:
    """The features (B, N, C) as float32; tokens that hold NaN or infinity are zeros, as for `dpc_knn`."""
    features = features.float()
    whole = (features.abs() <= torch.finfo(torch.float32).max).all(-1, keepdim=True)
    return torch.where(whole, features, 0.0)


def _neighbors(table: Table, window: Window | None, k: int) -> Nearest:
    batch, tokens = table.values.shape[:2]
    if window is None and table.places is not None and table.places.shape[2] == 2 and k <= REACHED:
        found = nearest_in_tiles(table, k)
        nearest = Nearest(found.distance, found.token)
        open_ = (found.distance[..., -1] > found.bound).float()
    elif window is None:
        start = table.values.new_zeros(batch, tokens, k)
        nearest = Nearest(start, start.long())
        open_ = torch.ones_like(start[..., 0])
    else:
        distance, token = window.nearest(k)
        nearest = Nearest(distance, token)
        open_ = (distance[..., -1] > window.bound).float()
    _, token = neighbors_of_open(table, open_, *nearest)
    return Nearest(_measured(table, token), token)


def _measured(table: Table, token: Tensor) -> Tensor:
    """(B, N, k) distances to some tokens by differences: exact where two are nearly the same."""
    batch, tokens, k = token.shape
    number = (token + sample_offsets(batch, tokens, token.device)[..., None]).flatten()

    def apart(values: Tensor) -> Tensor:
        theirs = values.flatten(0, 1).index_select(0, number).view(batch, tokens, k, values.shape[2])
        return (theirs - values[:, :, None]).square().sum(-1).sqrt()

    distance = apart(table.values[..., :-2])
    return distance if table.places is None else distance + apart(table.places)


def _mean_square(distance: Tensor) -> Tensor:
    """(B, N) of distances (B, N, k): squares added one by one, from the nearest to the farthest."""
    total = torch.zeros_like(distance[..., 0])
    for apart in distance.sort(2).values.unbind(2):
        total = total + apart * apart
    return total * (1 / distance.shape[2])


def _ranks(squares: Tensor) -> Tensor:
    """(B, N) float32 0 for the densest token, 1 for the next; of equally dense ones the first is denser."""
    order = squares.argsort(dim=1, stable=True)
    number = torch.arange(squares.shape[1], device=squares.device).expand_as(order)
    return torch.zeros_like(order).scatter(1, order, number).float()


def _scores(table: Table, squares: Tensor, rank: Tensor, separation: Tensor) -> Tensor:
    """(B, N) density times separation; the densest token, always a centre, has the largest."""
    density = (-squares * table.unit * table.unit).exp()
    return torch.where(rank == 0, 2.0**20 * HUGE, density * separation)


def _separation(
    table: Table, window: Window | None, nearest: Nearest, squares: Tensor, rank: Tensor, num_clusters: int
) -> Tensor:
    """(B, N) equation 3; of tokens that are centres for sure perhaps a lower bound of it."""
    if window is None:
        # What is farther than the neighbours is no nearer than they are.
        theirs = rank.gather(1, nearest.token.flatten(1)).view(nearest.token.shape)
        delta = masked_by_rank(nearest.distance, theirs, rank[..., None]).amin(2)
        return separate_open(table, ((delta > HUGE / 4) & (rank > 0)).float(), delta, rank)
    delta = window.nearest_denser(rank)
    unsure = (delta > window.bound) & (rank > 0)
    low = torch.where(unsure, window.bound, delta)
    # Where all unsure ones are centres even so, nothing depends on how far they are.
    order = _scores(table, squares, rank, low).argsort(dim=1, descending=True, stable=True)
    beyond = torch.arange(rank.shape[1], device=rank.device) >= num_clusters
    missed = (unsure.gather(1, order) & beyond).any(1, keepdim=True)
    return separate_open(table, (unsure & missed).float(), low, rank)


def _assign(table: Table, window: Window | None, nearest: Nearest, centers: Tensor) -> Tensor:
    batch, tokens = table.values.shape[:2]
    number = torch.arange(centers.shape[1], device=centers.device).expand_as(centers)
    of_token = centers.new_full((batch, tokens), -1).scatter(1, centers, number)
    barred = (of_token < 0).float() * HUGE
    if window is None:
        theirs = barred.gather(1, nearest.token.flatten(1)).view(nearest.token.shape)
        distance, place = (nearest.distance + theirs).min(2)
        token = nearest.token.gather(2, place[..., None]).squeeze(2)
        unsure = distance > HUGE / 4
    else:
        distance, token = window.nearest_allowed(barred)
        unsure = distance > window.bound
    assignment = torch.where(of_token < 0, of_token.gather(1, token), of_token)
    return assign_open(table, (unsure & (of_token < 0)).float(), assignment, centers)
