"""Folded relative positions against the explicit matrix of scores, and other grids."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.kept_memory import kept_storages
from helpers.load_tool import load_tool
from helpers.tiny_cases import model_of, tiny_options
from torch import nn

from slowfast_maskfeat.backbones import BlockOptions
from slowfast_maskfeat.backbones.attention import PoolingAttention
from slowfast_maskfeat.backbones.geometry import BlockGeometry
from slowfast_maskfeat.backbones.relative import relative_index
from slowfast_maskfeat.shapes import Grid

plain_forms = load_tool("tools/plain_forms.py")

STRIDE = {"q": (1, 2, 2), "kv": (1, 4, 4)}


def attention(grid: Grid, *, plain: bool = False, **options: Any) -> PoolingAttention:
    geometry = BlockGeometry(
        dim=12,
        dim_out=12,
        attention_dim=12,
        num_heads=2,
        stride_q=STRIDE["q"],
        stride_kv=STRIDE["kv"],
        kernel_q=(3, 3, 3),
        kernel_kv=(3, 3, 3),
        drop_path=0.0,
    )
    torch.manual_seed(0)
    # The mean pools, because the learned convolution is slow in float64.
    module = PoolingAttention(geometry, grid, BlockOptions(mode="avg", **options))
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return plain_forms.make_plain(module) if plain else module  # type: ignore[return-value]


@pytest.mark.parametrize("has_cls", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"rel_pos_spatial": True, "rel_pos_temporal": True, "residual_pooling": True},
        {"rel_pos_spatial": True},
        {"rel_pos_temporal": True},
        {"residual_pooling": True},
    ],
)
@pytest.mark.parametrize("grid", [Grid(3, 8, 8), Grid(2, 10, 6)])
def test_folded_equals_explicit(options: dict[str, bool], has_cls: bool, grid: Grid) -> None:
    """Values and gradients, at the configured grid and at another one."""
    results = []
    for plain in (False, True):
        module = attention(Grid(3, 8, 8), plain=plain, has_cls=has_cls, **options).double()
        torch.manual_seed(1)
        tokens = torch.randn(2, grid.num_tokens + has_cls, 12, dtype=torch.float64)
        tokens.requires_grad_()
        out, new_grid = module(tokens, grid)
        (out * torch.arange(out.numel()).reshape(out.shape).sin()).sum().backward()
        gradients = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        results.append((out, new_grid, {"tokens": tokens.grad, **gradients}))
    (fast, grid_fast, gradients_fast), (plain_out, grid_plain, gradients_plain) = results
    assert grid_fast == grid_plain == Grid(grid.t, (grid.h + 1) // 2, (grid.w + 1) // 2)
    torch.testing.assert_close(fast, plain_out, rtol=1e-10, atol=1e-10)
    assert gradients_fast.keys() == gradients_plain.keys()
    for name, gradient in gradients_plain.items():
        torch.testing.assert_close(gradients_fast[name], gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("num_queries", "num_keys"), [(8, 8), (8, 2), (20, 10), (39, 20), (5, 9)])
def test_relative_index_picks_the_rows_of_the_plain_loop(num_queries: int, num_keys: int) -> None:
    length = 2 * max(num_queries, num_keys) - 1
    table = torch.arange(float(length))[:, None]
    index = relative_index(num_queries, num_keys)
    assert index.min() >= 0
    assert index.max() < length
    expected = plain_forms.relative_vectors(table, num_queries, num_keys)
    assert torch.equal(table[index], expected)


def test_constants_are_no_state() -> None:
    module = attention(Grid(3, 8, 8), rel_pos_spatial=True, rel_pos_temporal=True)
    assert {"rel_pos_t", "rel_pos_h", "rel_pos_w"} <= set(module.state_dict())
    assert not {"coordinates", "index_t", "index_h", "index_w"} & set(module.state_dict())


def test_time_that_is_pooled_to_one_step_has_positions() -> None:
    """Pooling rounds up, the published table down: to no row for less than one step."""
    pooling = {"MVIT__POOL_Q_STRIDE": [[0, 1, 1, 1], [1, 2, 2, 2], [2, 2, 2, 2]]}
    options = tiny_options("v2_ft", DATA__NUM_FRAMES=2, MVIT__REL_POS_TEMPORAL=True, **pooling)
    model = model_of(options)
    assert torch.isfinite(model(torch.rand(1, 3, 2, 64, 64))).all()


def test_relative_positions_can_start_at_zero() -> None:
    geometry = BlockGeometry(12, 12, 12, 2, None, None, None, None, 0.0)
    for zero in (True, False):
        options = BlockOptions(rel_pos_spatial=True, rel_pos_zero_init=zero)
        module = PoolingAttention(geometry, Grid(2, 4, 4), options)
        assert bool(module.rel_pos_h.any()) is not zero


@pytest.mark.parametrize("has_cls", [True, False])
@pytest.mark.parametrize("relative", [True, False])
def test_weights_are_those_that_the_fused_kernels_use(has_cls, relative):
    grid = Grid(2, 4, 4)
    options = {"has_cls": has_cls, "rel_pos_spatial": relative, "rel_pos_temporal": relative}
    module = attention(grid, **options).double()
    tokens = torch.randn(3, has_cls + grid.num_tokens, 12, dtype=torch.float64)
    weights, grid_k = module.weights(tokens, grid)
    assert grid_k == Grid(2, 1, 1)
    assert weights.shape == (3, 2, has_cls + 8, has_cls + grid_k.num_tokens)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(1, dtype=torch.float64))
    value = module._project_and_pool(tokens, grid)[2]
    expected = module.proj((weights @ value).transpose(1, 2).flatten(2))
    attended, _ = module(tokens, grid)
    assert torch.allclose(attended, expected, atol=1e-9)


def test_the_class_token_does_not_keep_all_tokens_for_the_backward_pass():
    """On a CPU, where the pools keep copies: a view of the token would keep q, k and v twice."""
    grid = Grid(2, 8, 8)
    geometry = BlockGeometry(12, 12, 12, 2, (1, 2, 2), (1, 4, 4), (3, 3, 3), (3, 3, 3), 0.0)
    options = BlockOptions(has_cls=True, rel_pos_spatial=True)
    module = PoolingAttention(geometry, grid, options)
    tokens = torch.randn(3, 1 + grid.num_tokens, 12)
    kept = kept_storages(module, tokens, lambda: module(tokens, grid))
    assert 3 * tokens.nbytes not in kept  # the output of the layer qkv
    assert max(kept) < 2 * tokens.nbytes


@pytest.mark.parametrize("kind", ["block", "shared"])
def test_weights_have_the_bias_of_relative_positions(kind):
    grid = Grid(1, 3, 4)
    geometry = BlockGeometry(12, 12, 12, 2, None, None, None, None, 0.0)
    options = BlockOptions(has_cls=True, position_bias=kind)
    module = PoolingAttention(geometry, grid, options).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    shared = torch.randn(2, 13, 13, dtype=torch.float64) if kind == "shared" else None
    tokens = torch.randn(3, 13, 12, dtype=torch.float64)
    weights, _ = module.weights(tokens, grid, shared)
    value = module._project_and_pool(tokens, grid)[2]
    expected = module.proj((weights @ value).transpose(1, 2).flatten(2))
    attended, _ = module(tokens, grid, shared)
    assert torch.allclose(attended, expected, atol=1e-9)


def test_a_layer_that_replaces_the_projection_is_called():
    """As an adapter does, whose `weight` alone is not what it computes."""

    class Adapter(nn.Linear):
        def forward(self, tokens):
            return super().forward(tokens) + 1

    grid = Grid(2, 8, 8)
    module = attention(grid)
    tokens = torch.randn(2, grid.num_tokens + 1, 12)
    before = module(tokens, grid)[0]
    adapter = Adapter(12, 36)
    adapter.load_state_dict(module.qkv.state_dict())
    module.qkv = adapter
    adapted = module(tokens, grid)[0]
    with torch.no_grad():
        adapter.bias -= 1
    assert not torch.allclose(adapted, before, atol=1e-3)
    assert torch.allclose(module(tokens, grid)[0], before, atol=1e-5)
