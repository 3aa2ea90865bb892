"""Box-wise masking of a grid, shared by the cube, block and tube masks.

Boxes of random size and position are tried one after another; the first whose number of newly
masked cells is neither 0 nor above the rest of the quota is masked, and the next round of tries
begins. A round without such a box ends the mask (BEiT, arXiv:2106.08254, algorithm 1; extended to
three dimensions by MaskFeat, arXiv:2112.09133, section 4.2).

A set of cells is an integer with one bit per cell, in C order of (t, h, w): a box is a product of
three repeated-bit patterns, its newly masked cells are one bitwise `and`, and their number is one
bit count. The sizes and positions of a whole round of tries are drawn at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from slowfast_maskfeat.shapes import Grid

Rng = np.random.Generator
BoolArray = npt.NDArray[np.bool_]

# Width over height of a block lies between 0.3 and 1 / 0.3 (BEiT, algorithm 1).
_LOG_ASPECT_LIMIT = math.log(1 / 0.3)

# Far more rounds of tries than any mask needs: each but the last masks a cell, and the first box
# is found within a few. Reaching it means that the rules allow no box at all.
_MAX_ROUNDS = 100_000


class BoxRules(NamedTuple):
    """Quota and size of the boxes of one mask.

    Attributes:
        quota: most cells to mask.
        min_area: smallest spatial area of a box, in cells.
        max_area: largest spatial area of a box, in cells.
        area_within_quota: whether the rest of the quota also bounds the area, and `max_area` the
            number of cells that a box adds: the form for images.
        num_tries: tries per box before the mask ends.
        may_be_empty: a first round without an admissible box ends the mask, too.
    """

    quota: float
    min_area: int
    max_area: float
    area_within_quota: bool
    num_tries: int
    may_be_empty: bool = False


def check_ratio(ratio: float) -> None:
    """Check the share of masked tokens.

    Raises:
        ValueError: `ratio` is not in (0, 1).
    """
    if not 0.0 < ratio < 1.0:
        raise ValueError(f"AUG.MASK_RATIO must be in (0, 1), got {ratio}; MaskFeat uses 0.4")


def check_grid(grid: Grid) -> None:
    """Check that a grid has cells.

    Raises:
        ValueError: an axis of `grid` is below 1.
    """
    if min(grid) < 1:
        raise ValueError(f"every axis of a token grid must be >= 1, got {grid}")


def quota_of(num_cells: int, ratio: float) -> int:
    """Number of cells in a share of `ratio`: rounded, and at least one."""
    return max(1, round(num_cells * ratio))


def smallest_area(grid: Grid, preferred: int, quota: int) -> int:
    """Smallest area of a box: `preferred`, or less where no such box fits the grid or the quota.

    Published settings are unaffected; it makes small ratios and narrow grids possible.
    """
    side = max(1, min(grid.h, grid.w) - 1)
    return min(preferred, quota, side * side)


def hide_boxes(grid: Grid, rules: BoxRules, generator: Rng) -> BoolArray:
    """Mask box after box until the quota is reached or a round of tries fails.

    A box never spans the full height or width of the grid (unless that is one cell), but may
    span all time steps. A round that fails before anything is masked is repeated, so that no
    mask is empty: a deviation that matters only where the quota is close to the smallest box. Not
    so with `rules.may_be_empty`.

    Args:
        grid: size of the mask.
        rules: quota and size of the boxes.
        generator: source of all draws.

    Returns:
        (t, h, w), True = masked; at least 1, unless the mask may be empty, and at most
        `rules.quota` cells.
    """
    visible = (1 << grid.num_tokens) - 1
    num_hidden = 0
    num_rounds = 0
    boxes = _draw_boxes(grid, rules, rules.max_area, generator)
    while num_hidden < rules.quota:
        remaining = rules.quota - num_hidden
        if rules.area_within_quota:  # the sizes depend on the rest of the quota: draw anew
            remaining = min(remaining, rules.max_area)
            boxes = _draw_boxes(grid, rules, remaining, generator)
        added = _first_admissible(islice(boxes, rules.num_tries), visible, remaining)
        num_rounds += 1
        if added:
            visible ^= added
            num_hidden += added.bit_count()
        elif num_hidden > 0 or rules.may_be_empty:
            break
        assert num_rounds < _MAX_ROUNDS, f"no box of {rules} fits {grid}"
    return _unpack(visible, grid) == 0


def _draw_boxes(grid: Grid, rules: BoxRules, max_area: float, generator: Rng) -> Iterator[int]:
    """Yields boxes as sets of cells without end; boxes that are too high or too wide are empty.

    The area lies between `rules.min_area` and `max_area`, whichever of them is the larger.
    """
    # rows[n] has n bits, one in every row; frames[n] likewise for time steps.
    rows = _repeated_bits(grid.h, spacing=grid.w)
    frames = _repeated_bits(grid.t, spacing=grid.h * grid.w)
    ends = np.array(grid)[:, None] + 1
    largest = np.array([[max(1, grid.h - 1)], [max(1, grid.w - 1)]])
    strides = np.array([grid.h * grid.w, grid.w, 1])
    while True:
        draws = generator.random((6, rules.num_tries))  # area, aspect, duration, start in t, h, w
        side = np.sqrt(rules.min_area + (max_area - rules.min_area) * draws[0])
        root_aspect = np.exp((draws[1] - 0.5) * _LOG_ASPECT_LIMIT)
        # random() is below 1, so the floors reach every duration and start, and no more.
        duration = np.floor(draws[2] * grid.t) + 1
        sizes = np.rint(np.stack((duration, side * root_aspect, side / root_aspect)))
        sizes[1:] *= (sizes[1:] <= largest).all(axis=0)
        first_cells = strides @ np.floor(draws[3:] * (ends - sizes))
        columns = zip(*sizes.astype(int).tolist(), first_cells.astype(int).tolist(), strict=True)
        for num_frames, num_rows, num_columns, first_cell in columns:
            row = (1 << num_columns) - 1
            yield row * rows[num_rows] * frames[num_frames] << first_cell


def _repeated_bits(count: int, *, spacing: int) -> list[int]:
    """For n = 0 to `count`, the integer whose bits 0, spacing, ..., (n - 1) * spacing are set."""
    patterns = [0]
    for position in range(count):
        patterns.append(patterns[-1] | 1 << position * spacing)
    return patterns


def _first_admissible(boxes: Iterable[int], visible: int, remaining: float) -> int:
    """The visible cells of the first box that has 1 up to `remaining` of them; 0 if none has."""
    for box in boxes:
        added = box & visible
        if added and added.bit_count() <= remaining:
            return added
    return 0


def _unpack(cells: int, grid: Grid) -> npt.NDArray[np.uint8]:
    """A set of cells as an array of 0 and 1, (t, h, w)."""
    packed = cells.to_bytes((grid.num_tokens + 7) // 8, "little")
    bits = np.unpackbits(
        np.frombuffer(packed, dtype=np.uint8), count=grid.num_tokens, bitorder="little"
    )
    return bits.reshape(grid)
