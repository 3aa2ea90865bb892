"""The token grid, and the axis names used in the whole package.

    B C T H W   batch of clips in pixels: batch, channel, frame, row, column
    t h w       token grid: the clip after the patch embedding or a later block
    N           number of tokens, N = t * h * w
    D           token width
    M           number of masked tokens in a batch, in the order of (b, t, h, w)
    K           number of classes
    R           number of boxes in a batch

A mask is a bool tensor on a token grid; True means masked.
"""

from __future__ import annotations

from typing import NamedTuple


class Grid(NamedTuple):
    """Size of a token grid: `t` time steps, `h` rows, `w` columns."""

    t: int
    h: int
    w: int

    @property
    def num_tokens(self) -> int:
        """N = t * h * w."""
        return self.t * self.h * self.w

    def divides(self, other: Grid) -> bool:
        """Whether every cell of this grid covers a whole number of cells of the finer `other`."""
        return all(fine % coarse == 0 for coarse, fine in zip(self, other, strict=True))

    def __str__(self) -> str:
        return f"{self.t}x{self.h}x{self.w}"


def position_grid(model: object) -> Grid | None:
    """Return the grid of a model's position tables, its attribute `configured_grid`.

    None if it has none, as the backbone of an extension may: a model of another size then cannot
    resize its tables.
    """
    return getattr(model, "configured_grid", None)
