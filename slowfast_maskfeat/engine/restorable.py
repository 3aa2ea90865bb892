"""Checks of a checkpoint against the training that resumes from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat.checkpoints.integrity import nonfinite_weights
from slowfast_maskfeat.checkpoints.report import shorten
from slowfast_maskfeat.text import quoted


def check_restorable(
    payload: Mapping[str, Any], optimizer: torch.optim.Optimizer, model: nn.Module
) -> None:
    """Check that weights are finite, and that averages and moments have the shapes of weights.

    Args:
        payload: content of a checkpoint, with the types that `load_checkpoint` has checked.
        optimizer: of the training.
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
    _check_groups(payload["optimizer_state"], optimizer)
    _check_moments(payload["optimizer_state"], optimizer)


def _check_groups(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Check that the settings of parameter groups have the types of the optimizer's."""
    for group, own in zip(saved["param_groups"], optimizer.param_groups, strict=False):
        for name, value in own.items():
            is_setting = name in group and name not in ("params", "names")
            if is_setting and not _is_like(group[name], value):
                raise ValueError(f"its optimizer has {name!r} {quoted(group[name])}, not a number")


def _is_like(value: Any, own: Any) -> bool:
    """Whether a setting has the type of the optimizer's own: numbers, or tuples of as many."""
    if isinstance(own, (list, tuple)):
        is_list = isinstance(value, (list, tuple)) and len(value) == len(own)
        return is_list and all(map(_is_like, value, own))
    if isinstance(own, (bool, int, float, type(None), Tensor)):
        is_scalar = isinstance(value, Tensor) and value.numel() == 1
        return is_scalar or isinstance(value, (bool, int, float, type(None)))
    return isinstance(value, type(own))


def _check_moments(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Check that the state of each parameter has tensors of its shape, or single numbers."""
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    for number, parameter in zip(numbers, parameters, strict=False):
        for name, value in saved["state"].get(number, {}).items():
            if not isinstance(value, Tensor):
                is_fine = isinstance(value, (bool, int, float, type(None)))
            else:
                is_fine = value.numel() == 1 or _fits(value, parameter)
            if not is_fine:
                raise ValueError(
                    f"its optimizer has, for parameter {number}, a {name!r} that does not fit"
                )


def _fits(value: Tensor, own: Tensor) -> bool:
    return (
        value.shape == own.shape
        and value.is_floating_point() == own.is_floating_point()
        and value.layout is torch.strided
    )
