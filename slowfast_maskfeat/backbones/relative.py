"""Decomposed relative positions, folded into queries and keys.

The bias of query i and key j is q_i . R_t[i_t - j_t] + q_i . R_h[i_h - j_h] + q_i . R_w[i_w - j_w]
(MViTv2, Li et al., 2022, section 3.1). Written as a product of [q_i . R_t, q_i . R_h, q_i . R_w],
which has one entry per key coordinate, with the one-hot coordinates of key j, it becomes part of
the dot product of longer queries and keys: the (q, k) matrix of biases never exists, and fused
attention kernels run. It is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat.shapes import Grid


def relative_index(num_queries: int, num_keys: int, device: torch.device | None = None) -> Tensor:
    """Row of the table for each query and key coordinate along one axis.

    Where one side is coarser than the other its steps count as many of the finer ones; a ratio
    that is no whole number is rounded down, as published.

    Args:
        num_queries: query coordinates along the axis.
        num_keys: key coordinates along the axis.
        device: where to put the result.

    Returns:
        (num_queries, num_keys), int64, into a table of 2 * max(num_queries, num_keys) - 1 rows.
    """
    step_q = max(num_keys / num_queries, 1.0)
    step_k = max(num_queries / num_keys, 1.0)
    queries = torch.arange(num_queries, device=device)[:, None] * step_q
    keys = torch.arange(num_keys, device=device)[None, :] * step_k
    return (queries - keys + (num_keys - 1) * step_k).long()


def key_coordinates(grid: Grid, axes: Sequence[int], device: torch.device | None = None) -> Tensor:
    """One-hot coordinates of every key, side by side for the given axes.

    Args:
        grid: grid of the keys.
        axes: which of (t, h, w) take part, ascending.
        device: where to put the result.

    Returns:
        (N, sum of the sizes of the axes), float32.
    """
    parts = []
    for axis in axes:
        shape = [1, 1, 1, grid[axis]]
        shape[axis] = grid[axis]
        parts.append(torch.eye(grid[axis], device=device).reshape(shape).expand(*grid, -1))
    return torch.cat(parts, dim=-1).reshape(grid.num_tokens, -1)


class Fold(NamedTuple):
    """Where the relative positions of an attention stand in its tables, for one pair of grids.

    The columns of t and h come from one product, those of w from another: within a row of the grid
    t and h are constant, and along a column of it w is.

    Attributes:
        rows: (t, h, columns) int64: rows of all tables one below the other, for the columns of the
            keys' t and h.
        columns: (w * heads, columns) int64: the same for w; None without spatial positions.
        coordinates: (1 + Nk, columns) or (Nk, columns), see `key_coordinates`: a row of zeros for
            the cls token, and columns of zeros that fill the width up to a multiple of 8.
        filling: (n,) zeros, for the same columns of the queries.
    """

    rows: Tensor
    columns: Tensor | None
    coordinates: Tensor
    filling: Tensor


def make_fold(
    grid_q: Grid,
    grid_k: Grid,
    axes: Sequence[int],
    *,
    width: int,
    num_heads: int,
    has_cls: bool,
    device: torch.device | None = None,
) -> Fold:
    """Find the constants of folding.

    Args:
        grid_q: grid of the queries.
        grid_k: grid of the keys.
        axes: which of (t, h, w) have relative positions, ascending.
        width: channels d of a head.
        num_heads: number of heads.
        has_cls: whether there is a cls token.
        device: where to put the result.
    """
    coordinates = key_coordinates(grid_k, axes, device)
    fill = -(width + coordinates.shape[1]) % 8  # fused kernels take widths that are multiples of 8
    coordinates = F.pad(coordinates, (0, fill, int(has_cls), 0))
    rows, columns, first = [], None, 0
    for axis in axes:
        index = first + relative_index(grid_q[axis], grid_k[axis], device)
        first += 2 * max(grid_q[axis], grid_k[axis]) - 1
        if axis == 2:
            columns = index.repeat_interleave(num_heads, dim=0)
        else:
            index = index[:, None] if axis == 0 else index[None]
            rows.append(index.expand(grid_q.t, grid_q.h, -1))
    filling = torch.zeros(fill, device=device)
    return Fold(torch.cat(rows, dim=-1), columns, coordinates, filling)


def fold_queries(query: Tensor, table: Tensor, grid: Grid, fold: Fold) -> Tensor:
    """Queries with their products with relative positions, one column per key coordinate.

    Args:
        query: (B, heads, N, d), unscaled and without the cls token.
        table: (rows, d), the tables of all axes one below the other.
        grid: grid of the queries.
        fold: see `make_fold`.

    Returns:
        (B, heads, N, d + columns).
    """
    heads = query.shape[1]
    planes = query.transpose(1, 2).unflatten(1, tuple(grid))  # (B, t, h, w, heads, d)
    # (B, t, h, w * heads, d) x (t, h, d, columns)
    products = planes.flatten(3, 4) @ table[fold.rows].transpose(2, 3)
    parts = [planes, products.unflatten(3, (-1, heads))]
    if fold.columns is not None:
        lines = planes.permute(3, 4, 0, 1, 2, 5).flatten(2, 4).flatten(0, 1)
        # (w * heads, B * t * h, d) x (w * heads, d, columns)
        products = lines @ table[fold.columns].transpose(1, 2)
        products = products.unflatten(1, (-1, *grid[:2])).unflatten(0, (-1, heads))
        parts.append(products.permute(2, 3, 4, 0, 1, 5))
    parts.append(fold.filling.to(planes.dtype).expand(*planes.shape[:-1], -1))
    return torch.cat(parts, dim=-1).flatten(1, 3).transpose(1, 2)


def fold_keys(key: Tensor, coordinates: Tensor, *, scale: float) -> Tensor:
    """Scaled keys with their coordinates.

    Args:
        key: (B, heads, Nk, d), a cls token first if there is one.
        coordinates: (Nk, columns): see `Fold`.
        scale: factor of q . k alone; the biases are not scaled.

    Returns:
        (B, heads, Nk, d + columns).
    """
    coordinates = coordinates.to(key.dtype)[:, None]
    key = key.transpose(1, 2)  # (B, Nk, heads, d), as in memory
    coordinates = coordinates.expand(key.shape[0], -1, key.shape[2], -1)
    return torch.cat((key * scale, coordinates), dim=-1).transpose(1, 2)
