"""Multi-block masks: several masks of a clip, each of large blocks that span all time steps.

V-JEPA (Bardes et al., arXiv:2404.08471, section 3; src/masks/multiblock3d.py of the official code).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from slowfast_maskfeat.masks.boxes import BoolArray, check_grid
from slowfast_maskfeat.shapes import Grid

# Height over width of a block is uniform in this range in all of V-JEPA's configurations.
_ASPECT = (0.75, 1.5)
# Aspects at which the distribution of block sizes is evaluated.
_NUM_ASPECTS = 1000


class BlockKind(NamedTuple):
    """Blocks of one mask of a clip.

    Attributes:
        num_blocks: number of blocks.
        scale: area of each as a fraction of the frame, in (0, 1).
    """

    num_blocks: int
    scale: float


class MultiblockSampler:
    """Draws one mask of each kind for a clip.

    The blocks of one mask have one size, whose aspect is drawn, and lie anywhere in the frame; they
    may overlap. Every mask of a kind has the same number of masked tokens: the mean number that
    `num_blocks` random blocks cover. Blocks are added until it is reached, and the last one is cut
    from a random side. Deviation: V-JEPA always draws `num_blocks`, and drops tokens of masks and
    of contexts down to the smallest ones in each process's batch, so that its masks depend on the
    other clips; and one block size serves the whole batch there.

    Args:
        grid: size of the masks.
        kinds: kinds of masks (AUG.MASK_BLOCKS).

    Attributes:
        counts: masked tokens of each kind.

    Raises:
        ValueError: there are no kinds, or one has no blocks or a scale outside (0, 1); or the grid
            has fewer than two tokens in a step.
    """

    def __init__(self, grid: Grid, kinds: Sequence[BlockKind]) -> None:
        check_grid(grid)
        if grid.h * grid.w < 2:
            raise ValueError(f"multi-block masks must have at least 2 tokens in a step, got {grid}")
        for kind in kinds or [BlockKind(0, 0.0)]:
            if kind.num_blocks < 1 or not 0.0 < kind.scale < 1.0:
                raise ValueError(
                    "AUG.MASK_BLOCKS must be pairs of a number of blocks >= 1 and their area as a "
                    f"fraction of the frame in (0, 1), got {[list(pair) for pair in kinds]}; "
                    "V-JEPA uses [[8, 0.15], [2, 0.7]]"
                )
        self.grid = grid
        self.kinds = tuple(kinds)
        self.counts = tuple(grid.t * _mean_coverage(grid, kind) for kind in kinds)

    def __call__(self, generator: np.random.Generator) -> Tensor:
        """Draw the masks of a clip: (kinds, t, h, w) bool, True = masked."""
        frames = [
            _cover(self.grid, kind.scale, count // self.grid.t, generator)
            for kind, count in zip(self.kinds, self.counts, strict=True)
        ]
        masks = np.repeat(np.stack(frames)[:, None], self.grid.t, axis=1)
        return torch.from_numpy(masks)


def _block_size(grid: Grid, scale: float, aspect: float) -> tuple[int, int]:
    """Rows and columns of a block, at most those of the grid."""
    area = max(1, int(grid.h * grid.w * scale))
    rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return min(max(rows, 1), grid.h), min(max(columns, 1), grid.w)


def _mean_coverage(grid: Grid, kind: BlockKind) -> int:
    """Mean number of cells of a frame that the blocks cover, rounded; not all of them."""
    low, high = _ASPECT
    aspects = (low + (high - low) * (n + 0.5) / _NUM_ASPECTS for n in range(_NUM_ASPECTS))
    sizes = Counter(_block_size(grid, kind.scale, aspect) for aspect in aspects)
    mean = 0.0
    for (rows, columns), times in sizes.items():
        inside = np.outer(_inside(grid.h, rows), _inside(grid.w, columns))
        mean += float((1 - (1 - inside) ** kind.num_blocks).sum()) * times / _NUM_ASPECTS
    return min(round(mean), grid.h * grid.w - 1)


def _inside(length: int, side: int) -> np.ndarray:
    """Probability of each of `length` positions to lie in a block of `side` at a random place."""
    starts = np.arange(length - side + 1)[:, None]
    positions = np.arange(length)
    return ((positions >= starts) & (positions < starts + side)).mean(axis=0)


def _cover(grid: Grid, scale: float, count: int, generator: np.random.Generator) -> BoolArray:
    """Mask `count` cells of a frame by blocks of one size: (h, w)."""
    rows, columns = _block_size(grid, scale, float(generator.uniform(*_ASPECT)))
    mask = np.zeros((grid.h, grid.w), dtype=np.bool_)
    num_masked = 0
    while num_masked < count:
        top = int(generator.integers(grid.h - rows + 1))
        left = int(generator.integers(grid.w - columns + 1))
        block = np.zeros_like(mask)
        block[top : top + rows, left : left + columns] = True
        added = np.argwhere(block & ~mask)
        # From one side to the other, of which the end is cut off in the last block.
        axis, sign = divmod(int(generator.integers(4)), 2)
        added = added[np.argsort(added[:, axis] * (2 * sign - 1), kind="stable")]
        added = added[: count - num_masked]
        mask[added[:, 0], added[:, 1]] = True
        num_masked += len(added)
    return mask
