"""Tube masks: the same rectangles at every time step (MaskFeat, section 4.2)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from slowfast_maskfeat.masks.block import frame_blocks
from slowfast_maskfeat.masks.boxes import check_grid, check_ratio
from slowfast_maskfeat.shapes import Grid

_NUM_TRIES = 10  # per rectangle


def tube_mask(grid: Grid, ratio: float, generator: np.random.Generator) -> Tensor:
    """Mask the rectangles of one block mask in all time steps.

    Args:
        grid: size of the mask.
        ratio: share of tokens to mask (AUG.MASK_RATIO), in (0, 1).
        generator: source of all draws.

    Returns:
        (t, h, w) bool, True = masked; the same in every time step.

    Raises:
        ValueError: `ratio` outside (0, 1), or an empty grid.
    """
    check_ratio(ratio)
    check_grid(grid)
    frame = frame_blocks(grid, ratio, generator, max_block=None, num_tries=_NUM_TRIES)
    return torch.from_numpy(np.repeat(frame, grid.t, axis=0))
