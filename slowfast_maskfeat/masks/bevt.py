"""BEVT's masks of videos: one block mask, held over a run of time steps (arXiv 2112.01529)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from slowfast_maskfeat.masks.block import block_mask
from slowfast_maskfeat.masks.boxes import check_grid
from slowfast_maskfeat.shapes import Grid


def bevt_mask(
    grid: Grid,
    ratio: float,
    generator: np.random.Generator,
    *,
    max_block: int | None = None,
    min_block: int | None = None,
    length_range: tuple[float, float] = (0.5, 1.0),
) -> Tensor:
    """Mask the rectangles of one block mask in a run of time steps.

    The run starts at any step and goes on at the first after the last; its length is drawn
    uniformly. Source: the authors' code of BEVT (Wang et al., 2022), whose masks have 98 of 14x14
    tokens in blocks of at least 16, held over half of the steps to all of them.

    Args:
        grid: size of the mask.
        ratio: share of the tokens of a masked time step (AUG.MASK_RATIO), in (0, 1).
        generator: source of all draws.
        max_block: see `block_mask`.
        min_block: see `block_mask`.
        length_range: shortest and longest run, as shares of the time steps; at least one step.

    Returns:
        (t, h, w) bool, True = masked; the same in every masked time step.

    Raises:
        ValueError: see `block_mask`.
    """
    check_grid(grid)
    frame = block_mask(
        grid._replace(t=1),
        ratio,
        generator,
        max_block=max_block,
        min_block=min_block,
    )
    shortest, longest = (max(1, int(share * grid.t)) for share in length_range)
    start, length = generator.integers(grid.t), generator.integers(shortest, longest + 1)
    mask = torch.zeros(tuple(grid), dtype=torch.bool)
    mask[(start + np.arange(length)) % grid.t] = frame
    return mask
