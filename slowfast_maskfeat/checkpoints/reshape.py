"""Bringing single weights to another shape: tables to other grids, kernels to other ranks.

Position tables are resized by `position_tables`; inflating kernels from images to video follows
Carreira and Zisserman, "Quo Vadis, Action Recognition?" (CVPR 2017), section 2.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from slowfast_maskfeat.position_tables import (
    NUM_CLASS_ROWS,
    joint_positions,
    resize_bias_table,
    resize_spatial,
    resize_temporal,
)
from slowfast_maskfeat.shapes import Grid

BIAS_TABLE = "relative_position_bias_table"  # the last part of its name

_MOST_FRAMES = 1024


@dataclass(frozen=True)
class TokenLayout:
    """How the tokens of a model lie, as far as it is known.

    Attributes:
        has_cls: whether a class token comes first.
        grid: patch tokens along time, rows and columns; None if unknown.
        min_steps: least time steps of a grid that is not known.
    """

    has_cls: bool
    grid: Grid | None
    min_steps: int = 1


@dataclass(frozen=True)
class Reshaped:
    """A weight in its new shape.

    Attributes:
        value: the weight.
        how: in words, for the report.
    """

    value: Tensor
    how: str


def reshape_weight(
    name: str,
    weight: Tensor,
    shape: tuple[int, ...],
    *,
    source: TokenLayout,
    target: TokenLayout,
    inflate: str,
) -> Reshaped | None:
    """Bring one weight to the shape a model has for it, if there is a way that keeps its meaning.

    Of a decoder, `decoder_pos_embed` and `dec_pos_embed_*` are as those without the front part.

    * `rel_pos` tables (length, head width): linear along the length.
    * `pos_embed_temporal` (1, t, D): linear along time.
    * `pos_embed_spatial` (1, h * w, D): bicubic over rows and columns; a source of unknown grid
      is taken to be square.
    * `pos_embed` (1, [1 +] t * h * w, D): bicubic over rows and columns, then linear along time.
    * `relative_position_bias_table` ((2 h - 1) (2 w - 1) [+ 3], heads): `resize_bias_table`; a
      source of unknown grid is taken to be square.
    * convolution kernels (out, in, [t,] h, w): from one frame repeated along time; to one frame
      summed over time, which is the response to a still clip.

    Args:
        name: name of the weight in the model.
        weight: its value in the file.
        shape: the model's shape.
        source: tokens of the model the file was written from.
        target: tokens of the model.
        inflate: `mean` divides a repeated kernel by its length, so that a still clip gives the
            image's response; `repeat` does not.

    Returns:
        The weight in the new shape, or None if there is no such way.
    """
    last = table_kind(name)
    if last.startswith("rel_pos") and weight.ndim == len(shape) == 2:
        if weight.shape[1] != shape[1]:
            return None
        resized = resize_temporal(weight[None].float(), length=shape[0])[0]
        return Reshaped(resized, "linear along its length")
    if last == "pos_embed_temporal" and _differs_in_length_only(weight, shape):
        return Reshaped(resize_temporal(weight.float(), length=shape[1]), "linear along time")
    if last == "pos_embed_spatial" and _differs_in_length_only(weight, shape):
        return _resize_spatial_table(weight, shape[1], source, target)
    if last == "pos_embed" and _differs_in_length_only(weight, shape):
        return _resize_joint_table(weight, shape[1], source, target)
    if last == BIAS_TABLE and weight.ndim == len(shape) == 2 and weight.shape[1] == shape[1]:
        return _resize_bias_table(weight, source, target)
    if last == "weight" and weight.ndim in (4, 5) and len(shape) in (4, 5):
        return _change_kernel_length(weight, shape, inflate)
    return None


def table_kind(name: str) -> str:
    """Last part of a name, with the encoder's name for a decoder's table, which is of its grid.

    `decoder_pos_embed` and `dec_pos_embed_spatial` are `pos_embed` and `pos_embed_spatial`.
    """
    return name.rpartition(".")[2].removeprefix("decoder_").removeprefix("dec_")


def _differs_in_length_only(weight: Tensor, shape: tuple[int, ...]) -> bool:
    return weight.ndim == len(shape) == 3 and weight.shape[::2] == (shape[0], shape[2])


def _resize_spatial_table(
    table: Tensor, length: int, source: TokenLayout, target: TokenLayout
) -> Reshaped | None:
    old, new = _rows_and_columns(table.shape[1], source), _rows_and_columns(length, target)
    if old is None or new is None:
        return None
    how = f"bicubic, {old[0]}x{old[1]} to {new[0]}x{new[1]}"
    return Reshaped(resize_spatial(table.float(), source=old, target=new), how)


def _rows_and_columns(size: int, layout: TokenLayout) -> tuple[int, int] | None:
    if layout.grid is not None and layout.grid.h * layout.grid.w == size:
        return layout.grid.h, layout.grid.w
    side = square_side(size)
    return None if side is None else (side, side)


def _resize_joint_table(
    table: Tensor, length: int, source: TokenLayout, target: TokenLayout
) -> Reshaped | None:
    grid = target.grid
    if grid is None or grid.num_tokens + int(target.has_cls) != length:
        return None
    if source.has_cls != target.has_cls:
        return None
    front = int(source.has_cls)
    old = source.grid or guess_grid(table.shape[1] - front, grid, source.min_steps)
    if old is None or old.num_tokens + front != table.shape[1]:
        return None
    table = table.float()
    patches = joint_positions(table[:, front:], source=old, target=grid)
    resized = torch.cat((table[:, :front], patches), dim=1)
    known = "" if source.grid else " (taken for the grid of the file)"
    return Reshaped(resized, f"bicubic and linear, {tuple(old)}{known} to {tuple(grid)}")


def _resize_bias_table(table: Tensor, source: TokenLayout, target: TokenLayout) -> Reshaped | None:
    if target.grid is None or source.has_cls != target.has_cls:
        return None
    num_offsets = len(table) - NUM_CLASS_ROWS * source.has_cls
    old = source.grid[1:] if source.grid is not None else _square_of_offsets(num_offsets)
    if old is None or (2 * old[0] - 1) * (2 * old[1] - 1) != num_offsets:
        return None
    new = target.grid[1:]
    resized = resize_bias_table(table.float(), source=old, target=new, has_cls=source.has_cls)
    return Reshaped(resized, f"cubic splines, {old[0]}x{old[1]} to {new[0]}x{new[1]}")


def _square_of_offsets(num_offsets: int) -> tuple[int, int] | None:
    """Rows and columns of the square grid with this many relative offsets; None without one."""
    side = square_side(num_offsets)
    return ((side + 1) // 2, (side + 1) // 2) if side and side % 2 else None


def guess_grid(num_tokens: int, target: Grid, min_steps: int = 1) -> Grid | None:
    """The grid that a joint position table of unknown origin was most likely made for.

    Frames are taken to be square. The grid that keeps the number of time steps wins, then the one
    that keeps rows and columns, then the one whose proportions are nearest.

    Args:
        num_tokens: patch tokens of the table.
        target: grid of the model that receives it.
        min_steps: least number of time steps.

    Returns:
        The grid, or None if no square frames make that number.
    """
    candidates = [
        Grid(t, side, side)
        for t in range(min_steps, min(num_tokens, _MOST_FRAMES) + 1)
        if num_tokens % t == 0 and (side := square_side(num_tokens // t)) is not None
    ]
    if not candidates:
        return None
    proportion = math.log(target.t / math.sqrt(target.h * target.w))

    def unlikeliness(grid: Grid) -> tuple[bool, bool, float]:
        return (
            grid.t != target.t,
            (grid.h, grid.w) != (target.h, target.w),
            abs(math.log(grid.t / grid.h) - proportion),
        )

    return min(candidates, key=unlikeliness)


def square_side(size: int) -> int | None:
    """Side of the square grid with this many tokens; None if the number is not a square."""
    side = math.isqrt(size)
    return side if side * side == size else None


def _change_kernel_length(weight: Tensor, shape: tuple[int, ...], inflate: str) -> Reshaped | None:
    kernel = weight if weight.ndim == 5 else weight[:, :, None]  # (out, in, t, h, w)
    wanted = shape if len(shape) == 5 else (*shape[:2], 1, *shape[2:])
    old_length, length = kernel.shape[2], wanted[2]
    if (*kernel.shape[:2], *kernel.shape[3:]) != (*wanted[:2], *wanted[3:]):
        return None
    if old_length == length:
        return Reshaped(kernel.reshape(shape), "the same numbers")
    if old_length == 1:
        kernel = kernel.expand(*wanted)
        if inflate == "mean":
            return Reshaped(kernel.float() / length, f"repeated {length} times, divided by it")
        return Reshaped(kernel, f"repeated {length} times, not divided")
    if length == 1:
        return Reshaped(kernel.float().sum(dim=2).reshape(shape), f"summed over {old_length} times")
    return None
