"""Checks of a checkpoint against the training that resumes from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat.checkpoints.integrity import nonfinite_weights
from slowfast_maskfeat.checkpoints.report import shorten

_ADAM = ("step", "exp_avg", "exp_avg_sq")


def check_restorable(payload: Mapping[str, Any], model: nn.Module) -> None:
    """Check that weights are finite, and that their average has their shapes.

    Args:
        payload: content of a checkpoint, with the types that `load_checkpoint` has checked.
        model: the bare model.

    Raises:
        ValueError: a part can't be restored; the message names it.
    """
    broken = nonfinite_weights(payload)
    if broken:
        raise ValueError(
            f"it has weights that are not finite ({shorten(broken)}), so its training had diverged"
        )
    average = (payload.get("average_state") or {}).get("weights") or {}
    own = model.state_dict()
    wrong = [name for name, value in average.items() if name in own and not _fits(value, own[name])]
    if wrong:
        raise ValueError(f"its average has other shapes of {shorten(wrong)}")


def check_moments(optimizer: torch.optim.Optimizer, source: str) -> None:
    """Check the restored state of an optimizer: tensors of the shapes of their parameters.

    Args:
        optimizer: with the state of a checkpoint.
        source: path of the checkpoint, for messages.

    Raises:
        ValueError: some is missing or of another kind.
    """
    needed = _ADAM if isinstance(optimizer, torch.optim.Adam) else ()
    for parameter, moments in optimizer.state.items():
        if not isinstance(parameter, Tensor):  # torch keeps the number of an unknown one
            raise ValueError(
                f"{source}: its optimizer has a state of parameter {parameter}, but no such "
                "parameter; resume from another checkpoint"
            )
        wrong = [name for name in needed if moments and name not in moments]
        wrong += [name for name, value in moments.items() if not _is_moment(name, value, parameter)]
        if wrong:
            raise ValueError(
                f"{source}: the state of its optimizer has no usable {shorten(wrong)} for a "
                "parameter; resume from another checkpoint"
            )


def _is_moment(name: str, value: Any, parameter: Tensor) -> bool:
    if name == "step":
        is_scalar = isinstance(value, Tensor) and value.numel() == 1
        return (is_scalar or type(value) in (int, float)) and 0 <= float(value) < math.inf
    if value is None:
        return name == "momentum_buffer"  # of SGD without momentum
    return isinstance(value, Tensor) and _fits(value, parameter)


def _fits(value: Tensor, own: Tensor) -> bool:
    return (
        value.shape == own.shape
        and value.is_floating_point() == own.is_floating_point()
        and value.layout is torch.strided
    )
