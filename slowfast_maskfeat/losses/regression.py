"""Losses on real-valued targets."""

from __future__ import annotations

from torch import Tensor

from slowfast_maskfeat.losses.precision import at_least_float32


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error of each term, averaged over its channels.

    Args:
        prediction: (M, D), any floating type.
        target: (M, D).

    Returns:
        (M,), float32 (float64 if `prediction` is).
    """
    return _difference(prediction, target).square().mean(dim=-1)


def mean_absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute error of each term, averaged over its channels; as `mean_squared_error`."""
    return _difference(prediction, target).abs().mean(dim=-1)


def _difference(prediction: Tensor, target: Tensor) -> Tensor:
    assert prediction.shape == target.shape, f"{prediction.shape} against {target.shape}"
    return at_least_float32(prediction) - target
