"""The projection to queries, keys and values, whose gradients need no common tensor."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from slowfast_maskfeat.tracing import is_exporting


def project_apart(tokens: Tensor, weight: Tensor, bias: Tensor | None, parts: int) -> list[Tensor]:
    """Parts of the outputs of a linear layer, as views of one tensor.

    Autograd would join the gradients of the parts before it multiplies them. On a CPU, where that
    is a pass over memory, each is multiplied for itself.

    Args:
        tokens: (B, N, D).
        weight: (parts * width, D).
        bias: (parts * width,) or None.
        parts: number of parts.

    Returns:
        (B, N, width) each.
    """
    # In bfloat16, where autocast is on too, the sum of three products would be rounded three times.
    is_exact = tokens.dtype in (torch.float32, torch.float64)
    on_cpu = tokens.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    is_traced = torch.compiler.is_compiling() or is_exporting()
    if not (is_exact and on_cpu) or is_traced or not torch.is_grad_enabled():
        return list(F.linear(tokens, weight, bias).unflatten(-1, (parts, -1)).unbind(2))
    return list(_ProjectApart.apply(tokens, weight, bias, parts))  # type: ignore[no-untyped-call]


class _ProjectApart(torch.autograd.Function):
    """`project_apart`, of tensors of one dtype."""

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, weight: Tensor, bias: Tensor | None, parts: int
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(tokens, weight)
        return F.linear(tokens, weight, bias).chunk(parts, dim=-1)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        tokens, weight = ctx.saved_tensors
        needs_tokens, needs_weight, needs_bias, _ = ctx.needs_input_grad
        of_parts = [gradient.flatten(0, -2) for gradient in gradients]
        rows = tokens.flatten(0, -2)
        weights = weight.chunk(len(of_parts))
        of_tokens = of_weight = None
        if needs_tokens:
            of_tokens = of_parts[0] @ weights[0]
            for of_part, part in zip(of_parts[1:], weights[1:], strict=True):
                of_tokens.addmm_(of_part, part)
            of_tokens = of_tokens.view_as(tokens)
        if needs_weight:
            of_weight = torch.empty_like(weight)
            for of_part, part in zip(of_parts, of_weight.chunk(len(of_parts)), strict=True):
                torch.mm(of_part.t(), rows, out=part)
        of_bias = torch.cat([of_part.sum(0) for of_part in of_parts]) if needs_bias else None
        return of_tokens, of_weight, of_bias, None
