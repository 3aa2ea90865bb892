"""MVIT.MODE conv_unshared: every channel of a block has its own pooling kernel, not of one head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.golden_rule import fill_with_golden_weights, golden_randn, relative_error
from helpers.tiny_cases import model_of, tiny_options
from torch import Tensor, nn

from slowfast_maskfeat.backbones import BlockOptions
from slowfast_maskfeat.backbones.attention import PoolingAttention
from slowfast_maskfeat.backbones.geometry import BlockGeometry
from slowfast_maskfeat.checkpoints import load_weights, save_checkpoint
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.shapes import Grid

GRID = Grid(3, 6, 4)


def attention(
    mode: str, *, num_heads: int, dim: int = 12, width: int = 12, **options: Any
) -> PoolingAttention:
    """Attention of (dim -> width) channels that pools queries, keys and values, golden weights."""
    geometry = BlockGeometry(
        dim=dim,
        dim_out=width,
        attention_dim=width,
        num_heads=num_heads,
        stride_q=(1, 2, 2),
        stride_kv=(1, 2, 1),
        kernel_q=(3, 3, 3),
        kernel_kv=(3, 3, 3),
        drop_path=0.0,
    )
    block = BlockOptions(mode=mode, pool_first=True, **options)  # type: ignore[arg-type]
    return fill_with_golden_weights(PoolingAttention(geometry, GRID, block))  # type: ignore


def tokens_of(width: int, *, has_cls: bool, dtype: torch.dtype = torch.float32) -> Tensor:
    return golden_randn(5, (2, GRID.num_tokens + has_cls, width)).to(dtype)


def by_loops(module: PoolingAttention, tokens: Tensor) -> Tensor:
    """Attention channel by channel and head by head, as the words have it."""
    front = int(module.has_cls)
    pooled = {}
    for name in "qkv":
        pool, norm = getattr(module, f"pool_{name}"), getattr(module, f"norm_{name}")
        channels = []
        for channel in range(tokens.shape[-1]):
            patches = tokens[:, front:, channel].reshape(-1, 1, *GRID)
            kernel = pool.weight[channel : channel + 1]
            patches = F.conv3d(patches, kernel, stride=pool.stride, padding=pool.padding)
            channels.append(torch.cat((tokens[:, :front, channel], patches.flatten(1)), dim=1))
        normed = norm(torch.stack(channels, dim=-1))  # of all channels, the class token included
        pooled[name] = getattr(module, name)(normed)  # (B, N', width), then split into heads
    heads = []
    size = pooled["q"].shape[-1] // module.num_heads
    for head in range(module.num_heads):
        query, key, value = (pooled[name][..., head * size : (head + 1) * size] for name in "qkv")
        attended = (query @ key.transpose(1, 2) / size**0.5).softmax(-1) @ value
        if module.residual_pooling:
            attended = torch.cat((attended[:, :front], attended[:, front:] + query[:, front:]), 1)
        heads.append(attended)
    return module.proj(torch.cat(heads, dim=-1))


@pytest.mark.parametrize("has_cls", [True, False])
def test_with_one_head_it_is_conv(has_cls: bool) -> None:
    shared, unshared = (
        attention(mode, num_heads=1, has_cls=has_cls) for mode in ("conv", "conv_unshared")
    )
    unshared.load_state_dict(shared.state_dict())
    tokens = tokens_of(12, has_cls=has_cls)
    assert torch.equal(unshared(tokens, GRID)[0], shared(tokens, GRID)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # tapwise, and torch's conv3d
@pytest.mark.parametrize(
    "options",
    [
        {"num_heads": 3},
        {"num_heads": 3, "has_cls": False},
        {"num_heads": 2, "residual_pooling": True},
        {"num_heads": 4, "dim": 6, "width": 8},  # 6 channels are not split into 4 heads
    ],
)
def test_with_several_heads_it_is_the_loop_over_channels(
    options: dict[str, Any], dtype: torch.dtype
) -> None:
    module = attention("conv_unshared", **options).to(dtype)
    tokens = tokens_of(options.get("dim", 12), has_cls=module.has_cls, dtype=dtype)
    results = []
    for run in (lambda: module(tokens, GRID)[0], lambda: by_loops(module, tokens)):
        module.zero_grad()
        output = run()
        (output * output.detach().cos()).sum().backward()
        gradients = {name: p.grad for name, p in module.named_parameters()}
        results.append((output, gradients))
    (output, gradients), (expected, expected_gradients) = results
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    assert relative_error(output.detach(), expected.detach().numpy()) < tolerance
    for name, gradient in expected_gradients.items():
        # A shift of all keys leaves the softmax as it is, up to that of the class token.
        if name in ("norm_k.bias", "k.bias"):
            continue
        assert gradient is not None, name
        assert gradient.abs().max() > 1e-3, name
        assert relative_error(gradients[name], gradient.numpy()) < tolerance, name


def unshared_model(name: str = "v1_poolfirst", **changes: Any) -> nn.Module:
    mode = {"MVIT__MODE": "conv_unshared", "MVIT__POOL_FIRST": True}
    model = model_of(tiny_options(name, **mode, **changes))
    return fill_with_golden_weights(model).eval()


def test_kernels_and_norms_have_all_channels_under_the_published_names() -> None:
    model = unshared_model()
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert {geometry.num_heads for geometry in model.geometries} == {1, 2, 4}
    shared = model_of(tiny_options("v1_poolfirst")).state_dict()
    assert list(shapes) == list(shared)
    for index, geometry in enumerate(model.geometries):
        for name in "qkv" if geometry.kernel_q else "kv":
            front = f"blocks.{index}.attn."
            assert shapes[f"{front}pool_{name}.weight"] == [geometry.dim, 1, 3, 3, 3]
            assert shapes[f"{front}norm_{name}.weight"] == [geometry.dim]
            assert shapes[f"{front}norm_{name}.bias"] == [geometry.dim]
    others = [name for name in shapes if ".pool_" not in name and ".norm_" not in name]
    assert all(shapes[name] == list(shared[name].shape) for name in others)


def test_blocks_of_a_decoder_pool_the_same_way() -> None:
    pooling = {"MASK__DEC_KV_KERNEL": [1, 3, 3], "MASK__DEC_KV_STRIDE": [1, 2, 2]}
    model = unshared_model("pt_video_hog_xformer", MASK__DECODER_NUM_HEADS=4, **pooling)
    block = model.pred_head.transforms[0][0]
    assert block.attn.num_heads == 4
    assert list(block.attn.pool_k.weight.shape) == [block.attn.geometry.dim, 1, 1, 3, 3]
    mask = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    mask[:, 1, 2] = True
    (prediction,) = model(golden_randn(1, (1, 3, 8, 64, 64)), mask)
    prediction.square().sum().backward()
    assert prediction.isfinite().all()
    assert block.attn.pool_k.weight.grad.abs().sum() > 0


def test_a_checkpoint_fills_the_whole_model(tmp_path: Path) -> None:
    source = unshared_model()
    path = save_checkpoint(tmp_path / "a.pyth", {"model_state": source.state_dict()})
    other = model_of(tiny_options("v1_poolfirst", MVIT__MODE="conv_unshared")).eval()
    report = load_weights(other, path, complete=True)
    assert not report.reshaped
    clips = golden_randn(2, (1, 3, 8, 64, 64))
    assert torch.equal(other(clips), source(clips))


def test_without_pool_first_it_is_an_error_that_names_both_keys() -> None:
    with pytest.raises(ValueError, match=r"MVIT\.POOL_FIRST must be True .*MVIT\.MODE 'conv_uns"):
        model_of(tiny_options("v1_joint", MVIT__MODE="conv_unshared"))
    assert load_config([], ["MVIT.MODE", "conv_unshared"]).MVIT.MODE == "conv_unshared"
