"""Losses: one float32 value per term, not averaged over terms; and the mean over terms.

All are pure functions, but for perceptual distances, which are modules that hold a network.
"""

from __future__ import annotations

from slowfast_maskfeat.losses.classification import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    kl_to_uniform,
    soft_cross_entropy,
)
from slowfast_maskfeat.losses.means import mean_or_zero
from slowfast_maskfeat.losses.perceptual import LPIPS, FeatureDistance, layer_outputs
from slowfast_maskfeat.losses.regression import (
    cosine_distance,
    logit_laplace,
    mean_absolute_error,
    mean_squared_error,
    smooth_l1,
    standardized,
    unit_length,
)
from slowfast_maskfeat.losses.views import (
    keep_apart,
    koleo,
    patch_cross_entropy,
    prediction_distance,
    view_cross_entropy,
)

__all__ = [
    "LPIPS",
    "FeatureDistance",
    "binary_cross_entropy_with_logits",
    "cosine_distance",
    "cross_entropy",
    "keep_apart",
    "kl_to_uniform",
    "koleo",
    "layer_outputs",
    "logit_laplace",
    "mean_absolute_error",
    "mean_or_zero",
    "mean_squared_error",
    "patch_cross_entropy",
    "prediction_distance",
    "smooth_l1",
    "soft_cross_entropy",
    "standardized",
    "unit_length",
    "view_cross_entropy",
]
