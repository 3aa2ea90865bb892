"""Switching on the kernels of networks, after a comparison with the plain forms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from slowfast_maskfeat.backbones.attention import PoolingAttention
from slowfast_maskfeat.backbones.geometry import Triple
from slowfast_maskfeat.backbones.pooling import DepthwisePool, pool_tokens
from slowfast_maskfeat.kernels.hog import FusedHOG
from slowfast_maskfeat.kernels.pooling import pool_and_norm
from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets.hog import HOGTarget, bin_thresholds, window_profile

# Largest difference from the plain form in float32, as a part of its largest value.
_TOLERANCE = 1e-4
_ROUNDINGS = 4  # of the tokens' dtype, where that is coarser
_NUM_SAMPLES = 2


class _Pooling(NamedTuple):
    """Shape for which a pooling is checked."""

    num_heads: int
    grid: Grid
    has_cls: bool
    width: int
    kernel: Triple
    stride: Triple
    epsilon: float


def switch_on(
    networks: Iterable[nn.Module], *, clip_size: Triple, device: torch.device, dtype: torch.dtype
) -> int:
    """Let all depthwise poolings with a norm and all HOG targets compute with kernels.

    Each kernel is run once for every shape that it has, on random values, and compared with the
    plain form in float32: the result, and the gradients.

    Args:
        networks: changed in place.
        clip_size: (T, H, W) in frames and pixels.
        device: of the networks.
        dtype: of the tokens, which autocast decides.

    Returns:
        How many modules now compute with kernels.

    Raises:
        ValueError: a kernel does not run or differs from the plain form; the networks are then
            unchanged, up to this kernel.
    """
    checked: set[_Pooling] = set()
    num_switched = 0
    for module in [module for network in networks for module in network.modules()]:
        if isinstance(module, PoolingAttention):
            for name in "qkv":
                pool, norm = getattr(module, f"pool_{name}"), getattr(module, f"norm_{name}")
                if not isinstance(pool, DepthwisePool):
                    continue
                shape = _Pooling(
                    module.num_pooled_apart,
                    module.grid,
                    module.has_cls,
                    pool.out_channels,
                    pool.kernel_size,  # type: ignore[arg-type]
                    pool.stride,  # type: ignore[arg-type]
                    norm.eps,
                )
                if shape not in checked:
                    _check_pooling(shape, device, dtype)
                    checked.add(shape)
                pool.fused = pool_and_norm
                num_switched += 1
        elif isinstance(module, HOGTarget):
            fused = _fused_hog(module).to(device)
            _check_hog(module, fused, clip_size, device)
            module.fused = fused
            num_switched += 1
    return num_switched


def _fused_hog(target: HOGTarget) -> FusedHOG:
    _, rows, columns = target.token_size
    return FusedHOG(
        bin_thresholds(target.bins),
        window_profile(target.window, torch.device("cpu")),
        cell=target.cell,
        token_rows=rows // target.cell,
        token_columns=columns // target.cell,
    )


def _check_pooling(shape: _Pooling, device: torch.device, dtype: torch.dtype) -> None:
    """Compare the results and all gradients for random tokens and weights."""
    draw = torch.Generator().manual_seed(0)  # the random numbers of the run stay as they are

    def random(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=draw).to(device)

    num_tokens = shape.has_cls + shape.grid.num_tokens
    # As a linear layer gives them, which has the heads inside.
    tokens = random(_NUM_SAMPLES, num_tokens, shape.num_heads, shape.width).to(dtype)
    tokens = tokens.transpose(1, 2).requires_grad_()
    with torch.device("meta"):  # where initial values are not drawn
        pool = DepthwisePool(shape.width, kernel=shape.kernel, stride=shape.stride)
        norm = nn.LayerNorm(shape.width, eps=shape.epsilon)
    for module in (pool, norm):
        for weight in module.to_empty(device=device).parameters():
            weight.data.copy_(random(*weight.shape))
    inputs = (tokens, pool.weight, norm.weight, norm.bias)
    with torch.enable_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        plain, _ = pool_tokens(tokens.float(), shape.grid, pool, norm, has_cls=shape.has_cls)
        gradient = random(*plain.shape).to(dtype)
        expected = (plain, *torch.autograd.grad(plain, inputs, gradient.float()))
    what = (
        f"pooling with kernel {shape.kernel} and stride {shape.stride} of tokens "
        f"{tuple(tokens.shape)} on {shape.grid} in {dtype}"
    )
    try:
        with torch.enable_grad():
            pool.fused = pool_and_norm
            fused, _ = pool_tokens(tokens, shape.grid, pool, norm, has_cls=shape.has_cls)
            found = (fused, *torch.autograd.grad(fused, inputs, gradient))
    except Exception as error:  # whatever Triton's compiler or the driver raises
        raise _failed(what, error) from error
    tolerance = max(_TOLERANCE, _ROUNDINGS * torch.finfo(dtype).eps)
    _compare(what, "the result", found[0], expected[0], tolerance)
    for name, ours, theirs in zip(
        ("tokens", "weight", "norm's weight", "norm's bias"), found[1:], expected[1:], strict=True
    ):
        _compare(what, f"the gradient of the {name}", ours, theirs, tolerance)


@torch.no_grad()
def _check_hog(target: HOGTarget, fused: FusedHOG, clip_size: Triple, device: torch.device) -> None:
    """Compare the tokens of random pixels, a part of which is flat or has ties."""
    grid = Grid(*(size // step for size, step in zip(clip_size, target.token_size, strict=True)))
    draw = torch.Generator().manual_seed(0)
    shape = (_NUM_SAMPLES, target.num_channels, *clip_size)
    clips = torch.randint(0, 256, shape, generator=draw).to(torch.uint8)
    clips[0] //= 64  # four values, with many ties
    clips[0, :, :, : target.token_size[1]] = 7
    # On a CPU, to which the thresholds belong.
    expected = target.encode(clips, grid)
    what = f"HOG with {target.bins} bins and cell {target.cell} of clips {shape} in torch.uint8"
    try:
        frames = clips.to(device)[:, :, :: target.token_size[0]].transpose(1, 2)
        found = fused(frames).cpu()
    except Exception as error:  # whatever Triton's compiler or the driver raises
        raise _failed(what, error) from error
    _compare(what, "the result", found, expected, _TOLERANCE)


def _compare(what: str, part: str, found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Raise an error unless two tensors agree, relative to the largest value."""
    found, expected = found.detach().float(), expected.detach()
    largest = float((found - expected).abs().max() / expected.abs().max())
    if not largest <= tolerance:
        raise ValueError(
            f"MODEL.KERNELS must be 'plain' here, got 'triton': the kernel for {what} differs from "
            f"the plain form by {largest:.3g} of the largest value in {part}, more than "
            f"{tolerance:.3g}; set MODEL.KERNELS plain"
        )


def _failed(what: str, error: Exception) -> ValueError:
    return ValueError(
        f"MODEL.KERNELS must be 'plain' here, got 'triton': the kernel for {what} does not run: "
        f"{type(error).__name__}: {first_line(error)}; set MODEL.KERNELS plain"
    )
