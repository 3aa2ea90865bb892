"""The MLP of a block, which keeps one tensor of its hidden width for the backward pass, not two.

On a CPU in float32 the second layer takes some hundred to thousand rows at a time. Their hidden
tensor stays in the cache, where that of all tokens would pass through memory several times.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from slowfast_maskfeat.tracing import is_exporting

_CHUNK = 2**20  # elements of the hidden tensor that a CPU takes at a time: 4 MiB


class Mlp(nn.Module):
    """Two linear layers with a GELU between them.

    Args:
        dim: width of the input.
        hidden: width between the layers.
        dim_out: width of the output.
        dropout: rate after each of the two.
    """

    def __init__(self, dim: int, hidden: int, dim_out: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim_out)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., dim) -> (..., dim_out)."""
        hidden = self.fc1(tokens)
        if self.training and self.drop.p > 0:
            return self.drop(self.fc2(self.drop(F.gelu(hidden))))
        return gelu_linear(hidden, self.fc2.weight, self.fc2.bias)


def gelu_linear(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Linear layer of the GELU of a tensor; the backward pass computes the GELU again.

    Autograd would keep the GELU, the widest tensor of a block, for the gradient of the weight. A
    compiler decides itself what it keeps.

    Args:
        hidden: (..., hidden).
        weight: (dim_out, hidden).
        bias: (dim_out,).

    Returns:
        (..., dim_out), in the dtype of autocast if that is on.
    """
    if torch.compiler.is_compiling() or is_exporting() or not torch.is_grad_enabled():
        return F.linear(F.gelu(hidden), weight, bias)
    device = hidden.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), bias.to(dtype)
    return _GeluLinear.apply(hidden, weight, bias)  # type: ignore[no-untyped-call]


class _GeluLinear(torch.autograd.Function):
    """`gelu_linear`, of tensors of one dtype."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        rows = hidden.flatten(0, -2)
        size = _rows_at_a_time(rows)
        if size >= len(rows):
            return F.linear(F.gelu(hidden), weight, bias)
        out = hidden.new_empty(len(rows), len(weight))
        for x, y in zip(rows.split(size), out.split(size), strict=True):
            torch.addmm(bias, F.gelu(x), weight.t(), out=y)
        return out.unflatten(0, hidden.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        hidden, weight = ctx.saved_tensors
        *needed, needs_bias = ctx.needs_input_grad
        rows, of_out = hidden.flatten(0, -2), gradient.flatten(0, -2)
        size = _rows_at_a_time(rows)
        if size >= len(rows):
            of_hidden, of_weight = _gradients(rows, of_out, weight, *needed)
        else:
            of_hidden = torch.empty_like(rows) if needed[0] else None
            of_weight = torch.zeros_like(weight) if needed[1] else None
            for first in range(0, len(rows), size):
                part = slice(first, first + size)
                of_part, of_its_weight = _gradients(rows[part], of_out[part], weight, *needed)
                if of_hidden is not None and of_part is not None:
                    of_hidden[part] = of_part
                if of_weight is not None and of_its_weight is not None:
                    of_weight += of_its_weight
        if of_hidden is not None:
            of_hidden = of_hidden.view_as(hidden)
        return of_hidden, of_weight, of_out.sum(0) if needs_bias else None


def _gradients(
    rows: Tensor, of_out: Tensor, weight: Tensor, needs_hidden: bool, needs_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of some rows (M, hidden) and, of these alone, of the weight."""
    of_hidden = of_weight = None
    if needs_hidden:
        of_hidden = torch.ops.aten.gelu_backward(of_out @ weight, rows)
    if needs_weight:
        of_weight = of_out.t() @ F.gelu(rows)
    return of_hidden, of_weight


def _rows_at_a_time(rows: Tensor) -> int:
    """How many rows (M, hidden) to take at a time.

    All where this does not help, or where sums of bfloat16 would be rounded several times.
    """
    if rows.device.type != "cpu" or rows.dtype != torch.float32:
        return len(rows)
    return max(_CHUNK // rows.shape[1], 1)
