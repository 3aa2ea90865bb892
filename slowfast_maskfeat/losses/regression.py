"""Losses on real-valued targets."""

from __future__ import annotations

import torch.nn.functional as F
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


def smooth_absolute_error(prediction: Tensor, target: Tensor, *, beta: float = 1.0) -> Tensor:
    """Smooth absolute error of each term, averaged over its channels; as `mean_squared_error`.

    It is d^2 / (2 beta) for differences d below `beta`, else |d| - beta / 2.
    Source: Girshick, "Fast R-CNN" (2015), section 3.1, where beta is 1.
    """
    assert prediction.shape == target.shape, f"{prediction.shape} against {target.shape}"
    values = at_least_float32(prediction)
    terms = F.smooth_l1_loss(values, target.to(values.dtype), reduction="none", beta=beta)
    return terms.mean(dim=-1)


def cosine_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """One minus the cosine of the angle between prediction and target of each term.

    Args:
        prediction: (M, D), any floating type.
        target: (M, D).

    Returns:
        (M,), float32 (float64 if `prediction` is), in [0, 2].
    """
    assert prediction.shape == target.shape, f"{prediction.shape} against {target.shape}"
    values = at_least_float32(prediction)
    return 1 - F.cosine_similarity(values, target.to(values.dtype), dim=-1)


def _difference(prediction: Tensor, target: Tensor) -> Tensor:
    assert prediction.shape == target.shape, f"{prediction.shape} against {target.shape}"
    return at_least_float32(prediction) - target
