"""Pooling attention (MViT, MViTv2) through the fused kernels of torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from slowfast_maskfeat.backbones.geometry import BlockGeometry, pooled_grid
from slowfast_maskfeat.backbones.initialization import truncated_normal
from slowfast_maskfeat.backbones.options import BlockOptions
from slowfast_maskfeat.backbones.pooling import (
    DepthwisePool,
    PoolMode,
    make_pool,
    pool_tokens,
    split_cls,
)
from slowfast_maskfeat.backbones.relative import (
    attend_folded,
    fold_queries,
    key_coordinates,
    relative_embedding,
    relative_index,
)
from slowfast_maskfeat.backbones.relative_bias import add_bias_table, read_bias
from slowfast_maskfeat.shapes import Grid

LAYER_NORM_EPSILON = 1e-6
_AXIS_NAMES = ("t", "h", "w")


class PoolingAttention(nn.Module):
    """Multi-head attention whose queries, keys and values are pooled on the token grid.

    Source: MViT (Fan et al., 2021), section 3.1; MViTv2 (Li et al., 2022), section 3.1 for relative
    positions and residual pooling. Relative positions use the unscaled query; the cls token has
    none, and residual pooling leaves it out. A bias for each head and relative position, which is
    added to the scaled scores, is BEiT's (Bao et al., 2022).

    Args:
        geometry: Widths, heads, strides and kernels of the block.
        grid: Grid of the tokens at the configured clip size. Other grids work, a little slower.
        options: Options of the block.
        table_grid: Grid that sizes the tables of relative positions; None: `grid`. They are
            interpolated to the grid they meet.
    """

    coordinates: Tensor

    def __init__(
        self,
        geometry: BlockGeometry,
        grid: Grid,
        options: BlockOptions,
        *,
        table_grid: Grid | None = None,
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.grid = grid
        self.num_heads = geometry.num_heads
        self.pool_first = options.pool_first
        self.num_pooled_apart = 1 if options.mode == "conv_unshared" else self.num_heads
        self.has_cls = options.has_cls
        self.residual_pooling = options.residual_pooling
        width = geometry.attention_dim
        self.scale = (width // self.num_heads) ** -0.5
        self._make_projections(
            bias=options.qkv_bias,
            key_bias=options.key_bias,
            separate=options.separate_projections or self.pool_first,
        )
        pooled_width = geometry.dim if self.pool_first else width
        self._make_pools(options.mode, pooled_width // self.num_pooled_apart)
        self.axes = (0,) * options.rel_pos_temporal + (1, 2) * options.rel_pos_spatial
        if self.axes:
            self._make_tables(table_grid or grid, zero=options.rel_pos_zero_init)
            self._make_constants(grid)
        self.has_own_bias = options.position_bias == "block"
        if self.has_own_bias:
            add_bias_table(self, grid, self.num_heads, has_cls=self.has_cls)
            self.bias_grid = grid
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(options.dropout)

    def _make_projections(self, *, bias: bool, key_bias: bool, separate: bool) -> None:
        dim, width = self.geometry.dim, self.geometry.attention_dim
        self.has_separate_biases = bias and not (key_bias or separate)
        if separate:
            self.q = nn.Linear(dim, width, bias=bias)
            self.k = nn.Linear(dim, width, bias=bias and key_bias)
            self.v = nn.Linear(dim, width, bias=bias)
        else:
            self.qkv = nn.Linear(dim, 3 * width, bias=bias and key_bias)
        if self.has_separate_biases:
            self.q_bias = nn.Parameter(torch.zeros(width))
            self.v_bias = nn.Parameter(torch.zeros(width))

    def _make_pools(self, mode: PoolMode, width: int) -> None:
        shape = self.geometry
        pools = {
            "q": make_pool(mode, width, kernel=shape.kernel_q, stride=shape.stride_q),
            "k": make_pool(mode, width, kernel=shape.kernel_kv, stride=shape.stride_kv),
            "v": make_pool(mode, width, kernel=shape.kernel_kv, stride=shape.stride_kv),
        }
        for name, pool in pools.items():
            learned = isinstance(pool, DepthwisePool)
            norm = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON) if learned else None
            self.add_module(f"pool_{name}", pool)
            self.add_module(f"norm_{name}", norm)

    def _make_tables(self, grid: Grid, *, zero: bool) -> None:
        """Tables (rows, d), sized as published: floor division along space, time unpooled."""
        width = self.geometry.attention_dim // self.num_heads
        for axis in self.axes:
            step = min(self.geometry.steps_q[axis], self.geometry.steps_kv[axis])
            longest = grid.t if axis == 0 else max(grid[axis] // step, 1)
            table = nn.Parameter(torch.zeros(2 * longest - 1, width))
            if not zero:
                truncated_normal(table)
            self.register_parameter(f"rel_pos_{_AXIS_NAMES[axis]}", table)

    def _make_constants(self, grid: Grid) -> None:
        """Indices and key coordinates of the configured grid, which are not part of the state."""
        grid_q = pooled_grid(grid, self.geometry.kernel_q, self.geometry.stride_q)
        grid_k = pooled_grid(grid, self.geometry.kernel_kv, self.geometry.stride_kv)
        self.built_for = (grid_q, grid_k)
        for axis in self.axes:
            index = relative_index(grid_q[axis], grid_k[axis])
            self.register_buffer(f"index_{_AXIS_NAMES[axis]}", index, persistent=False)
        coordinates = key_coordinates(grid_k, self.axes)
        self.register_buffer("coordinates", coordinates, persistent=False)

    def forward(
        self, tokens: Tensor, grid: Grid, bias: Tensor | None = None
    ) -> tuple[Tensor, Grid]:
        """Attends.

        Args:
            tokens: (B, N, D), a cls token first if there is one.
            grid: Grid of the other tokens.
            bias: (heads, N, N), added to the scores: the one that all blocks share.

        Returns:
            (B, N', attention width) and the grid of the pooled queries.
        """
        query, key, value, grid_q, grid_k = self._project_and_pool(tokens, grid)
        _, patches = split_cls(query, has_cls=self.has_cls)
        bias = self._position_bias(grid, bias)
        if self.axes:
            columns, coordinates = self._fold(patches, grid_q, grid_k)
            attended = attend_folded(
                query,
                key,
                value,
                columns,
                coordinates,
                scale=self.scale,
                has_cls=self.has_cls,
            )
        else:
            attended = F.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=None if bias is None else bias.to(query.dtype)[None],
                scale=self.scale,
            )
        if self.residual_pooling:  # not for the cls token
            attended = attended + F.pad(patches, (0, 0, int(self.has_cls), 0))
        attended = attended.transpose(1, 2).flatten(2)  # (B, N', heads * d)
        return self.proj_drop(self.proj(attended)), grid_q

    def _position_bias(self, grid: Grid, shared: Tensor | None) -> Tensor | None:
        """The layer's own bias of relative positions (heads, N, N), or else the shared one."""
        if not self.has_own_bias:
            return shared
        return read_bias(self, source=self.bias_grid, target=grid, has_cls=self.has_cls)

    @torch.no_grad()
    def weights(
        self, tokens: Tensor, grid: Grid, bias: Tensor | None = None
    ) -> tuple[Tensor, Grid]:
        """Attention weights, for figures: the fused kernels of `forward` do not give them.

        Args:
            tokens: (B, N, D), a cls token first if there is one.
            grid: Grid of the other tokens.
            bias: See `forward`.

        Returns:
            (B, heads, queries, keys), each row of sum 1, a cls token first if there is one; and the
            grid of the other keys.
        """
        query, key, _, grid_q, grid_k = self._project_and_pool(tokens, grid)
        scores = self.scale * query @ key.transpose(2, 3)
        if self.axes:
            _, patches = split_cls(query, has_cls=self.has_cls)
            columns, coordinates = self._fold(patches, grid_q, grid_k)
            front = int(self.has_cls)
            scores[:, :, front:, front:] += columns @ coordinates.T
        bias = self._position_bias(grid, bias)
        if bias is not None:
            scores += bias
        return scores.softmax(dim=-1), grid_k

    def _project_and_pool(
        self, tokens: Tensor, grid: Grid
    ) -> tuple[Tensor, Tensor, Tensor, Grid, Grid]:
        """Queries, keys and values, each (B, heads, N', d), and the grids of the first two."""
        if self.pool_first:
            parts = _split(tokens, self.num_pooled_apart)
            query, grid_q = self._pool("q", parts, grid)
            key, grid_k = self._pool("k", parts, grid)
            value, _ = self._pool("v", parts, grid)
            query, key, value = (
                _split(linear(x.transpose(1, 2).flatten(2)), self.num_heads)
                for linear, x in ((self.q, query), (self.k, key), (self.v, value))
            )
            return query, key, value, grid_q, grid_k
        if hasattr(self, "qkv"):
            # (B, N, 3, heads, d)
            parts = self._project(tokens).unflatten(-1, (3, self.num_heads, -1))
            query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        else:
            query, key, value = (
                _split(linear(tokens), self.num_heads) for linear in (self.q, self.k, self.v)
            )
        query, grid_q = self._pool("q", query, grid)
        key, grid_k = self._pool("k", key, grid)
        value, _ = self._pool("v", value, grid)
        return query, key, value, grid_q, grid_k

    def _project(self, tokens: Tensor) -> Tensor:
        """Queries, keys and values side by side: (B, N, D) -> (B, N, 3 * width)."""
        if not self.has_separate_biases:
            return self.qkv(tokens)
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        return F.linear(tokens, self.qkv.weight, bias)

    def _pool(self, name: str, tokens: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        pool, norm = getattr(self, f"pool_{name}"), getattr(self, f"norm_{name}")
        return pool_tokens(tokens, grid, pool, norm, has_cls=self.has_cls)

    def _fold(self, patches: Tensor, grid_q: Grid, grid_k: Grid) -> tuple[Tensor, Tensor]:
        """Columns that go with the queries and key coordinates that go with the keys."""
        known = (grid_q, grid_k) == self.built_for
        embeddings = {}
        for axis in self.axes:
            name, sizes = _AXIS_NAMES[axis], (grid_q[axis], grid_k[axis])
            index = (
                getattr(self, f"index_{name}")
                if known
                else relative_index(*sizes, device=patches.device)
            )
            embeddings[axis] = relative_embedding(getattr(self, f"rel_pos_{name}"), *sizes, index)
        coordinates = (
            self.coordinates if known else key_coordinates(grid_k, self.axes, patches.device)
        )
        # The products are cheap, and what autograd would keep for them is three copies of the
        # queries; so they are computed again in the backward pass.
        columns = checkpoint(
            fold_queries,
            patches,
            embeddings,
            grid_q,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        return columns, coordinates


def _split(tokens: Tensor, num_heads: int) -> Tensor:
    """(B, N, heads * d) -> (B, heads, N, d)."""
    return tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2)
