"""Pooling attention (MViT, MViTv2) through the fused kernels of torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slowfast_maskfeat.backbones.geometry import BlockGeometry, pooled_grid
from slowfast_maskfeat.backbones.initialization import truncated_normal
from slowfast_maskfeat.backbones.one_dtype import LayerNorm
from slowfast_maskfeat.backbones.options import BlockOptions
from slowfast_maskfeat.backbones.pooling import (
    DepthwisePool,
    PoolMode,
    make_pool,
    pool_tokens,
    pool_tokens_apart,
    split_cls,
)
from slowfast_maskfeat.backbones.projection import project_apart
from slowfast_maskfeat.backbones.relative import Fold, fold_keys, fold_queries, make_fold
from slowfast_maskfeat.backbones.relative_bias import add_bias_table, read_bias
from slowfast_maskfeat.position_tables import resize_temporal
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
        geometry: widths, heads, strides and kernels of the block.
        grid: grid of the tokens at the configured clip size. Other grids work, a little slower.
        options: options of the block.
        table_grid: grid that sizes the tables of relative positions; None: `grid`. They are
            interpolated to the grid they meet.
    """

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
            norm = LayerNorm(width, eps=LAYER_NORM_EPSILON) if learned else None
            self.add_module(f"pool_{name}", pool)
            self.add_module(f"norm_{name}", norm)

    def _make_tables(self, grid: Grid, *, zero: bool) -> None:
        """Tables (rows, d), sized as published: floor division along space, time unpooled."""
        width = self.geometry.attention_dim // self.num_heads
        for axis in self.axes:
            step = min(self.geometry.steps_q[axis], self.geometry.steps_kv[axis])
            longest = max(grid.t if axis == 0 else grid[axis] // step, 1)
            table = nn.Parameter(torch.zeros(2 * longest - 1, width))
            if not zero:
                truncated_normal(table)
            self.register_parameter(f"rel_pos_{_AXIS_NAMES[axis]}", table)

    def _make_constants(self, grid: Grid) -> None:
        """Constants of the configured grid, which are not part of the state."""
        grid_q = pooled_grid(grid, self.geometry.kernel_q, self.geometry.stride_q)
        grid_k = pooled_grid(grid, self.geometry.kernel_kv, self.geometry.stride_kv)
        self.built_for = (grid_q, grid_k)
        for name, constant in self._make_fold(grid_q, grid_k)._asdict().items():
            self.register_buffer(f"fold_{name}", constant, persistent=False)

    def _make_fold(self, grid_q: Grid, grid_k: Grid, device: torch.device | None = None) -> Fold:
        return make_fold(
            grid_q,
            grid_k,
            self.axes,
            width=self.geometry.attention_dim // self.num_heads,
            num_heads=self.num_heads,
            has_cls=self.has_cls,
            device=device,
        )

    def forward(
        self, tokens: Tensor, grid: Grid, bias: Tensor | None = None
    ) -> tuple[Tensor, Grid]:
        """Attends.

        Args:
            tokens: (B, N, D), a cls token first if there is one.
            grid: grid of the other tokens.
            bias: (heads, N, N), added to the scores: the one that all blocks share.

        Returns:
            (B, N', attention width) and the grid of the pooled queries.
        """
        attend = self._attend_folded if self.axes else self._attend
        attended, grid_q = attend(tokens, grid, bias)
        return self.proj_drop(self.proj(attended.flatten(2))), grid_q

    def _attend(self, tokens: Tensor, grid: Grid, bias: Tensor | None) -> tuple[Tensor, Grid]:
        """Attention without relative positions in tables: (B, N', heads, d)."""
        query, key, value, grid_q, _ = self._project_and_pool(tokens, grid)
        bias = self._position_bias(grid, bias)
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if bias is None else bias.to(query.dtype)[None],
            scale=self.scale,
        ).transpose(1, 2)
        if self.residual_pooling:  # not for the cls token
            _, patches = split_cls(query, has_cls=self.has_cls)
            attended = attended + F.pad(patches.transpose(1, 2), (0, 0, 0, 0, int(self.has_cls), 0))
        return attended, grid_q

    def _attend_folded(
        self, tokens: Tensor, grid: Grid, bias: Tensor | None
    ) -> tuple[Tensor, Grid]:
        """Attention with relative positions: (B, N', heads, d).

        The query of the cls token, which has none, attends apart: putting it in front of the others
        would copy them.
        """
        sources = self._sources(tokens)
        cls, query, grid_q = self._pool_apart("q", sources, grid)
        key, grid_k = self._pool("k", sources, grid)
        value, _ = self._pool("v", sources, grid)
        fold = self._fold(grid_q, grid_k, tokens.device)
        width = query.shape[-1]
        extra = fold.coordinates.shape[1]
        key = fold_keys(key, fold.coordinates, scale=self.scale)
        value = F.pad(value.transpose(1, 2), (0, extra)).transpose(1, 2)
        folded = fold_queries(query, self._table(grid_q, grid_k), grid_q, fold)
        attended = _attention(folded, key, value)[..., :width]
        if self.residual_pooling:
            attended = attended + query.transpose(1, 2)
        if cls is not None:
            of_cls = _attention(F.pad(cls, (0, extra)), key, value)[..., :width]
            attended = torch.cat((of_cls, attended), dim=1)
        return attended, grid_q

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
            grid: grid of the other tokens.
            bias: see `forward`.

        Returns:
            (B, heads, queries, keys), each row of sum 1, a cls token first if there is one; and the
            grid of the other keys.
        """
        query, key, _, grid_q, grid_k = self._project_and_pool(tokens, grid)
        scores = self.scale * query @ key.transpose(2, 3)
        if self.axes:
            _, patches = split_cls(query, has_cls=self.has_cls)
            fold = self._fold(grid_q, grid_k, tokens.device)
            folded = fold_queries(patches, self._table(grid_q, grid_k), grid_q, fold)
            columns = folded[..., query.shape[-1] :]
            scores[:, :, int(self.has_cls) :] += columns @ fold.coordinates.to(columns.dtype).T
        bias = self._position_bias(grid, bias)
        if bias is not None:
            scores += bias
        return scores.softmax(dim=-1), grid_k

    def _project_and_pool(
        self, tokens: Tensor, grid: Grid
    ) -> tuple[Tensor, Tensor, Tensor, Grid, Grid]:
        """Queries, keys and values, each (B, heads, N', d), and the grids of the first two."""
        sources = self._sources(tokens)
        query, grid_q = self._pool("q", sources, grid)
        key, grid_k = self._pool("k", sources, grid)
        value, _ = self._pool("v", sources, grid)
        return query, key, value, grid_q, grid_k

    def _sources(self, tokens: Tensor) -> dict[str, Tensor]:
        """Inputs of the pools of queries, keys and values: (B, heads, N, d) each."""
        if self.pool_first:
            return dict.fromkeys("qkv", _split(tokens, self.num_pooled_apart))
        if hasattr(self, "qkv"):
            parts = self._project(tokens)
            return {name: _split(x, self.num_heads) for name, x in zip("qkv", parts, strict=True)}
        return {name: _split(getattr(self, name)(tokens), self.num_heads) for name in "qkv"}

    def _project(self, tokens: Tensor) -> Sequence[Tensor]:
        """Queries, keys and values: (B, N, D) -> three of (B, N, width)."""
        is_replaced = type(self.qkv) is not nn.Linear  # by a user, as for low-rank adaptation
        if is_replaced and not self.has_separate_biases:
            return self.qkv(tokens).chunk(3, dim=-1)
        return project_apart(tokens, self.qkv.weight, self._projection_bias(), 3)

    def _projection_bias(self) -> Tensor | None:
        """Bias of queries, keys and values: (3 * width,), or None."""
        if not self.has_separate_biases:
            return self.qkv.bias
        return torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))

    def _pool(self, name: str, sources: dict[str, Tensor], grid: Grid) -> tuple[Tensor, Grid]:
        """Queries, keys or values: (B, heads, N', d), and their grid."""
        pool, norm = getattr(self, f"pool_{name}"), getattr(self, f"norm_{name}")
        pooled, grid = pool_tokens(sources[name], grid, pool, norm, has_cls=self.has_cls)
        if self.pool_first:
            linear = getattr(self, name)
            pooled = _split(linear(pooled.transpose(1, 2).flatten(2)), self.num_heads)
        return pooled, grid

    def _pool_apart(
        self, name: str, sources: dict[str, Tensor], grid: Grid
    ) -> tuple[Tensor | None, Tensor, Grid]:
        """As `_pool`, with the cls token apart: (B, heads, 1, d) or None."""
        if self.pool_first:
            pooled, grid = self._pool(name, sources, grid)
            return *split_cls(pooled, has_cls=self.has_cls), grid
        pool, norm = getattr(self, f"pool_{name}"), getattr(self, f"norm_{name}")
        return pool_tokens_apart(sources[name], grid, pool, norm, has_cls=self.has_cls)

    def _fold(self, grid_q: Grid, grid_k: Grid, device: torch.device) -> Fold:
        """Constants of folding for these grids."""
        if (grid_q, grid_k) == self.built_for:
            return Fold(*(getattr(self, f"fold_{name}") for name in Fold._fields))
        return self._make_fold(grid_q, grid_k, device)

    def _table(self, grid_q: Grid, grid_k: Grid) -> Tensor:
        """Tables of all axes, one below the other, resized to these grids: (rows, d)."""
        tables = []
        for axis in self.axes:
            length = 2 * max(grid_q[axis], grid_k[axis]) - 1
            table = getattr(self, f"rel_pos_{_AXIS_NAMES[axis]}")
            tables.append(resize_temporal(table[None], length=length)[0])
        return torch.cat(tables)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention with scaled keys: (B, heads, N, d) -> (B, Nq, heads, d)."""
    attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    return attended.transpose(1, 2)


def _split(tokens: Tensor, num_heads: int) -> Tensor:
    """(B, N, heads * d) -> (B, heads, N, d)."""
    return tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2)
