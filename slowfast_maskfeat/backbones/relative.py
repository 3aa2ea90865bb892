"""Decomposed relative positions, folded into queries and keys.

The bias of query i and key j is q_i . R_t[i_t - j_t] + q_i . R_h[i_h - j_h] + q_i . R_w[i_w - j_w]
(MViTv2, Li et al., 2022, section 3.1). Written as a product of [q_i . R_t, q_i . R_h, q_i . R_w],
which has one entry per key coordinate, with the one-hot coordinates of key j, it becomes part of
the dot product of longer queries and keys: the (q, k) matrix of biases never exists, and fused
attention kernels run. It is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat.position_tables import resize_temporal
from slowfast_maskfeat.shapes import Grid

# Equation of q (B, heads, t, h, w, d) and R (query coordinate, key coordinate, d), by axis.
_EQUATIONS = ("bnthwd,tkd->bnthwk", "bnthwd,hkd->bnthwk", "bnthwd,wkd->bnthwk")


def relative_index(num_queries: int, num_keys: int, device: torch.device | None = None) -> Tensor:
    """Row of the table for each query and key coordinate along one axis.

    Where one side is coarser than the other its steps count as many of the finer ones; a ratio
    that is no whole number is rounded down, as published.

    Args:
        num_queries: Query coordinates along the axis.
        num_keys: Key coordinates along the axis.
        device: Where to put the result.

    Returns:
        (num_queries, num_keys), int64, into a table of 2 * max(num_queries, num_keys) - 1 rows.
    """
    step_q = max(num_keys / num_queries, 1.0)
    step_k = max(num_queries / num_keys, 1.0)
    queries = torch.arange(num_queries, device=device)[:, None] * step_q
    keys = torch.arange(num_keys, device=device)[None, :] * step_k
    return (queries - keys + (num_keys - 1) * step_k).long()


def relative_embedding(table: Tensor, num_queries: int, num_keys: int, index: Tensor) -> Tensor:
    """Relative position vector of each query and key coordinate along one axis.

    Args:
        table: (rows, d); resized to 2 * max(num_queries, num_keys) - 1 rows (linear) if it has
            another number.
        num_queries: Query coordinates along the axis.
        num_keys: Key coordinates along the axis.
        index: See `relative_index`.

    Returns:
        (num_queries, num_keys, d).
    """
    length = 2 * max(num_queries, num_keys) - 1
    return resize_temporal(table[None], length=length)[0][index]


def key_coordinates(grid: Grid, axes: Sequence[int], device: torch.device | None = None) -> Tensor:
    """One-hot coordinates of every key, side by side for the given axes.

    Args:
        grid: Grid of the keys.
        axes: Which of (t, h, w) take part, ascending.
        device: Where to put the result.

    Returns:
        (N, sum of the sizes of the axes), float32.
    """
    parts = []
    for axis in axes:
        shape = [1, 1, 1, grid[axis]]
        shape[axis] = grid[axis]
        parts.append(torch.eye(grid[axis], device=device).reshape(shape).expand(*grid, -1))
    return torch.cat(parts, dim=-1).reshape(grid.num_tokens, -1)


def fold_queries(query: Tensor, embeddings: dict[int, Tensor], grid: Grid) -> Tensor:
    """Products of queries and relative positions, one column per key coordinate.

    Args:
        query: (B, heads, N, d), unscaled and without the cls token.
        embeddings: {axis: (query coordinates, key coordinates, d)}, axes ascending.
        grid: Grid of the queries.

    Returns:
        (B, heads, N, sum of the key coordinates).
    """
    planes = query.unflatten(2, tuple(grid))  # (B, heads, t, h, w, d)
    columns = [torch.einsum(_EQUATIONS[axis], planes, r) for axis, r in embeddings.items()]
    return torch.cat(columns, dim=-1).flatten(2, 4)


def attend_folded(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    columns: Tensor,
    coordinates: Tensor,
    *,
    scale: float,
    has_cls: bool,
) -> Tensor:
    """Attention whose scores are scale * q . k plus the folded biases.

    Queries, keys and values are padded to a multiple of 8 (fused kernels want equal and aligned
    widths); the padding adds exact zeros.

    Args:
        query: (B, heads, Nq, d), a cls token first if there is one; likewise the next two.
        key: (B, heads, Nk, d).
        value: (B, heads, Nk, d).
        columns: (B, heads, Nq without cls, c): see `fold_queries`.
        coordinates: (Nk without cls, c): see `key_coordinates`.
        scale: Factor of q . k alone; the biases are not scaled.
        has_cls: Whether there is a cls token. Its row and column get no bias.

    Returns:
        (B, heads, Nq, d).
    """
    width, extra = query.shape[-1], columns.shape[-1]
    fill = -(width + extra) % 8
    front = int(has_cls)
    columns = F.pad(columns, (0, fill, front, 0)).to(query.dtype)
    coordinates = F.pad(coordinates, (0, fill, front, 0)).to(key.dtype)
    query = torch.cat((query * scale, columns), dim=-1)
    key = torch.cat((key, coordinates.expand(*key.shape[:2], -1, -1)), dim=-1)
    value = F.pad(value, (0, extra + fill))
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)[..., :width]
