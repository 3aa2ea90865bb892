"""Masks whose ratio is drawn for each view (iBOT, arXiv:2111.07832, section 3.1 and appendix)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from slowfast_maskfeat.masks.boxes import BoolArray, BoxRules, check_grid, hide_boxes
from slowfast_maskfeat.masks.cube import cube_mask
from slowfast_maskfeat.shapes import Grid

_NUM_TRIES = 10  # per rectangle of an image


def ibot_mask(
    grid: Grid,
    ranges: Sequence[tuple[float, float]],
    generator: np.random.Generator,
    *,
    shape: Literal["block", "random"] = "block",
    min_block: int | None = None,
) -> Tensor:
    """Mask a share of the tokens that is drawn anew for each mask.

    One of the ranges is drawn, then a ratio uniformly from it, as in loader.py of iBOT's official
    code, where (0, 0) and (0.1, 0.5) leave every other view without a mask. An image is masked by
    rectangles, as in block masks, with a quota that is not rounded; an image whose quota holds no
    rectangle has no mask. A clip of several steps is masked by the boxes of cube masks with the
    drawn ratio: a choice of this package, since iBOT is for images.

    Args:
        grid: size of the mask.
        ranges: smallest and largest ratio of each range (AUG.MASK_RATIO_RANGES), in [0, 1).
        generator: source of all draws.
        shape: "block", or "random" for int(N * ratio) single tokens.
        min_block: least area of a rectangle of an image in tokens; None: the square of a third of
            the shorter side, rounded down, as in the official code.

    Returns:
        (t, h, w) bool, True = masked; possibly none.

    Raises:
        ValueError: a range is outside [0, 1) or descending, there is none, the grid is empty, or
            `min_block` is below 1.
    """
    check_ranges(ranges)
    check_grid(grid)
    if min_block is not None and min_block < 1:
        raise ValueError(f"AUG.MIN_MASK_PATCHES_PER_BLOCK must be >= 1, or None, got {min_block}")
    low, high = ranges[int(generator.integers(len(ranges)))]
    ratio = float(generator.uniform(low, high))
    if ratio == 0.0:
        return torch.zeros(tuple(grid), dtype=torch.bool)
    if shape == "random":
        return torch.from_numpy(_single_tokens(grid, int(ratio * grid.num_tokens), generator))
    if grid.t > 1:
        return cube_mask(grid, ratio, generator)
    quota = ratio * grid.num_tokens
    rules = BoxRules(
        quota=quota,
        min_area=(min(grid.h, grid.w) // 3) ** 2 if min_block is None else min_block,
        max_area=quota,
        area_within_quota=True,
        num_tries=_NUM_TRIES,
        may_be_empty=True,
    )
    return torch.from_numpy(hide_boxes(grid, rules, generator))


def check_ranges(ranges: Sequence[tuple[float, float]]) -> None:
    """Check the ranges of ratios.

    Raises:
        ValueError: there is no range, or one is outside [0, 1) or descending.
    """
    for low, high in ranges or [(1.0, 0.0)]:
        if not 0.0 <= low <= high < 1.0:
            raise ValueError(
                "AUG.MASK_RATIO_RANGES must be pairs of ascending ratios in [0, 1), got "
                f"{[list(pair) for pair in ranges]}; iBOT uses [[0.0, 0.0], [0.1, 0.5]]"
            )


def _single_tokens(grid: Grid, number: int, generator: np.random.Generator) -> BoolArray:
    mask = np.zeros(grid.num_tokens, dtype=np.bool_)
    mask[generator.permutation(grid.num_tokens)[:number]] = True
    return mask.reshape(grid)
