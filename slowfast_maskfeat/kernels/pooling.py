"""Depthwise 3-D pooling of tokens with its layer norm, as one operator of torch.

Tokens come in and go out as tokens, with any strides but contiguous channels; a class token passes
the pooling and has the norm. Sums are in float32 whatever the dtype of the tokens, and weights may
have another dtype than these: nothing is cast before or after. The operator is opaque to
torch.compile, has a form without values for fake tensors, and is deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from slowfast_maskfeat.backbones.geometry import pooled_grid
from slowfast_maskfeat.kernels import triton_pooling
from slowfast_maskfeat.shapes import Grid

_ELEMENTS = 2048  # of a program: its rows times its channels
_MAX_PROGRAMS = 1024  # that add up sums over rows, each into its own part of a buffer
_OPTIONS = "SymInt[] grid, int[] stride, bool has_cls, float epsilon"


def pool_and_norm(
    tokens: Tensor,
    grid: Grid,
    weight: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    *,
    stride: Sequence[int],
    has_cls: bool,
    epsilon: float,
) -> tuple[Tensor, Grid]:
    """Pool tokens by a depthwise convolution, then norm all of them.

    Args:
        tokens: (B, heads, N, d) in float32, bfloat16 or float16, N = 1 + t*h*w with a class token.
        grid: grid of the tokens.
        weight: (d, 1, kernel_t, kernel_h, kernel_w), the same for all heads; padding is half a
            kernel of zeros.
        norm_weight: (d,).
        norm_bias: (d,).
        stride: (t, h, w).
        has_cls: whether the first token is a class token.
        epsilon: of the norm.

    Returns:
        (B, heads, N', d) in the dtype of the tokens, contiguous, and the new grid.
    """
    pooled = torch.ops.slowfast_maskfeat.pool_and_norm(
        tokens, weight, norm_weight, norm_bias, list(grid), list(stride), has_cls, epsilon
    )
    return pooled, _pooled_grid(grid, weight, stride)


@torch.library.custom_op(
    "slowfast_maskfeat::pool_and_norm",
    mutates_args=(),
    schema=f"(Tensor tokens, Tensor weight, Tensor gamma, Tensor beta, {_OPTIONS}) -> Tensor",
)
def _forward(
    tokens: Tensor,
    weight: Tensor,
    gamma: Tensor,
    beta: Tensor,
    grid: Sequence[int],
    stride: Sequence[int],
    has_cls: bool,
    epsilon: float,
) -> Tensor:
    assert tokens.shape[2] == has_cls + Grid(*grid).num_tokens, (tokens.shape, grid)
    tokens = _with_contiguous_channels(tokens)
    pooled = _empty_pooled(tokens, weight, gamma, beta, grid, stride, has_cls, epsilon)
    num_rows, width = pooled.shape[:3].numel(), tokens.shape[3]
    blocks = _blocks(width)
    with torch.cuda.device_of(tokens):
        triton_pooling.pool_forward[(triton.cdiv(num_rows, blocks["ROWS"]),)](
            tokens,
            _by_tap(weight),
            gamma.contiguous(),
            beta.contiguous(),
            pooled,
            *tokens.stride()[:3],
            num_rows,
            tokens.shape[1],
            width,
            epsilon,
            *grid,
            *_pooled_grid(grid, weight, stride),
            **_geometry(weight, stride, has_cls),
            **blocks,
        )
    return pooled


@_forward.register_fake
def _empty_pooled(
    tokens: Tensor,
    weight: Tensor,
    gamma: Tensor,
    beta: Tensor,
    grid: Sequence[int],
    stride: Sequence[int],
    has_cls: bool,
    epsilon: float,
) -> Tensor:
    batch, heads, _, width = tokens.shape
    num_tokens = has_cls + _pooled_grid(grid, weight, stride).num_tokens
    return tokens.new_empty(batch, heads, num_tokens, width)


@torch.library.custom_op(
    "slowfast_maskfeat::pool_and_norm_backward",
    mutates_args=(),
    schema=f"(Tensor gradient, Tensor tokens, Tensor weight, Tensor gamma, {_OPTIONS}) "
    "-> (Tensor, Tensor)",
)
def _backward(
    gradient: Tensor,
    tokens: Tensor,
    weight: Tensor,
    gamma: Tensor,
    grid: Sequence[int],
    stride: Sequence[int],
    has_cls: bool,
    epsilon: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of the tokens, and (taps + 2, d) of the weight by tap, `gamma` and `beta`."""
    gradient, tokens = map(_with_contiguous_channels, (gradient, tokens))
    grad_tokens, _ = _empty_gradients(
        gradient, tokens, weight, gamma, grid, stride, has_cls, epsilon
    )
    batch, heads, num_tokens, width = tokens.shape
    blocks, geometry = _blocks(width), _geometry(weight, stride, has_cls)
    num_rows = gradient.shape[:3].numel()
    num_programs = min(triton.cdiv(num_rows, blocks["ROWS"]), _MAX_PROGRAMS)
    by_tap = _by_tap(weight)
    before_norm = torch.empty(gradient.shape, dtype=tokens.dtype, device=tokens.device)
    sums = tokens.new_empty(num_programs, len(by_tap) + 2, width, dtype=torch.float32)
    sizes = (*grid, *_pooled_grid(grid, weight, stride))
    with torch.cuda.device_of(tokens):
        triton_pooling.norm_backward[(num_programs,)](
            tokens,
            by_tap,
            gamma.contiguous(),
            gradient,
            before_norm,
            sums,
            *tokens.stride()[:3],
            *gradient.stride()[:3],
            num_rows,
            heads,
            width,
            epsilon,
            *sizes,
            **geometry,
            **blocks,
        )
        num_rows_in = batch * heads * num_tokens
        triton_pooling.tokens_backward[(triton.cdiv(num_rows_in, blocks["ROWS"]),)](
            before_norm,
            by_tap,
            grad_tokens,
            *grad_tokens.stride()[:3],
            num_rows_in,
            heads,
            width,
            *sizes,
            **geometry,
            **blocks,
        )
        triton_pooling.weight_backward[(geometry["KT"] * geometry["KH"], num_programs)](
            tokens,
            before_norm,
            sums,
            *tokens.stride()[:3],
            num_rows,
            heads,
            width,
            *sizes,
            **geometry,
            **blocks,
            TAPS=triton.next_power_of_2(geometry["KW"]),
        )
    return grad_tokens, sums.sum(0)


@_backward.register_fake
def _empty_gradients(
    gradient: Tensor,
    tokens: Tensor,
    weight: Tensor,
    gamma: Tensor,
    grid: Sequence[int],
    stride: Sequence[int],
    has_cls: bool,
    epsilon: float,
) -> tuple[Tensor, Tensor]:
    # In memory (B, N, heads, d), as linear layers have it.
    batch, heads, num_tokens, width = tokens.shape
    grad_tokens = tokens.new_empty(batch, num_tokens, heads, width).transpose(1, 2)
    num_sums = weight.shape[2:].numel() + 2
    return grad_tokens, tokens.new_empty(num_sums, width, dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    tokens, weight, gamma, beta, *ctx.options = inputs
    ctx.beta_dtype = beta.dtype
    ctx.save_for_backward(tokens, weight, gamma)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    tokens, weight, gamma = ctx.saved_tensors
    grad_tokens, sums = torch.ops.slowfast_maskfeat.pool_and_norm_backward(
        gradient, tokens, weight, gamma, *ctx.options
    )
    grad_weight = sums[:-2].t().reshape(weight.shape).to(weight.dtype)
    grad_gamma, grad_beta = sums[-2].to(gamma.dtype), sums[-1].to(ctx.beta_dtype)
    return grad_tokens, grad_weight, grad_gamma, grad_beta, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_keep)


def _pooled_grid(grid: Sequence[int], weight: Tensor, stride: Sequence[int]) -> Grid:
    kernel_t, kernel_h, kernel_w = weight.shape[2:]
    stride_t, stride_h, stride_w = stride
    return pooled_grid(Grid(*grid), (kernel_t, kernel_h, kernel_w), (stride_t, stride_h, stride_w))


def _by_tap(weight: Tensor) -> Tensor:
    """(d, 1, kernel_t, kernel_h, kernel_w) -> (taps, d), contiguous."""
    return weight.flatten(1).t().contiguous()


def _with_contiguous_channels(tokens: Tensor) -> Tensor:
    return tokens if tokens.stride(3) == 1 else tokens.contiguous()


def _geometry(weight: Tensor, stride: Sequence[int], has_cls: bool) -> dict[str, int]:
    """Constants for which a kernel is compiled."""
    names = ("CLS", "KT", "KH", "KW", "ST", "SH", "SW")
    return dict(zip(names, (int(has_cls), *weight.shape[2:], *stride), strict=True))


def _blocks(width: int) -> dict[str, int]:
    """Rows and channels of a program."""
    channels = triton.next_power_of_2(width)
    return {"ROWS": max(1, _ELEMENTS // channels), "WIDTH": channels}
