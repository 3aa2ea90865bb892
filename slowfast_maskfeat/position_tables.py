"""Resizing of position embeddings to another token grid, for models and checkpoints.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words" (ICLR 2021), section 3.2; for biases of
relative positions the authors' code of BEiT (Bao et al., 2022), beit/run_class_finetuning.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat.shapes import Grid

NUM_CLASS_ROWS = 3  # rows of a class token at the end of a table of biases
_LEAST_RATIO, _LARGEST_RATIO, _RATIO_PRECISION = 1.01, 1.5, 1e-6


def resize_spatial(
    table: Tensor, *, source: tuple[int, int], target: tuple[int, int], offset: float = 0.0
) -> Tensor:
    """Resize spatial position embeddings to another number of rows and columns (bicubic).

    Args:
        table: (1, source_h * source_w, D) or (t, source_h * source_w, D).
        source: rows and columns of the table.
        target: rows and columns of the result.
        offset: added to these before the scale is computed from them. The official code of DINO has
            0.1, against rounding errors in the size of the result; it moves the sampled points.

    Returns:
        (1 or t, target_h * target_w, D); the same tensor if the size does not change.
    """
    if source == target:
        return table
    planes = table.unflatten(1, source).permute(0, 3, 1, 2)  # (t, D, h, w)
    if offset:
        scales = tuple((new + offset) / old for new, old in zip(target, source, strict=True))
        planes = F.interpolate(planes, scale_factor=scales, mode="bicubic", align_corners=False)
        assert planes.shape[2:] == target, (planes.shape, target)
    else:
        planes = F.interpolate(planes, size=target, mode="bicubic", align_corners=False)
    return planes.flatten(2).transpose(1, 2)


def resize_temporal(table: Tensor, *, length: int) -> Tensor:
    """Resize position embeddings along one axis to another length (linear).

    Args:
        table: (1, source_length, D).
        length: length of the result.

    Returns:
        (1, length, D); the same tensor if the length does not change.
    """
    if table.shape[1] == length:
        return table
    resized = F.interpolate(table.transpose(1, 2), size=length, mode="linear", align_corners=False)
    return resized.transpose(1, 2)


def separable_positions(
    spatial: Tensor, temporal: Tensor, *, source: Grid, target: Grid, offset: float = 0.0
) -> Tensor:
    """Compute separable position embeddings: the sum of a spatial and a temporal table.

    Source: MViT (Fan et al., 2021), section 4.1.

    Args:
        spatial: (1, h * w, D) on the source grid.
        temporal: (1, t, D) on the source grid.
        source: grid of the tables.
        target: grid of the result.
        offset: see `resize_spatial`.

    Returns:
        (1, N, D) on the target grid, ordered by (t, h, w).
    """
    spatial = resize_spatial(spatial, source=source[1:], target=target[1:], offset=offset)
    temporal = resize_temporal(temporal, length=target.t)
    positions = temporal.unsqueeze(2) + spatial.unsqueeze(1)  # (1, t, h*w, D)
    return positions.flatten(1, 2)


def joint_positions(table: Tensor, *, source: Grid, target: Grid, offset: float = 0.0) -> Tensor:
    """Resize joint position embeddings, a single table over time, rows and columns.

    The table is resized along space (bicubic), then along time (linear).

    Args:
        table: (1, N, D) on the source grid.
        source: grid of the table.
        target: grid of the result.
        offset: see `resize_spatial`.

    Returns:
        (1, N, D) on the target grid.
    """
    if source == target:
        return table
    width = table.shape[-1]
    planes = table.reshape(source.t, source.h * source.w, width)
    planes = resize_spatial(planes, source=source[1:], target=target[1:], offset=offset)
    series = planes.reshape(1, source.t, -1)  # (1, t, h*w*D)
    return resize_temporal(series, length=target.t).reshape(1, target.num_tokens, width)


def resize_bias_table(
    table: Tensor, *, source: tuple[int, int], target: tuple[int, int], has_cls: bool
) -> Tensor:
    """Resize biases of relative positions to another number of rows and columns.

    The offsets of the source are placed at distances whose steps grow as a geometric progression up
    to the largest offset of the target, so that small offsets keep their meaning, and interpolated
    with cubic splines. Deviation: BEiT's code does so for squares only; here rows and columns may
    differ.

    Args:
        table: ((2 h - 1) (2 w - 1) [+ 3], heads); the last three rows are the class token's and are
            kept.
        source: rows h and columns w of the table's patches.
        target: rows and columns of the result.
        has_cls: whether there is a class token.

    Returns:
        ((2 h' - 1) (2 w' - 1) [+ 3], heads); the same tensor if the size does not change.
    """
    if source == target:
        return table
    num_offsets = (2 * source[0] - 1) * (2 * source[1] - 1)
    assert len(table) == num_offsets + NUM_CLASS_ROWS * has_cls, table.shape
    planes = table[:num_offsets].unflatten(0, (2 * source[0] - 1, 2 * source[1] - 1))
    of_rows, of_columns = (
        _offset_interpolation(old, new).to(table) for old, new in zip(source, target, strict=True)
    )
    resized = torch.einsum("yh,xw,hwn->yxn", of_rows, of_columns, planes).flatten(0, 1)
    return torch.cat((resized, table[num_offsets:]))


def _offset_interpolation(old: int, new: int) -> Tensor:
    """Matrix (2 new - 1, 2 old - 1) from biases of the old offsets to those of the new ones."""
    if old == new:
        return torch.eye(2 * old - 1, dtype=torch.float64)
    low, high = _LEAST_RATIO, _LARGEST_RATIO
    ratio = low
    while high - low > _RATIO_PRECISION:
        ratio = (low + high) / 2
        if (1 - ratio ** (old - 1)) / (1 - ratio) > new - 1:
            high = ratio
        else:
            low = ratio
    steps = ratio ** torch.arange(old - 1, dtype=torch.float64)
    distances = steps.cumsum(0)
    knots = torch.cat((-distances.flip(0), torch.zeros(1, dtype=torch.float64), distances))
    points = torch.arange(1 - new, new, dtype=torch.float64)
    return _spline_matrix(knots, points.clamp(knots[0], knots[-1]))


def _spline_matrix(knots: Tensor, points: Tensor) -> Tensor:
    """Matrix (points, knots) of the interpolating cubic spline through values at the knots.

    Its third derivative is continuous at the second and the second but last knot ("not a knot"), as
    in FITPACK (Dierckx, 1993). Of three knots it is the parabola, and of one the constant.

    Args:
        knots: (n,) float64, ascending, n odd.
        points: (m,) float64, within the knots.

    Returns:
        (m, n) float64.
    """
    size = len(knots)
    if size <= 3:
        return _polynomial_matrix(knots, points)
    gaps = knots.diff()
    identity = torch.eye(size, dtype=torch.float64)
    slopes = identity.diff(dim=0) / gaps[:, None]  # of the chords, by the values
    inner = torch.arange(1, size - 1)
    system = torch.zeros(size, size, dtype=torch.float64)  # of the second derivatives
    system[inner, inner - 1] = gaps[:-1]
    system[inner, inner] = 2 * (gaps[:-1] + gaps[1:])
    system[inner, inner + 1] = gaps[1:]
    system[0, :3] = torch.stack((gaps[1], -(gaps[0] + gaps[1]), gaps[0]))
    system[-1, -3:] = torch.stack((gaps[-1], -(gaps[-2] + gaps[-1]), gaps[-2]))
    right = torch.zeros(size, size, dtype=torch.float64)
    right[1:-1] = 6 * slopes.diff(dim=0)
    curvature = torch.linalg.solve(system, right)  # (n, n), by the values
    piece = torch.searchsorted(knots, points, right=True).clamp(1, size - 1) - 1
    gap = gaps[piece][:, None]
    after = (points - knots[piece])[:, None]
    before = gap - after
    linear = (before * identity[piece] + after * identity[piece + 1]) / gap
    cubic = (before**3 / gap - before * gap) * curvature[piece]
    cubic = cubic + (after**3 / gap - after * gap) * curvature[piece + 1]
    return linear + cubic / 6


def _polynomial_matrix(knots: Tensor, points: Tensor) -> Tensor:
    """Matrix (points, knots) of the polynomial through values at the knots (Lagrange)."""
    columns = []
    for index in range(len(knots)):
        others = torch.cat((knots[:index], knots[index + 1 :]))
        columns.append(((points[:, None] - others) / (knots[index] - others)).prod(dim=1))
    return torch.stack(columns, dim=1)
