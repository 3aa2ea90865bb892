"""Cube masks: boxes of several rows, columns and time steps (MaskFeat, section 4.2)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from slowfast_maskfeat.masks.boxes import (
    BoxRules,
    check_grid,
    check_ratio,
    hide_boxes,
    quota_of,
    smallest_area,
)
from slowfast_maskfeat.shapes import Grid


def cube_mask(
    grid: Grid, ratio: float, generator: np.random.Generator, *, num_tries: int = 100
) -> Tensor:
    """Mask random boxes until a share of `ratio` of the tokens is masked.

    The spatial area of a box is uniform between a fifth of a frame and a whole one, its aspect
    log-uniform in [0.3, 1 / 0.3], its duration uniform from one step to all. Boxes that span a full
    row or column of tokens, add nothing or exceed the quota are rejected. A mask that cannot be
    completed in `num_tries` tries stays a little below the quota, as published.

    Args:
        grid: size of the mask.
        ratio: share of tokens to mask (AUG.MASK_RATIO), in (0, 1).
        generator: source of all draws.
        num_tries: tries per box.

    Returns:
        (t, h, w) bool, True = masked; never more than round(N * ratio), at least one.

    Raises:
        ValueError: `ratio` outside (0, 1), or an empty grid.
    """
    check_ratio(ratio)
    check_grid(grid)
    quota = quota_of(grid.num_tokens, ratio)
    frame_area = grid.h * grid.w
    rules = BoxRules(
        quota=quota,
        min_area=smallest_area(grid, frame_area // 5, quota),
        max_area=frame_area,
        area_within_quota=False,
        num_tries=num_tries,
    )
    return torch.from_numpy(hide_boxes(grid, rules, generator))
