"""Frame masks: whole time steps (MaskFeat, section 4.2)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from slowfast_maskfeat.masks.boxes import check_grid, check_ratio
from slowfast_maskfeat.shapes import Grid


def frame_mask(grid: Grid, ratio: float, generator: np.random.Generator) -> Tensor:
    """Mask a share of `ratio` of the time steps, drawn without replacement.

    Args:
        grid: size of the mask; more than one time step.
        ratio: share of time steps to mask (AUG.MASK_RATIO), in (0, 1).
        generator: source of all draws.

    Returns:
        (t, h, w) bool, True = masked; round(t * ratio) whole steps, at least one, never all.

    Raises:
        ValueError: `ratio` outside (0, 1), an empty grid, or one of a single time step.
    """
    check_ratio(ratio)
    check_grid(grid)
    if grid.t < 2:
        raise ValueError(
            f"AUG.MASK_FRAMES requires at least 2 time steps, got a token grid of {grid} "
            "(t, h, w); use another mask or more frames"
        )
    num_masked = min(max(1, round(grid.t * ratio)), grid.t - 1)
    mask = np.zeros(grid, dtype=np.bool_)
    mask[generator.permutation(grid.t)[:num_masked]] = True
    return torch.from_numpy(mask)
