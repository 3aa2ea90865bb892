"""Losses on real-valued targets."""

from __future__ import annotations

from torch import Tensor

from slowfast_maskfeat.losses.precision import at_least_float32


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over the channels of the squared error of every term.

    Args:
        prediction: (M, D), any floating type.
        target: (M, D).

    Returns:
        (M,), float32 (float64 if `prediction` is).
    """
    return _difference(prediction, target).square().mean(dim=-1)


def mean_absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over the channels of the absolute error of every term; all as `mean_squared_error`."""
    return _difference(prediction, target).abs().mean(dim=-1)


def _difference(prediction: Tensor, target: Tensor) -> Tensor:
    assert prediction.shape == target.shape, f"{prediction.shape} against {target.shape}"
    return at_least_float32(prediction) - target
