"""Where kernels can be tested, and the plain pooling that they are compared with."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import pytest
import torch
from torch import nn

from slowfast_maskfeat.backbones.pooling import DepthwisePool, pool_tokens
from slowfast_maskfeat.kernels import is_interpreted
from slowfast_maskfeat.shapes import Grid

HAS_TRITON = importlib.util.find_spec("triton") is not None
NEEDS_TRITON = pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")
NEEDS_INTERPRETER = pytest.mark.skipif(
    not (HAS_TRITON and is_interpreted()),
    reason="needs Triton and its interpreter: on a machine with a GPU, TRITON_INTERPRET=1",
)
NEEDS_GPU = pytest.mark.skipif(
    not HAS_TRITON or is_interpreted() or not torch.cuda.is_available(),
    reason="needs Triton, a CUDA device, and TRITON_INTERPRET not set",
)
DEVICES = (
    pytest.param("cpu", marks=NEEDS_INTERPRETER, id="interpreter"),
    pytest.param("cuda", marks=[pytest.mark.cuda, NEEDS_GPU], id="cuda"),
)


class PoolingCase(NamedTuple):
    """A pooling and the tokens that it meets."""

    heads: int
    width: int
    grid: Grid
    kernel: tuple[int, int, int]
    stride: tuple[int, int, int]
    has_cls: bool
    batch: int = 2

    def modules(self, device: str) -> tuple[DepthwisePool, nn.LayerNorm]:
        """The pooling and its norm with random weights, in float32."""
        torch.manual_seed(1)
        pool = DepthwisePool(self.width, kernel=self.kernel, stride=self.stride)
        norm = nn.LayerNorm(self.width, eps=1e-6)
        for weight in (pool.weight, norm.weight, norm.bias):
            nn.init.normal_(weight)
        return pool.to(device), norm.to(device)

    def qkv(self, device: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """(B, N, 3, heads, d) of a linear layer: its keys are tokens with the heads inside."""
        torch.manual_seed(2)
        sizes = (self.batch, self.has_cls + self.grid.num_tokens, 3, self.heads, self.width)
        return torch.randn(sizes).to(device, dtype).requires_grad_()

    def run(self, tokens, pool, norm):
        """The pooled tokens and their grid."""
        return pool_tokens(tokens, self.grid, pool, norm, has_cls=self.has_cls)


def keys_of(qkv: torch.Tensor) -> torch.Tensor:
    """(B, N, 3, heads, d) -> (B, heads, N, d), a view."""
    return qkv.permute(2, 0, 3, 1, 4)[1]


def relative_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference as a part of the largest value."""
    ours, theirs = ours.detach().double(), theirs.detach().double()
    return float((ours - theirs).abs().max() / theirs.abs().max())
