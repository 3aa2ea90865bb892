"""One optimizer step on summed gradients: average, clip, and skip if not finite.

Nothing here reads a value back from the device, so the loop can run ahead of it; the one exception
is the first step of SGD with dampening.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class StepResult:
    """Outcome of a step, as scalar tensors on the device; reading one waits for the device.

    Attributes:
        gradient_norm: float, the 2-norm over all gradients after division, before clipping.
        loss_is_finite: bool.
        gradient_is_finite: bool.
        taken: bool, whether the parameters were updated: loss and gradient are finite and there
            were terms.
    """

    gradient_norm: Tensor
    loss_is_finite: Tensor
    gradient_is_finite: Tensor
    taken: Tensor


class GradientStep:
    """Optimizer step on gradients that were accumulated as sums of loss terms.

    The loss of a micro-batch is back-propagated as a sum (mean times weight), so gradients add up
    over micro-batches, and over processes (`wrap` also sums
    them). The step divides them once by the number of terms. So k micro-batches of size b equal
    one batch of size k * b, and two processes equal one, even if masks differ in size.

    The step is skipped on the device if the loss or the gradient is not finite, or if there were no
    terms: it leaves parameters and optimizer state unchanged.

    With fp16 and `torch.amp.GradScaler`::

        scaler.scale(loss_sum).backward()        # for each micro-batch
        scaler.unscale_(optimizer)               # an overflow leaves inf or NaN, which is skipped
        result = step(total_weight, loss_sum)    # instead of scaler.step(optimizer)
        scaler.update()                          # adapts the scale if unscale_ found an overflow
        optimizer.zero_grad()

    With a scaler `gradient_is_finite` is occasionally false while the scale adapts, which is
    normal: allow more of these in a row than of losses. Do not read `optimizer.found_inf`; it is
    set only during the step.

    Args:
        optimizer: any torch optimizer; fused ones skip inside their kernel, others are restored
            afterwards, which costs a copy of parameters and state.
        clip_l2norm: `SOLVER.CLIP_GRAD_L2NORM`: the gradient is scaled down to this 2-norm.
        clip_value: `SOLVER.CLIP_GRAD_VAL`: every element is clamped to plus or minus this.
        per_parameter: `SOLVER.CLIP_GRAD_PER_PARAM`: `clip_l2norm` limits the gradient of each
            parameter tensor instead of all together, as in DINO (arXiv 2104.14294).

    Raises:
        ValueError: if both kinds of clipping are set, or one is not positive, or
            `per_parameter` lacks its norm.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        clip_l2norm: float | None = None,
        clip_value: float | None = None,
        per_parameter: bool = False,
    ) -> None:
        if clip_l2norm is not None and clip_value is not None:
            raise ValueError(
                "SOLVER.CLIP_GRAD_L2NORM or SOLVER.CLIP_GRAD_VAL must be None, got "
                f"{clip_l2norm} and {clip_value}"
            )
        for key, value in (("CLIP_GRAD_L2NORM", clip_l2norm), ("CLIP_GRAD_VAL", clip_value)):
            if value is not None and value <= 0:
                raise ValueError(f"SOLVER.{key} must be > 0 or None, got {value}")
        if per_parameter and clip_l2norm is None:
            raise ValueError(
                "SOLVER.CLIP_GRAD_L2NORM must be > 0 with SOLVER.CLIP_GRAD_PER_PARAM True, got None"
            )
        self.optimizer = optimizer
        self.clip_l2norm = clip_l2norm
        self.clip_value = clip_value
        self.per_parameter = per_parameter

    @torch.no_grad()
    def __call__(
        self,
        total_weight: Tensor,
        loss: Tensor | None = None,
        *,
        frozen: Iterable[nn.Parameter] = (),
    ) -> StepResult:
        """Average and clip the gradients in place, then update the parameters or skip the step.

        Args:
            total_weight: (), number of terms in the sums, over micro-batches and processes.
            loss: (), the loss to check (sum or mean), the same on all processes; None checks the
                gradients only.
            frozen: parameters whose gradients are dropped after clipping.

        Returns:
            The outcome, on the device.
        """
        gradients = self._gradients()
        assert gradients, "step before any backward pass"
        device = gradients[0].device
        total_norm = _total_norm(gradients)
        weight = total_weight.detach().to(device=device, dtype=total_norm.dtype)
        divisor = torch.where(weight > 0, weight, torch.ones_like(weight))
        norm = total_norm / divisor
        factor = divisor.reciprocal()
        if self.clip_l2norm is not None and not self.per_parameter:
            # The formula of torch.nn.utils.clip_grad_norm_, including its small constant.
            factor = factor * (self.clip_l2norm / (norm + 1e-6)).clamp(max=1.0)
        _scale(gradients, factor)
        if self.clip_l2norm is not None and self.per_parameter:
            _clip_each(gradients, self.clip_l2norm)
        if self.clip_value is not None:
            torch._foreach_clamp_min_(gradients, -self.clip_value)
            torch._foreach_clamp_max_(gradients, self.clip_value)

        gradient_is_finite = torch.isfinite(norm)
        loss_is_finite = torch.ones_like(gradient_is_finite)
        if loss is not None:
            loss_is_finite = torch.isfinite(loss.detach()).to(device)
        taken = gradient_is_finite & loss_is_finite & (weight > 0)
        for parameter in frozen:
            parameter.grad = None
        if getattr(self.optimizer, "_step_supports_amp_scaling", False):
            _step_fused(self.optimizer, taken)
        else:
            _step_and_restore(self.optimizer, taken)
        return StepResult(norm, loss_is_finite, gradient_is_finite, taken)

    def _gradients(self) -> list[Tensor]:
        return [
            parameter.grad
            for group in self.optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]


def _total_norm(gradients: list[Tensor]) -> Tensor:
    """Return the 2-norm over all gradients: (), float32, or float64 if they are."""
    norms = _norms(gradients)
    device = norms[0].device
    total: Tensor = torch.linalg.vector_norm(torch.stack([n.to(device) for n in norms]), 2.0)
    return total


def _norms(gradients: list[Tensor]) -> list[Tensor]:
    """Return the 2-norm of each gradient: (), float32, or float64 if it is."""
    wide = [
        gradient.float() if gradient.dtype in (torch.float16, torch.bfloat16) else gradient
        for gradient in gradients
    ]
    return list(torch._foreach_norm(wide, 2.0))


def _scale(gradients: list[Tensor], factor: Tensor) -> None:
    """Multiply gradients by a scalar in place, with one call per device and dtype."""
    by_kind: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for gradient in gradients:
        by_kind.setdefault((gradient.device, gradient.dtype), []).append(gradient)
    for (device, dtype), same in by_kind.items():
        torch._foreach_mul_(same, factor.to(device=device, dtype=dtype))


def _clip_each(gradients: list[Tensor], limit: float) -> None:
    """Scale each gradient down in place to a 2-norm of `limit`, by the formula for all together."""
    factors = torch._foreach_add(_norms(gradients), 1e-6)
    torch._foreach_reciprocal_(factors)
    torch._foreach_mul_(factors, limit)
    torch._foreach_clamp_max_(factors, 1.0)
    torch._foreach_mul_(gradients, factors)


def _step_fused(optimizer: torch.optim.Optimizer, taken: Tensor) -> None:
    # The attribute that torch.amp.GradScaler sets: where it is 1, the fused kernels change nothing
    # and torch reverts the step count.
    optimizer.found_inf = (~taken).to(torch.float32)  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]


def _step_and_restore(optimizer: torch.optim.Optimizer, taken: Tensor) -> None:
    parameters = [
        parameter
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    before = [parameter.clone() for parameter in parameters]
    state_before = [
        {
            key: value.clone()
            for key, value in optimizer.state[parameter].items()
            if _is_tensor(value)
        }
        for parameter in parameters
    ]
    optimizer.step()
    for parameter, old, old_state in zip(parameters, before, state_before, strict=True):
        parameter.copy_(torch.where(taken, parameter, old))
        for key, value in optimizer.state[parameter].items():
            if not _is_tensor(value):
                continue
            # State that the skipped step created is reset to zero, its initial value.
            kept = old_state.get(key, torch.zeros_like(value))
            value.copy_(torch.where(taken.to(value.device), value, kept))
    _drop_first_buffers(optimizer, parameters, state_before, taken)


def _drop_first_buffers(
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    state_before: list[dict[str, Tensor]],
    taken: Tensor,
) -> None:
    """Drop the buffers of SGD with dampening that a skipped step created.

    The first step takes the whole gradient for the buffer, the others a part of it, so a buffer of
    zeros would dampen the first gradient too.
    """
    if not any(g.get("dampening") and g["momentum"] for g in optimizer.param_groups):
        return
    new = [p for p, old in zip(parameters, state_before, strict=True) if not old]
    if new and not bool(taken):
        for parameter in new:
            optimizer.state[parameter].pop("momentum_buffer", None)


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)
