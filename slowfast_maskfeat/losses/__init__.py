"""Losses: pure functions that give one float32 value per term, not averaged over terms."""

from __future__ import annotations

from slowfast_maskfeat.losses.classification import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    soft_cross_entropy,
)
from slowfast_maskfeat.losses.regression import (
    cosine_distance,
    mean_absolute_error,
    mean_squared_error,
    smooth_absolute_error,
)

__all__ = [
    "binary_cross_entropy_with_logits",
    "cosine_distance",
    "cross_entropy",
    "mean_absolute_error",
    "mean_squared_error",
    "smooth_absolute_error",
    "soft_cross_entropy",
]
