"""One dtype through a block: bfloat16 autocast without casts between its operators.

CUDA's autocast casts each weight by a kernel of its own, and runs layer norms in float32, so that
what follows them casts back. On a GPU a block is bound by the bytes that it moves, and these casts
are a quarter of them. Here the weights of a block are cast together, and its layer norms return the
dtype of their input; they still compute in float32 inside.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call


class LayerNorm(nn.LayerNorm):
    """Layer norm that returns the dtype of its input, if its weights are in bfloat16."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        if self.weight.dtype != torch.bfloat16:
            return super().forward(tokens)
        weight, bias = self.weight.to(tokens.dtype), self.bias.to(tokens.dtype)
        with torch.autocast(tokens.device.type, enabled=False):  # which would cast to float32
            return F.layer_norm(tokens, self.normalized_shape, weight, bias, self.eps)


def call_in_one_dtype(module: nn.Module, tokens: Tensor, *args: Any) -> Any:
    """Call a module; under bfloat16 autocast, with its parameters cast together.

    Parameters named `gamma_*`, the scales of layers, stay in float32: the sums that follow them are
    as accurate as these are. float16 has no normal numbers for small weights, so that nothing is
    cast here. In the graph of a whole model the compiler fuses casts with what is around; that of a
    block gets cast parameters.

    Args:
        module: whose layer norms are of this file's class.
        tokens: its first input.
        args: its other inputs.

    Returns:
        The result of the module.
    """
    device = tokens.device.type
    if (
        torch.compiler.is_compiling()
        or not torch.amp.is_autocast_available(device)
        or not torch.is_autocast_enabled(device)
        or torch.get_autocast_dtype(device) != torch.bfloat16
    ):
        return module(tokens, *args)
    wide = {
        name: tensor
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
        if tensor.dtype == torch.float32 and "gamma_" not in name
    }
    if not wide:
        return module(tokens, *args)
    narrow = _CastTogether.apply(torch.bfloat16, *wide.values())  # type: ignore[no-untyped-call]
    return functional_call(module, dict(zip(wide, narrow, strict=True)), (tokens, *args))


class _CastTogether(torch.autograd.Function):
    """Casts tensors, and their gradients back, with one kernel for all."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        cast = _cast(tensors, dtype)
        needed = ctx.needs_input_grad[1:]
        ctx.mark_non_differentiable(
            *(tensor for tensor, is_needed in zip(cast, needed, strict=True) if not is_needed)
        )
        return tuple(cast)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [gradient for gradient in gradients if gradient is not None]
        cast = iter(_cast(given, torch.float32))
        return None, *(None if gradient is None else next(cast) for gradient in gradients)


def _cast(tensors: Any, dtype: torch.dtype) -> list[Tensor]:
    cast = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    torch._foreach_copy_(cast, list(tensors))
    return cast
