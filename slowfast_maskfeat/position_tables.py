"""Resizing of position embeddings to another token grid, for models and checkpoints.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words" (ICLR 2021), section 3.2.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat.shapes import Grid


def resize_spatial(
    table: Tensor, *, source: tuple[int, int], target: tuple[int, int], offset: float = 0.0
) -> Tensor:
    """Resize spatial position embeddings to another number of rows and columns (bicubic).

    Args:
        table: (1, source_h * source_w, D) or (t, source_h * source_w, D).
        source: Rows and columns of the table.
        target: Rows and columns of the result.
        offset: Added to these before the scale is computed from them. The official code of DINO has
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
        length: Length of the result.

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
        source: Grid of the tables.
        target: Grid of the result.
        offset: See `resize_spatial`.

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
        source: Grid of the table.
        target: Grid of the result.
        offset: See `resize_spatial`.

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
