"""The MLP of a block, which keeps one tensor of its hidden width for the backward pass, not two."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from slowfast_maskfeat.tracing import is_exporting


class Mlp(nn.Module):
    """Two linear layers with a GELU between them.

    Args:
        dim: Width of the input.
        hidden: Width between the layers.
        dim_out: Width of the output.
        dropout: Rate after each of the two.
    """

    def __init__(self, dim: int, hidden: int, dim_out: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim_out)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim_out)."""
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
        return F.linear(F.gelu(hidden), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        hidden, weight = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        grad_hidden = grad_weight = grad_bias = None
        if needs_hidden:
            grad_gelu = (rows @ weight).view_as(hidden)
            grad_hidden = torch.ops.aten.gelu_backward(grad_gelu, hidden)
        if needs_weight:
            grad_weight = rows.t() @ F.gelu(hidden).flatten(0, -2)
        if needs_bias:
            grad_bias = rows.sum(0)
        return grad_hidden, grad_weight, grad_bias
