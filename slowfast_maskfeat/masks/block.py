"""Block masks: rectangles on an image (BEiT, arXiv:2106.08254, algorithm 1)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from slowfast_maskfeat.masks.boxes import (
    BoolArray,
    BoxRules,
    check_grid,
    check_ratio,
    hide_boxes,
    quota_of,
    smallest_area,
)
from slowfast_maskfeat.shapes import Grid


def block_mask(
    grid: Grid,
    ratio: float,
    generator: np.random.Generator,
    *,
    max_block: int | None = None,
    min_block: int | None = None,
    num_tries: int = 10,
) -> Tensor:
    """Mask random rectangles of every time step until a share of `ratio` of it is masked.

    Time steps are masked independently of each other; an image has one.

    Args:
        grid: size of the mask.
        ratio: share of tokens to mask (AUG.MASK_RATIO), in (0, 1).
        generator: source of all draws.
        max_block: most tokens that one rectangle adds (AUG.MAX_MASK_PATCHES_PER_BLOCK); None for
            no limit but the quota.
        min_block: least area of a rectangle in tokens, of which some may be masked already; less
            where no such rectangle fits, and where the rest of the quota is smaller, from that rest
            up to `min_block`. None: a fifth of the quota. BEiT's masks have 16, at a quota of 75.
        num_tries: tries per rectangle.

    Returns:
        (t, h, w) bool, True = masked; in each time step at most round(h * w * ratio), at least one.

    Raises:
        ValueError: `ratio` outside (0, 1), `max_block` below 1, `min_block` below 1 or above
            `max_block`, or an empty grid.
    """
    check_ratio(ratio)
    check_grid(grid)
    if max_block is not None and max_block < 1:
        raise ValueError(f"AUG.MAX_MASK_PATCHES_PER_BLOCK must be >= 1 or None, got {max_block}")
    if min_block is not None and not 1 <= min_block <= (max_block or min_block):
        limit = "" if max_block is None else f" and <= AUG.MAX_MASK_PATCHES_PER_BLOCK {max_block}"
        raise ValueError(
            f"AUG.MIN_MASK_PATCHES_PER_BLOCK must be >= 1{limit}, or None, got {min_block}"
        )
    frames = [
        frame_blocks(
            grid,
            ratio,
            generator,
            max_block=max_block,
            min_block=min_block,
            num_tries=num_tries,
        )
        for _ in range(grid.t)
    ]
    return torch.from_numpy(np.concatenate(frames))


def frame_blocks(
    grid: Grid,
    ratio: float,
    generator: np.random.Generator,
    *,
    max_block: int | None,
    num_tries: int,
    min_block: int | None = None,
) -> BoolArray:
    """Draw the rectangles of a single time step of `grid`: (1, h, w), True = masked."""
    frame = Grid(1, grid.h, grid.w)
    quota = quota_of(frame.num_tokens, ratio)
    rules = BoxRules(
        quota=quota,
        min_area=smallest_area(frame, quota // 5 if min_block is None else min_block, quota),
        max_area=quota if max_block is None else max_block,
        area_within_quota=True,
        num_tries=num_tries,
    )
    return hide_boxes(frame, rules, generator)
