"""Pooling of tokens on their grid: the operator that makes attention multiscale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slowfast_maskfeat.backbones.depthwise import depthwise_conv3d, depthwise_conv3d_of_patches
from slowfast_maskfeat.backbones.geometry import Triple
from slowfast_maskfeat.shapes import Grid

PoolMode = Literal["conv", "conv_unshared", "avg", "max"]


class FusedPooling(Protocol):
    """A kernel for a `DepthwisePool` and its norm."""

    def __call__(
        self,
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
        """Pool and norm (B, heads, N, d); return that and the new grid."""


class DepthwisePool(nn.Conv3d):
    """Pools by a learned depthwise convolution.

    Args:
        width: channels d: of one head, whose kernels all heads share, or of all heads.
        kernel: (t, h, w) of the convolution.
        stride: (t, h, w) of the convolution.

    Attributes:
        fused: a kernel that pools and norms at once, which `pool_tokens` then calls; None: none.
    """

    fused: FusedPooling | None = None

    def __init__(self, width: int, *, kernel: Triple, stride: Triple) -> None:
        super().__init__(
            width,
            width,
            kernel_size=kernel,
            stride=stride,
            padding=_padding(kernel),
            groups=width,
            bias=False,
        )

    def forward(self, clips: Tensor) -> Tensor:
        """(b, t, h, w, heads * d) -> (b, t', h', w', heads * d)."""
        return depthwise_conv3d(
            clips,
            self._weight_of_heads(clips.shape[-1]),
            stride=self.stride,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
        )

    def pool_patches(self, tokens: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """As `forward` what follows a cls token, (b, 1 + t*h*w, heads * d); that token apart."""
        return depthwise_conv3d_of_patches(
            tokens,
            grid,
            self._weight_of_heads(tokens.shape[-1]),
            stride=self.stride,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
        )

    def _weight_of_heads(self, channels: int) -> Tensor:
        """The kernels, once for each head."""
        heads = channels // self.out_channels
        return self.weight if heads == 1 else self.weight.repeat(heads, 1, 1, 1, 1)

    def pool_and_norm(
        self, tokens: Tensor, grid: Grid, norm: nn.LayerNorm, *, has_cls: bool
    ) -> tuple[Tensor, Grid]:
        """Pool and norm (B, heads, N, d) by the kernel `fused`; return that and the new grid."""
        assert self.fused is not None
        return self.fused(
            tokens,
            grid,
            self.weight,
            norm.weight,
            norm.bias,
            stride=self.stride,
            has_cls=has_cls,
            epsilon=norm.eps,
        )


class ExtremeOrMeanPool(nn.Module):
    """Pools by the maximum or by the mean over a window.

    Args:
        mode: "max" or "avg"; the mean counts the zeros of the padding, as published.
        kernel: (t, h, w) of the window.
        stride: (t, h, w) of the window.
    """

    def __init__(self, mode: Literal["avg", "max"], *, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.mode = mode
        self.kernel = kernel
        self.stride = stride

    def forward(self, clips: Tensor) -> Tensor:
        """(b, t, h, w, d) -> (b, t', h', w', d)."""
        padding = _padding(self.kernel)
        if self.mode == "max" and self.kernel[0] == self.stride[0] == 1:
            # Frame by frame, with channels last, is several times faster than the 3-D operator.
            frames = clips.flatten(0, 1).permute(0, 3, 1, 2)  # (b * t, d, h, w)
            frames = F.max_pool2d(frames, self.kernel[1:], self.stride[1:], padding[1:])
            return frames.permute(0, 2, 3, 1).unflatten(0, clips.shape[:2])
        planes = clips.permute(0, 4, 1, 2, 3)  # (b, d, t, h, w)
        pool = F.max_pool3d if self.mode == "max" else F.avg_pool3d
        if any(size < extent for size, extent in zip(planes.shape[2:], self.kernel, strict=True)):
            # torch refuses a window larger than the clip, however much padding there is.
            fill = float("-inf") if self.mode == "max" else 0.0
            sides = [side for size in reversed(padding) for side in (size, size)]
            planes, padding = F.pad(planes, sides, value=fill), (0, 0, 0)
        return pool(planes, self.kernel, self.stride, padding).permute(0, 2, 3, 4, 1)


def make_pool(
    mode: PoolMode, width: int, *, kernel: Triple | None, stride: Triple | None
) -> nn.Module | None:
    """Build the pooling of one tensor.

    Args:
        mode: how it pools (MVIT.MODE).
        width: channels d of what is pooled.
        kernel: (t, h, w); None: no pooling.
        stride: (t, h, w).

    Returns:
        The module, on (b, t, h, w, d), or None.
    """
    if kernel is None or stride is None:
        return None
    if mode == "avg" or mode == "max":
        return ExtremeOrMeanPool(mode, kernel=kernel, stride=stride)
    assert mode in ("conv", "conv_unshared"), mode
    return DepthwisePool(width, kernel=kernel, stride=stride)


def make_skip_pool(kernel: Triple, stride: Triple) -> nn.Module | None:
    """Build the max pooling of a block's shortcut.

    Args:
        kernel: (t, h, w), see `BlockGeometry.kernel_skip`.
        stride: (t, h, w) of the block's queries.

    Returns:
        The module, on (b, t, h, w, d), or None where nothing is pooled.
    """
    if max(stride) == 1:
        return None
    return ExtremeOrMeanPool("max", kernel=kernel, stride=stride)


def pool_tokens(
    tokens: Tensor,
    grid: Grid,
    pool: nn.Module | None,
    norm: nn.Module | None = None,
    *,
    has_cls: bool,
) -> tuple[Tensor, Grid]:
    """Pool tokens on their grid; a cls token in front is not pooled.

    Args:
        tokens: (B, heads, N, d), N = 1 + t*h*w with a cls token.
        grid: grid of the tokens.
        pool: module on (B, t, h, w, heads * d); None: the tokens stay as they are.
        norm: layer norm of all tokens after the pooling, the cls token included.
        has_cls: whether the first token is a cls token.

    Returns:
        (B, heads, N', d) and the new grid.
    """
    if pool is None:
        return tokens, grid
    if isinstance(pool, DepthwisePool) and pool.fused and isinstance(norm, nn.LayerNorm):
        return pool.pool_and_norm(tokens, grid, norm, has_cls=has_cls)
    cls, pooled, grid = _pool_patches(tokens, grid, pool, has_cls=has_cls)
    if cls is not None:
        pooled = torch.cat((cls, pooled), dim=1)
    return (pooled if norm is None else norm(pooled)).transpose(1, 2), grid


def pool_tokens_apart(
    tokens: Tensor,
    grid: Grid,
    pool: nn.Module | None,
    norm: nn.Module | None = None,
    *,
    has_cls: bool,
) -> tuple[Tensor | None, Tensor, Grid]:
    """Pool tokens as `pool_tokens`, but return the cls token apart, which saves a copy.

    Returns:
        (B, heads, 1, d) or None without a cls token, (B, heads, N', d) and the new grid.
    """
    if pool is None or getattr(pool, "fused", None):  # both give one tensor
        pooled, grid = pool_tokens(tokens, grid, pool, norm, has_cls=has_cls)
        return *split_cls(pooled, has_cls=has_cls), grid
    cls, pooled, grid = _pool_patches(tokens, grid, pool, has_cls=has_cls)
    if norm is not None:
        cls, pooled = None if cls is None else norm(cls), norm(pooled)
    return None if cls is None else cls.transpose(1, 2), pooled.transpose(1, 2), grid


def _pool_patches(
    tokens: Tensor, grid: Grid, pool: nn.Module, *, has_cls: bool
) -> tuple[Tensor | None, Tensor, Grid]:
    """Pool the patch tokens.

    The heads of a token lie side by side in memory, so that they are channels of one clip, and no
    copy is needed to separate them.

    Returns:
        (B, 1, heads, d) or None, (B, N', heads, d) and the new grid.
    """
    batch, heads = tokens.shape[:2]
    flat = tokens.transpose(1, 2).flatten(2)  # (B, N, heads * d)
    cls = None
    if not has_cls:
        pooled = pool(flat.unflatten(1, tuple(grid)))  # of (B, t, h, w, heads * d)
    elif isinstance(pool, DepthwisePool):
        cls, pooled = pool.pool_patches(flat, grid)
    else:
        cls, patches = flat.split([1, grid.num_tokens], dim=1)
        pooled = pool(patches.unflatten(1, tuple(grid)))
    grid = Grid(*pooled.shape[1:4])
    pooled = pooled.reshape(batch, grid.num_tokens, heads, -1)
    return None if cls is None else cls.unflatten(2, (heads, -1)), pooled, grid


def split_cls(tokens: Tensor, *, has_cls: bool) -> tuple[Tensor | None, Tensor]:
    """Separate the cls token, if there is one, from the patch tokens.

    Args:
        tokens: (B, heads, N, d).
        has_cls: whether the first token is a cls token.

    Returns:
        (B, heads, 1, d) or None, and (B, heads, N without cls, d), both views.
    """
    if not has_cls:
        return None, tokens
    # One split and not two slices: its backward pass is one concatenation.
    cls, patches = tokens.split([1, tokens.shape[2] - 1], dim=2)
    return cls, patches


def _padding(kernel: Triple) -> Triple:
    """Half a kernel of zeros on each side."""
    return (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
