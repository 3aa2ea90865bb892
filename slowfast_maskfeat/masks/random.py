"""Random masks: single tokens, or blocks of them, drawn uniformly.

Sources: MAE (arXiv:2111.06377) and its form for video (arXiv:2205.09113) for single tokens, SimMIM
(arXiv:2111.09886) for blocks.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from slowfast_maskfeat.masks.boxes import check_grid, check_ratio
from slowfast_maskfeat.shapes import Grid


def random_mask(
    grid: Grid,
    ratio: float,
    generator: np.random.Generator,
    *,
    tube: bool = False,
    per_frame: bool = False,
    block: tuple[int, int, int] = (1, 1, 1),
) -> Tensor:
    """Mask tokens drawn uniformly without replacement; the number is exact.

    Of n tokens int(n * (1 - ratio)) stay visible, where n counts the whole clip, or one time step
    with `tube` or `per_frame`. Deviation: the published tube form counts over the clip, so that
    one tube may be masked in some of its time steps only; here every tube is whole.

    Args:
        grid: size of the mask.
        ratio: share of tokens to mask (AUG.MASK_RATIO), in (0, 1).
        generator: source of all draws.
        tube: mask the same tokens in every time step (AUG.MASK_TUBE).
        per_frame: mask the same number of tokens in every time step (MASK.PER_FRAME_MASKING).
        block: size (t, h, w) in tokens of the blocks that are masked as a whole
            (MASK.RANDOM_BLOCK); it divides the grid, and n above then counts blocks.

    Returns:
        (t, h, w) bool, True = masked.

    Raises:
        ValueError: `ratio` outside (0, 1), an empty grid, both `tube` and `per_frame`, or blocks
            that do not divide the grid.
    """
    check_ratio(ratio)
    check_grid(grid)
    if tube and per_frame:
        raise ValueError(
            "AUG.MASK_TUBE and MASK.PER_FRAME_MASKING must not both be True: the first masks the "
            "same tokens in all frames, the second draws new ones for each frame"
        )
    if min(block) < 1 or any(size % side for size, side in zip(grid, block, strict=True)):
        raise ValueError(
            f"MASK.RANDOM_BLOCK must divide the {grid} token grid (t, h, w), got {block}"
        )
    grid = Grid(*(size // side for size, side in zip(grid, block, strict=True)))
    num_rows = grid.t if per_frame else 1
    num_cells = grid.h * grid.w if tube or per_frame else grid.num_tokens
    num_visible = int(num_cells * (1 - ratio))
    order = generator.random((num_rows, num_cells)).argsort(axis=1)
    mask = np.ones((num_rows, num_cells), dtype=np.bool_)
    np.put_along_axis(mask, order[:, :num_visible], False, axis=1)
    if tube:
        mask = np.repeat(mask, grid.t, axis=0)
    cells = mask.reshape(grid)
    for axis, side in enumerate(block):
        cells = cells.repeat(side, axis) if side > 1 else cells
    return torch.from_numpy(cells)
