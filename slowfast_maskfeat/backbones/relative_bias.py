"""A learned bias of attention scores for each head and relative position of two tokens (BEiT).

Source: the authors' code of BEiT (Bao et al., "BEiT: BERT Pre-Training of Image Transformers",
2022), beit/modeling_pretrain.py and beit/modeling_finetune.py, whose names the parameters have.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from slowfast_maskfeat.backbones.options import EncoderOptions
from slowfast_maskfeat.position_tables import NUM_CLASS_ROWS, resize_bias_table
from slowfast_maskfeat.shapes import Grid

BIAS_TABLE = "relative_position_bias_table"
_INDEX = "relative_position_index"


class RelativePositionBias(nn.Module):
    """The bias that all blocks share.

    Args:
        grid: grid of the patch tokens at the configured size, of one time step. Other grids work:
            the table is resized to them, see `resize_bias_table`.
        num_heads: heads of every block.
        has_cls: whether a class token precedes the patch tokens.
    """

    def __init__(self, grid: Grid, num_heads: int, *, has_cls: bool) -> None:
        super().__init__()
        self.grid = grid
        self.has_cls = has_cls
        add_bias_table(self, grid, num_heads, has_cls=has_cls)

    def forward(self, grid: Grid) -> Tensor:
        """Bias of every query and key of a grid: (heads, N, N), the class token included."""
        return read_bias(self, source=self.grid, target=grid, has_cls=self.has_cls)


def add_bias_table(module: nn.Module, grid: Grid, num_heads: int, *, has_cls: bool) -> None:
    """Give a module a table of biases, which start at 0.

    The table (rows, heads) has a row for each offset of two patches, those of rows first, and then,
    with a class token, one for its scores with patches, one for scores of patches with it, and one
    for its score with itself. The rows that each query and key look up are a buffer, not saved.

    Args:
        module: gets `relative_position_bias_table` and `relative_position_index`.
        grid: grid of the patch tokens, of one time step.
        num_heads: attention heads.
        has_cls: whether a class token precedes the patch tokens.
    """
    num_rows = (2 * grid.h - 1) * (2 * grid.w - 1) + NUM_CLASS_ROWS * has_cls
    module.register_parameter(BIAS_TABLE, nn.Parameter(torch.zeros(num_rows, num_heads)))
    module.register_buffer(_INDEX, bias_index(grid, has_cls=has_cls), persistent=False)


def read_bias(module: nn.Module, *, source: Grid, target: Grid, has_cls: bool) -> Tensor:
    """Read the biases of a grid from the table that a module holds.

    Args:
        module: holder of the table, see `add_bias_table`.
        source: grid the table was made for.
        target: grid of the patch tokens.
        has_cls: whether a class token precedes them.

    Returns:
        (heads, N, N), the class token included.

    Raises:
        ValueError: the target has several time steps.
    """
    if target.t != 1:
        raise ValueError(
            f"MVIT.REL_POS_BIAS must be '' for tokens of several time steps, got {target}"
        )
    table, index = (cast(Tensor, getattr(module, name)) for name in (BIAS_TABLE, _INDEX))
    if source != target:
        table = resize_bias_table(table, source=source[1:], target=target[1:], has_cls=has_cls)
        index = bias_index(target, has_cls=has_cls, device=table.device)
    return table[index].permute(2, 0, 1)


def bias_index(grid: Grid, *, has_cls: bool, device: torch.device | None = None) -> Tensor:
    """Row of the table for each query and key.

    Args:
        grid: grid of the patch tokens, of one time step.
        has_cls: whether a class token precedes them.
        device: where to put the result.

    Returns:
        (N, N) int64: query, key.
    """
    rows, columns = (torch.arange(size, device=device) for size in (grid.h, grid.w))
    of_rows = rows[:, None] - rows + grid.h - 1  # query, key
    of_columns = columns[:, None] - columns + grid.w - 1
    index = of_rows[:, None, :, None] * (2 * grid.w - 1) + of_columns[None, :, None, :]
    patches = index.reshape(grid.num_tokens, grid.num_tokens)
    if not has_cls:
        return patches
    first = (2 * grid.h - 1) * (2 * grid.w - 1)
    whole = torch.empty(
        (grid.num_tokens + 1, grid.num_tokens + 1), dtype=torch.int64, device=device
    )
    whole[1:, 1:] = patches
    whole[0] = first
    whole[:, 0] = first + 1
    whole[0, 0] = first + 2
    return whole


def check_position_bias(options: EncoderOptions, grid: Grid) -> None:
    """Refuse an encoder whose scores a table of relative positions does not describe.

    Args:
        options: options of the encoder.
        grid: its grid of patch tokens at the configured size.

    Raises:
        ValueError: its tokens have several time steps, it pools, or it has other relative
            positions; or blocks that share a table have different numbers of heads.
    """
    block, geometries = options.block, options.geometries()
    if grid.t != 1:
        raise ValueError(
            f"MVIT.REL_POS_BIAS must be '' for tokens of several time steps, got "
            f"{block.position_bias!r} and {grid}; it is for images (DATA.NUM_FRAMES 1)"
        )
    refused = {
        "MVIT.POOL_Q_STRIDE": any(shape.kernel_q for shape in geometries),
        "MVIT.POOL_KV_STRIDE or POOL_KV_STRIDE_ADAPTIVE": any(
            shape.kernel_kv for shape in geometries
        ),
        "MVIT.REL_POS_SPATIAL": block.rel_pos_spatial,
        "MVIT.REL_POS_TEMPORAL": block.rel_pos_temporal,
        "MVIT.HEAD_MUL": block.position_bias == "shared"
        and len({shape.num_heads for shape in geometries}) > 1,
    }
    wrong = [key for key, is_on in refused.items() if is_on]
    if wrong:
        raise ValueError(
            f"MVIT.REL_POS_BIAS must be '' with {', '.join(wrong)}, got {block.position_bias!r}: "
            "its tables are for a plain transformer without other relative positions"
        )
