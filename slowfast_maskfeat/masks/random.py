"""Random masks: tokens, or blocks of them, drawn one by one.

Sources: MAE (arXiv:2111.06377) and its form for video (arXiv:2205.09113), of single tokens; SimMIM
(arXiv:2111.09886), of blocks.
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
    """Masks tokens drawn uniformly without replacement; the number is exact.

    int(cells * (1 - ratio)) cells stay visible, where the cells are all tokens of the clip, or
    those of one time step with `tube` or `per_frame`. In the published tube form the count is
    taken over the clip, so ties of the shared noise leave one tube cut off in time; here every
    tube is whole (deviation).

    Args:
        grid: size of the mask.
        ratio: share of tokens to hide (AUG.MASK_RATIO), in (0, 1).
        generator: source of all draws.
        tube: hide the same cells at every time step.
        per_frame: hide the same number of cells at every time step.
        block: cells (t, h, w) that are hidden together; they divide the grid, and what is said of
            cells above is then said of blocks.

    Returns:
        (t, h, w) bool, True = masked.

    Raises:
        ValueError: `ratio` outside (0, 1), a grid without cells, `tube` and `per_frame` both, or
            blocks that do not divide the grid.
    """
    check_ratio(ratio)
    check_grid(grid)
    if tube and per_frame:
        raise ValueError(
            "AUG.MASK_TUBE and MASK.PER_FRAME_MASKING must not both be True: the first hides the "
            "same tokens in all frames, the second draws those of each frame anew"
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
