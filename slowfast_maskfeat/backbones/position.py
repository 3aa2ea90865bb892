"""Absolute positions of a token grid: learned tables, and fixed sin-cos ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from slowfast_maskfeat.backbones.initialization import truncated_normal
from slowfast_maskfeat.position_tables import joint_positions, separable_positions
from slowfast_maskfeat.shapes import Grid


def learned_tables(
    grid: Grid,
    width: int,
    *,
    name: str,
    has_cls: bool,
    separable: bool,
    fill: Callable[[Tensor], None] = truncated_normal,
) -> dict[str, nn.Parameter]:
    """Make the tables of learned positions, with their initial values.

    Args:
        grid: grid of the tokens.
        width: width D of a token.
        name: name of the one table; the front of the names of several.
        has_cls: whether the cls token has a position too.
        separable: one table for space, one for time (and one for the cls token) instead of one.
        fill: fills a table in place.

    Returns:
        Name to (1, length, D): `name`, or `name` with _spatial, _temporal and _class behind it.
    """
    sizes = {name: grid.num_tokens + int(has_cls)}
    if separable:
        sizes = {f"{name}_spatial": grid.h * grid.w, f"{name}_temporal": grid.t}
        if has_cls:
            sizes[f"{name}_class"] = 1
    tables = {}
    for table_name, size in sizes.items():
        tables[table_name] = nn.Parameter(torch.zeros(1, size, width))
        fill(tables[table_name])
    return tables


def table_positions(
    module: nn.Module,
    name: str,
    *,
    has_cls: bool,
    source: Grid,
    target: Grid,
    offset: float = 0.0,
) -> tuple[Tensor, Tensor | None]:
    """Read the positions of a grid from the tables that a module holds.

    Args:
        module: holder of the tables, named as by `learned_tables`.
        name: as there.
        has_cls: whether they hold a position of the cls token.
        source: grid the tables were made for.
        target: grid of the result.
        offset: of the resizing, see `position_tables.resize_spatial`.

    Returns:
        Positions of the patch tokens (1, N, D), and of the cls token (1, 1, D) or None.
    """
    if hasattr(module, f"{name}_spatial"):
        spatial, temporal = getattr(module, f"{name}_spatial"), getattr(module, f"{name}_temporal")
        positions = separable_positions(
            spatial, temporal, source=source, target=target, offset=offset
        )
        return positions, getattr(module, f"{name}_class") if has_cls else None
    table = getattr(module, name)
    patches = table[:, int(has_cls) :]
    positions = joint_positions(patches, source=source, target=target, offset=offset)
    return positions, table[:, :1] if has_cls else None


def fixed_table(grid: Grid, width: int, *, has_cls: bool, time: bool) -> nn.Parameter:
    """Make the table of fixed positions, a parameter that does not learn.

    Args:
        grid: grid of the tokens.
        width: width D of a token.
        has_cls: whether the cls token, whose position is zero, comes first.
        time: see `sincos_positions`, with its errors.

    Returns:
        (1, N or N + 1, D).
    """
    positions = sincos_positions(grid, width, time=time)
    if has_cls:
        positions = torch.cat((torch.zeros_like(positions[:, :1]), positions), dim=1)
    return nn.Parameter(positions, requires_grad=False)


def sincos_positions(grid: Grid, width: int, *, time: bool = True) -> Tensor:
    """Fixed sin-cos positions.

    A quarter of the width codes time, three eighths the column and three eighths the row; a grid
    with t = 1 still has its (constant) temporal part. Without time one half codes the column and
    the other the row.
    Source: MAE as spatiotemporal learners (Feichtenhofer et al., 2022), section 3; for images MAE
    (He et al., 2022), appendix A.

    Args:
        grid: grid of the tokens.
        width: width D of a token, a multiple of 16, or of 4 without time.
        time: whether a part codes time.

    Returns:
        (1, N, D), float32.

    Raises:
        ValueError: `width` is not such a multiple, or there are several steps but no time.
    """
    multiple = 16 if time else 4
    if width % multiple:
        raise ValueError(
            "MVIT.EMBED_DIM and MASK.DECODER_EMBED_DIM must be a multiple of "
            f"{multiple} with fixed sin-cos positions, got {width}"
        )
    if not time and grid.t > 1:
        raise ValueError(
            f"MVIT.SINCOS_POS_TIME must be True for a token grid of {grid.t} time steps ({grid}), "
            "got False: they would all have the same positions"
        )
    of_time = width // 4 if time else 0
    of_side = (width - of_time) // 2
    parts = (
        _sines_and_cosines(grid.t, of_time)[:, None, None].expand(*grid, -1),
        _sines_and_cosines(grid.w, of_side)[None, None, :].expand(*grid, -1),
        _sines_and_cosines(grid.h, of_side)[None, :, None].expand(*grid, -1),
    )
    return torch.cat(parts, dim=-1).reshape(1, grid.num_tokens, width).float()


def _sines_and_cosines(length: int, width: int) -> Tensor:
    """(length, width) float64: sines, then cosines, of falling frequency."""
    frequencies = torch.arange(width // 2, dtype=torch.float64) / (width / 2)
    frequencies = 1.0 / 10000**frequencies
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=1)
