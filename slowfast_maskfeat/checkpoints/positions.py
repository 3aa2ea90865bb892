"""Position tables in the form that a model has them: joint or separable, of images or videos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from slowfast_maskfeat.checkpoints.reshape import (
    BIAS_TABLE,
    TokenLayout,
    guess_grid,
    square_side,
    table_kind,
)
from slowfast_maskfeat.position_tables import separable_positions
from slowfast_maskfeat.shapes import Grid

JOINT, SPATIAL, TEMPORAL, CLASS = (
    "pos_embed",
    "pos_embed_spatial",
    "pos_embed_temporal",
    "pos_embed_class",
)
TABLES = (JOINT, SPATIAL, TEMPORAL)
"""Those of the patches; `CLASS` is the class token's."""
_SHARED_BIAS = f"rel_pos_bias.{BIAS_TABLE}"


class MadeTable(NamedTuple):
    """A table that a file does not have.

    Attributes:
        value: the table.
        how: in words, for the report.
        layout: the tokens that it is of.
        made_of: names of the file's tables that it is made of.
    """

    value: Tensor
    how: str
    layout: TokenLayout
    made_of: tuple[str, ...] = ()


def is_of_images(weights: Mapping[str, Tensor]) -> bool:
    """Whether the patches of a model's weights have no time."""
    kernel = weights.get("patch_embed.proj.weight")
    return kernel is not None and kernel.ndim == 4


def source_layout(
    found: Mapping[str, Tensor], grid: Grid | None, *, for_one_step: bool = False
) -> TokenLayout:
    """How the tokens of the model that a file is of lie, as far as its tables tell.

    Args:
        found: the weights in the file.
        grid: what the file itself says, or None.
        for_one_step: whether the weights are for a model of images, or of clips as short: those of
            a video are then not taken for one of that length.

    Returns:
        The layout; of a square grid where nothing says otherwise.
    """
    has_cls = "cls_token" in found
    min_steps = 2 if for_one_step and not is_of_images(found) else 1
    if grid is None and SPATIAL in found and TEMPORAL in found:
        side = square_side(found[SPATIAL].shape[1])
        grid = Grid(found[TEMPORAL].shape[1], side, side) if side else None
    elif grid is None and JOINT in found and is_of_images(found):
        side = square_side(found[JOINT].shape[1] - int(has_cls))
        grid = Grid(1, side, side) if side else None
    return TokenLayout(has_cls, grid, min_steps)


def on_another_grid(name: str, source: TokenLayout, target: TokenLayout) -> bool:
    """Whether a position table of equal size is nevertheless of another grid (4x4 as 2x8)."""
    if source.grid is None or target.grid is None:
        return False
    kind = table_kind(name)
    if kind == JOINT:
        return source.grid != target.grid
    return kind in (SPATIAL, BIAS_TABLE) and source.grid[1:] != target.grid[1:]


def exchange_class_row(
    name: str, table: Tensor, own: Tensor, *, source: TokenLayout, target: TokenLayout
) -> MadeTable | None:
    """A joint table without the class token's row, or with one, as the model has it.

    A row that the file lacks is the model's own, as a whole `pos_embed_class` would be.

    Args:
        name: of the table.
        table: (1, [1 +] N, D), in the file.
        own: the model's.
        source: tokens of the model that the file is of.
        target: tokens of the model.

    Returns:
        The table; None where nothing is to be exchanged.
    """
    if table_kind(name) != JOINT or source.has_cls == target.has_cls:
        return None
    if table.ndim != 3 or table.shape[::2] != own.shape[::2]:
        return None
    layout = replace(source, has_cls=target.has_cls)
    if source.has_cls:
        return MadeTable(table[:, 1:], "without the class token's row", layout)
    joined = torch.cat((own[:, :1].float().cpu(), table.float()), dim=1)
    return MadeTable(joined, "the class token's row is the model's own", layout)


def other_form(
    found: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    *,
    source: TokenLayout,
    target: TokenLayout,
    inflate: str,
) -> dict[str, MadeTable]:
    """Tables that a model has and a file has not, made from those that it has.

    * joint to separable: of an image, its table; of a video the nearest sum (least squares), which
      is the means over time, rows and columns.
    * separable to joint: their sum; for an image the spatial table alone, as published.
    * biases of relative positions shared by all blocks to one table for each: copies, as BEiT's
      fine-tuning makes them.
    * of an image, what a video needs besides (`pos_embed_temporal`, `rel_pos_t`): zeros with
      `mean`, so that they change nothing at first; the published way, `repeat`, leaves them
      as initialized.

    Args:
        found: the weights in the file.
        state: those of the model.
        source: tokens of the model that the file is of.
        target: tokens of the model.
        inflate: `mean` or `repeat`.

    Returns:
        Table by name.
    """
    made: dict[str, MadeTable] = {}
    if SPATIAL in state and JOINT in found:
        made |= _separable(found, source, target)
    elif JOINT in state and SPATIAL in found:
        made |= _joint(found, is_of_images(state), source)
    if _SHARED_BIAS in found and _SHARED_BIAS not in state:
        copied, how = found[_SHARED_BIAS], "a copy of the one for all blocks"
        for name in state:
            if name.startswith("blocks.") and table_kind(name) == BIAS_TABLE:
                made[name] = MadeTable(copied, how, source, (_SHARED_BIAS,))
    if is_of_images(found) and not is_of_images(state) and inflate == "mean":
        for name, own in state.items():
            if name == TEMPORAL or (name.startswith("blocks.") and name.endswith(".rel_pos_t")):
                zeros = torch.zeros(own.shape)
                made[name] = MadeTable(zeros, "zeros, as an image has no time", target)
    return {name: table for name, table in made.items() if name in state and name not in found}


def _separable(
    found: Mapping[str, Tensor], source: TokenLayout, target: TokenLayout
) -> dict[str, MadeTable]:
    front = int(source.has_cls)
    table = found[JOINT].float()  # (1, [1 +] t * h * w, D)
    patches, how = table[:, front:], f"from {JOINT}"
    made = {CLASS: MadeTable(table[:, :1], how, source, (JOINT,))} if front else {}
    if is_of_images(found):
        return {**made, SPATIAL: MadeTable(patches, how, source, (JOINT,))}
    num_tokens = patches.shape[1]
    grid = source.grid or (guess_grid(num_tokens, target.grid) if target.grid else None)
    if grid is None or grid.num_tokens != num_tokens:
        return made
    planes = patches.unflatten(1, (grid.t, grid.h * grid.w))  # (1, t, h * w, D)
    spatial = planes.mean(dim=1)
    temporal = planes.mean(dim=2) - spatial.mean(dim=1, keepdim=True)
    how, layout = f"{how}, least squares over {tuple(grid)}", TokenLayout(source.has_cls, grid)
    made[SPATIAL] = MadeTable(spatial, how, layout, (JOINT,))
    made[TEMPORAL] = MadeTable(temporal, how, layout, (JOINT,))
    return made


def _joint(
    found: Mapping[str, Tensor], for_images: bool, source: TokenLayout
) -> dict[str, MadeTable]:
    patches, how, grid = found[SPATIAL].float(), f"from {SPATIAL}", source.grid
    names = [SPATIAL]
    if for_images:
        grid = None if grid is None else grid._replace(t=1)
    elif TEMPORAL not in found or grid is None:
        return {}
    else:
        temporal = found[TEMPORAL].float()
        patches = separable_positions(patches, temporal, source=grid, target=grid)
        how = f"the sum of {SPATIAL} and {TEMPORAL}"
        names.append(TEMPORAL)
    has_cls = CLASS in found
    if has_cls:
        patches = torch.cat([found[CLASS].float(), patches], dim=1)
        names.append(CLASS)
    return {JOINT: MadeTable(patches, how, TokenLayout(has_cls, grid), tuple(names))}
