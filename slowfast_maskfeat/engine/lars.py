"""LARS: SGD whose gradients are scaled to the norm of each weight.

You et al., "Large Batch Training of Convolutional Networks" (arXiv:1708.03888); as in BYOL
(arXiv:2006.07733, section 3.3) biases and norms are neither scaled nor decayed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor

from slowfast_maskfeat.optimizers import SGD

# Keeps the ratio finite in the form of PySlowFast's and lightly's code.
_EPSILON = 1e-8


class LARS(SGD):
    """SGD on gradients that are multiplied by `trust * |w| / |g|`, weight decay included.

    Parameters with one axis or none are updated as by SGD without weight decay. So is, apart from
    its decay, a parameter whose weights or gradient are zero.

    Args:
        groups: parameter groups of SGD; the weight decay of a group is for its parameters with two
            axes or more.
        trust: trust coefficient.
        norm: `SOLVER.LARS_NORM`, the norm that divides: `sum`, `|g| + decay * |w|`, as in
            PySlowFast's and lightly's code, or `decayed`, `|g + decay * w|`, as in that of
            BYOL, DINO and iBOT.
        options: of `torch.optim.SGD`.
    """

    def __init__(
        self, groups: Any, *, trust: float = 0.001, norm: str = "sum", **options: Any
    ) -> None:
        assert norm in ("sum", "decayed"), norm
        super().__init__(groups, **options)
        self._trust = trust
        self._norm = norm

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Scale the gradients in place and take a step of SGD; nothing is read from the device."""
        assert closure is None, "the gradients are scaled before the step"
        decays = [group["weight_decay"] for group in self.param_groups]
        try:
            for group, decay in zip(self.param_groups, decays, strict=True):
                adapted = [p for p in group["params"] if p.grad is not None and p.ndim > 1]
                if adapted:
                    self._scale(adapted, decay)
                group["weight_decay"] = 0.0
            super().step()
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay
        return None

    def _scale(self, parameters: list[Tensor], decay: float) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        sizes = torch.stack(torch._foreach_norm(parameters, 2.0))
        if self._norm == "sum":
            divisors = torch.stack(torch._foreach_norm(gradients, 2.0))
            zero = divisors == 0
            divisors = divisors + decay * sizes + _EPSILON
            torch._foreach_add_(gradients, parameters, alpha=decay)
        else:
            torch._foreach_add_(gradients, parameters, alpha=decay)
            divisors = torch.stack(torch._foreach_norm(gradients, 2.0))
            zero = divisors == 0
        ratios = torch.where(zero | (sizes == 0), 1.0, self._trust * sizes / divisors)
        torch._foreach_mul_(gradients, list(ratios.unbind()))
