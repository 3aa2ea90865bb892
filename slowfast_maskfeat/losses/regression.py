"""Losses on real-valued targets."""

from __future__ import annotations

import math

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


def smooth_l1(prediction: Tensor, target: Tensor, *, beta: float = 1.0) -> Tensor:
    """Squared error where it is small, else absolute error, averaged over the channels of a term.

    Source: Girshick, "Fast R-CNN" (ICCV 2015), section 2.3; 0.5 d**2 / beta for |d| < beta, else
    |d| - 0.5 beta.

    Args:
        prediction: (M, D), any floating type.
        target: (M, D).
        beta: difference from which the error is absolute, > 0.

    Returns:
        (M,), float32 (float64 if `prediction` is).
    """
    difference = _difference(prediction, target)
    terms = F.smooth_l1_loss(
        difference, difference.new_zeros(()).expand_as(difference), reduction="none", beta=beta
    )
    return terms.mean(dim=-1)


def cosine_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """One minus the cosine of each term: half the squared distance of the two unit vectors.

    Args:
        prediction: (M, D), any floating type, of any length.
        target: (M, D), of any length.

    Returns:
        (M,) in [0, 2], float32 (float64 if `prediction` is).
    """
    assert prediction.shape == target.shape, f"{prediction.shape} against {target.shape}"
    prediction = unit_length(at_least_float32(prediction))
    return 1 - (prediction * unit_length(target.to(prediction.dtype))).sum(dim=-1)


def logit_laplace(mean: Tensor, log_scale: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood of values in (0, 1) whose logits have a Laplace distribution.

    Source: Ramesh et al., "Zero-Shot Text-to-Image Generation" (arXiv:2102.12092). The density of x
    is exp(-|logit(x) - mean| / scale) / (2 scale x (1 - x)); the loss can be below 0.

    Args:
        mean: (M, D) of the logits.
        log_scale: (M, D), logarithm of the scale.
        target: (M, D), in (0, 1): map pixels away from both ends first.

    Returns:
        (M,), averaged over the channels; float32 (float64 if `mean` is).
    """
    mean, log_scale = at_least_float32(mean), at_least_float32(log_scale)
    target = target.to(mean.dtype)
    distance = _difference(mean, target.logit()).abs()
    terms = distance * (-log_scale).exp() + log_scale + (target * (1 - target)).log()
    return terms.mean(dim=-1) + math.log(2)


def unit_length(vectors: Tensor, *, dim: int = -1) -> Tensor:
    """Scale vectors to length 1; those of length 0 stay, and have finite gradients."""
    return F.normalize(vectors, dim=dim, eps=1e-10)


def standardized(vectors: Tensor, *, epsilon: float = 1e-6) -> Tensor:
    """Scale vectors to zero mean and unit variance over the last axis: layer norm without weights.

    Args:
        vectors: (..., D).
        epsilon: added to the variance; MVD has 1e-6 (github.com/ruiwang2021/mvd), V-JEPA 1e-5
            (github.com/facebookresearch/jepa).
    """
    return F.layer_norm(vectors, vectors.shape[-1:], eps=epsilon)


def _difference(prediction: Tensor, target: Tensor) -> Tensor:
    assert prediction.shape == target.shape, f"{prediction.shape} against {target.shape}"
    return at_least_float32(prediction) - target
