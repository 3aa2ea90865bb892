"""Geometry of each block of a multiscale transformer, from the options of its stages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from slowfast_maskfeat.shapes import Grid

Triple = tuple[int, int, int]


class BlockGeometry(NamedTuple):
    """Widths, heads, strides and kernels of one block.

    Kernels and strides are (t, h, w); None: the block does not pool there.
    """

    dim: int
    dim_out: int
    attention_dim: int
    num_heads: int
    stride_q: Triple | None
    stride_kv: Triple | None
    kernel_q: Triple | None
    kernel_kv: Triple | None
    drop_path: float

    @property
    def steps_q(self) -> Triple:
        """Query strides, 1 where the block does not pool its queries."""
        return self.stride_q or (1, 1, 1)

    @property
    def steps_kv(self) -> Triple:
        """Key and value strides, 1 where the block does not pool them."""
        return self.stride_kv or (1, 1, 1)

    @property
    def kernel_skip(self) -> Triple:
        """Kernel of the max pooling of the shortcut: stride + 1, as published."""
        return tuple(step + 1 if step > 1 else 1 for step in self.steps_q)  # type: ignore

    def output_grid(self, grid: Grid) -> Grid:
        """Grid of the tokens after the block's query pooling."""
        return pooled_grid(grid, self.kernel_q, self.stride_q)

    def check_shortcut(self, grid: Grid) -> None:
        """Check that the shortcut has as many tokens as the pooled queries.

        Args:
            grid: grid of the tokens that enter the block.

        Raises:
            ValueError: it has others.
        """
        pooled, kept = self.output_grid(grid), pooled_grid(grid, self.kernel_skip, self.steps_q)
        if pooled != kept:
            raise ValueError(
                f"MVIT.POOL_KVQ_KERNEL must pool queries to the {tuple(kept)} tokens of a block's "
                f"shortcut, got {tuple(pooled)} of {tuple(grid)} tokens with the kernel "
                f"{self.kernel_q} and the stride {self.stride_q} of MVIT.POOL_Q_STRIDE"
            )


def pooled_grid(grid: Grid, kernel: Triple | None, stride: Triple | None) -> Grid:
    """Grid after pooling with half a kernel of padding, which rounds up.

    Args:
        grid: grid before it.
        kernel: (t, h, w); None: no pooling.
        stride: (t, h, w).

    Returns:
        Grid after it.
    """
    if kernel is None or stride is None:
        return grid
    sizes = (
        (size + 2 * (extent // 2) - extent) // step + 1
        for size, extent, step in zip(grid, kernel, stride, strict=True)
    )
    return Grid(*sizes)


def output_grids(grid: Grid, blocks: Sequence[BlockGeometry]) -> list[Grid]:
    """Grids of the tokens that leave each block.

    Args:
        grid: grid of the tokens that enter the first.
        blocks: geometry of the blocks.

    Returns:
        One grid per block.
    """
    grids = []
    for block in blocks:
        grid = block.output_grid(grid)
        grids.append(grid)
    return grids


def round_width(width: float, multiplier: float, *, divisor: int = 1) -> int:
    """Multiply a width and round it to a multiple of `divisor`, losing at most 10 %.

    Args:
        width: width to start from.
        multiplier: factor; 0 and 1 leave the width as it is.
        divisor: the result is a multiple of this.

    Returns:
        The width, at least 1.
    """
    if not multiplier:
        return int(width)
    exact = width * multiplier
    rounded = max(1, int(exact + divisor / 2) // divisor * divisor)
    if rounded < 0.9 * exact:
        rounded += divisor
    return rounded


def block_geometries(
    *,
    depth: int,
    width: int,
    num_heads: int,
    dim_mul: Sequence[Sequence[float]] = (),
    head_mul: Sequence[Sequence[float]] = (),
    pool_q_stride: Sequence[Sequence[int]] = (),
    pool_kv_stride: Sequence[Sequence[int]] = (),
    pool_kv_stride_adaptive: Sequence[int] | None = None,
    pool_kernel: Sequence[int] | None = None,
    dim_mul_in_attention: bool = False,
    drop_path_rates: Sequence[float] = (),
) -> list[BlockGeometry]:
    """Work out every block of a multiscale transformer.

    Source: MViT (Fan et al., 2021), section 3.2; MViTv2 (Li et al., 2022), section 3. With
    `dim_mul_in_attention` block i itself widens, in its attention (MViTv2); without it block i - 1
    widens in its MLP (MViT). The number of heads changes at block i either way.

    Args:
        depth: number of blocks.
        width: width D of the first block.
        num_heads: heads of the first block.
        dim_mul: pairs (block, factor) of the width.
        head_mul: pairs (block, factor) of the number of heads.
        pool_q_stride: rows (block, t, h, w) of query strides. A block named with strides of 1
            still gets a query convolution, one not named gets none.
        pool_kv_stride: rows (block, t, h, w) of key and value strides.
        pool_kv_stride_adaptive: (t, h, w) of the first block's key and value strides; they shrink
            as the queries are pooled.
        pool_kernel: (t, h, w) of all pooling; None: stride + 1 where the stride is above 1.
        dim_mul_in_attention: where the width grows, see above.
        drop_path_rates: one per block, empty: all 0.

    Returns:
        One BlockGeometry per block.

    Raises:
        ValueError: a row names a block that does not exist, both ways of key strides are given, or
            a width is not divisible by its number of heads.
    """
    widths = _per_block("MVIT.DIM_MUL", dim_mul, depth + 1)
    heads = _per_block("MVIT.HEAD_MUL", head_mul, depth + 1)
    strides_q = _strides("MVIT.POOL_Q_STRIDE", pool_q_stride, depth)
    strides_kv = _strides_kv(pool_kv_stride, pool_kv_stride_adaptive, strides_q, depth)
    rates = list(drop_path_rates) or [0.0] * depth

    blocks = []
    for index in range(depth):
        num_heads = round_width(num_heads, heads.get(index, 1.0))
        grown = index if dim_mul_in_attention else index + 1
        divisor = round_width(num_heads, heads.get(grown, 1.0))
        dim_out = round_width(width, widths.get(grown, 1.0), divisor=divisor)
        attention_dim = dim_out if dim_mul_in_attention else width
        if attention_dim % num_heads:
            raise ValueError(
                f"block {index}: the width {attention_dim} is not divisible by its {num_heads} "
                "heads; check MVIT.EMBED_DIM, NUM_HEADS, DIM_MUL and HEAD_MUL"
            )
        kernel_q, stride_q = _pooling(pool_kernel, strides_q.get(index))
        kernel_kv, stride_kv = _pooling(pool_kernel, strides_kv.get(index))
        blocks.append(
            BlockGeometry(
                dim=width,
                dim_out=dim_out,
                attention_dim=attention_dim,
                num_heads=num_heads,
                stride_q=stride_q,
                stride_kv=stride_kv,
                kernel_q=kernel_q,
                kernel_kv=kernel_kv,
                drop_path=rates[index],
            )
        )
        width = dim_out
    return blocks


def _per_block(key: str, pairs: Sequence[Sequence[float]], limit: int) -> dict[int, float]:
    """{block: factor} of a list of pairs."""
    factors = {}
    for pair in pairs:
        if len(pair) != 2 or not 0 <= pair[0] < limit:
            raise ValueError(
                f"{key} must hold pairs (block, factor) with blocks up to MVIT.DEPTH {limit - 1}, "
                f"got {list(pair)}"
            )
        factors[int(pair[0])] = float(pair[1])
    return factors


def _strides(key: str, rows: Sequence[Sequence[int]], depth: int) -> dict[int, Triple]:
    """{block: (t, h, w)} of a list of rows."""
    strides = {}
    for row in rows:
        if len(row) != 4 or not 0 <= row[0] < depth or min(row[1:]) < 1:
            raise ValueError(
                f"{key} must hold rows (block, t, h, w) with blocks below MVIT.DEPTH {depth} and "
                f"strides of at least 1, got {list(row)}"
            )
        strides[int(row[0])] = (int(row[1]), int(row[2]), int(row[3]))
    return strides


def _strides_kv(
    rows: Sequence[Sequence[int]],
    adaptive: Sequence[int] | None,
    strides_q: dict[int, Triple],
    depth: int,
) -> dict[int, Triple]:
    """{block: (t, h, w)} of keys and values, given one way or the other."""
    if adaptive and rows:
        raise ValueError(
            "MVIT.POOL_KV_STRIDE or MVIT.POOL_KV_STRIDE_ADAPTIVE must be empty, got "
            f"{list(rows)} and {list(adaptive)}"
        )
    if adaptive:
        return _adaptive_strides(adaptive, strides_q, depth)
    return _strides("MVIT.POOL_KV_STRIDE", rows, depth)


def _adaptive_strides(
    first: Sequence[int], strides_q: dict[int, Triple], depth: int
) -> dict[int, Triple]:
    """Key strides that keep the number of keys constant while the queries are pooled."""
    if len(first) != 3 or min(first) < 1:
        raise ValueError(
            "MVIT.POOL_KV_STRIDE_ADAPTIVE must be three strides (t, h, w) of at least 1, got "
            f"{list(first)}"
        )
    current: Triple = (int(first[0]), int(first[1]), int(first[2]))
    strides = {}
    for index in range(depth):
        t, h, w = strides_q.get(index, (1, 1, 1))
        current = (max(current[0] // t, 1), max(current[1] // h, 1), max(current[2] // w, 1))
        strides[index] = current
    return strides


def _pooling(
    kernel: Sequence[int] | None, stride: Triple | None
) -> tuple[Triple | None, Triple | None]:
    """Kernel and stride of one pooling; (None, stride) where there is nothing to pool."""
    if stride is None:
        return None, None
    if kernel is None:
        size: Triple = tuple(step + 1 if step > 1 else step for step in stride)  # type: ignore
    elif len(kernel) == 3:
        size = (int(kernel[0]), int(kernel[1]), int(kernel[2]))
    else:
        raise ValueError(f"MVIT.POOL_KVQ_KERNEL must be (t, h, w) or None, got {list(kernel)}")
    if math.prod(size) == 1 and math.prod(stride) == 1:
        return None, stride
    return size, stride
