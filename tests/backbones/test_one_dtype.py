"""Blocks under bfloat16 autocast: one dtype inside, as accurate as autocast's own casts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slowfast_maskfeat.backbones import BlockOptions
from slowfast_maskfeat.backbones.block import MultiscaleBlock, run_block
from slowfast_maskfeat.backbones.geometry import BlockGeometry
from slowfast_maskfeat.backbones.one_dtype import LayerNorm
from slowfast_maskfeat.shapes import Grid

GRID = Grid(2, 8, 8)


def make_block(layer_scale: float) -> MultiscaleBlock:
    geometry = BlockGeometry(
        dim=16,
        dim_out=32,
        attention_dim=32,
        num_heads=2,
        stride_q=(1, 2, 2),
        stride_kv=(1, 4, 4),
        kernel_q=(3, 3, 3),
        kernel_kv=(3, 3, 3),
        drop_path=0.0,
    )
    options = BlockOptions(
        mode="conv",
        rel_pos_spatial=True,
        rel_pos_temporal=True,
        residual_pooling=True,
        has_cls=True,
        layer_scale=layer_scale,
    )
    torch.manual_seed(0)
    block = MultiscaleBlock(geometry, GRID, options)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block


def outputs(block, precision, call):
    torch.manual_seed(1)
    tokens = torch.randn(2, 1 + GRID.num_tokens, 16)
    block.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        out, _ = call(block, tokens.to(precision), GRID)
    out.float().square().mean().backward()
    return out.detach().float(), {n: p.grad for n, p in block.named_parameters()}


def distance(value, expected):
    return float((value - expected).norm() / expected.norm())


@pytest.mark.parametrize("layer_scale", [0.0, 0.1])
def test_is_as_accurate_as_the_casts_of_autocast(layer_scale):
    block = make_block(layer_scale)
    exact, exact_gradients = outputs(block, torch.float32, lambda block, *args: block(*args))
    ours, gradients = outputs(
        block, torch.bfloat16, lambda *args: run_block(*args, recompute=False)
    )
    theirs, _ = outputs(block, torch.bfloat16, lambda block, *args: block(*args))
    assert distance(ours, exact) < 1.5 * distance(theirs, exact) < 0.01
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
    for name in ("norm1.weight", "attn.qkv.weight", "attn.rel_pos_h", "mlp.fc1.bias"):
        assert distance(gradients[name], exact_gradients[name]) < 0.05, name
    again, _ = outputs(block, torch.bfloat16, lambda *args: run_block(*args, recompute=True))
    assert torch.equal(again, ours)


def test_weights_are_narrow_in_the_block_and_the_scales_of_layers_are_not():
    block, seen = make_block(0.1), {}

    def note(module, _):
        seen.update({name: parameter.dtype for name, parameter in block.named_parameters()})

    block.register_forward_pre_hook(note)
    outputs(block, torch.bfloat16, lambda *args: run_block(*args, recompute=False))
    assert {name for name, dtype in seen.items() if dtype == torch.float32} <= {
        "gamma_1",
        "gamma_2",
    }
    assert {p.dtype for p in block.parameters()} == {torch.float32}
    outputs(block, torch.float32, lambda *args: run_block(*args, recompute=False))
    assert set(seen.values()) == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_narrow_norm_returns_the_dtype_of_its_input(dtype):
    norm = LayerNorm(8)
    nn.init.normal_(norm.weight)
    tokens = torch.randn(3, 8)
    expected = norm(tokens)
    narrow = LayerNorm(8).bfloat16()
    narrow.load_state_dict(norm.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        out = narrow(tokens.to(dtype))
    assert out.dtype == dtype
    assert distance(out.float(), expected) < 0.01
