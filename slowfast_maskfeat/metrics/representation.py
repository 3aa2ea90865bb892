"""Figures of a set of features that show whether they have collapsed, without labels."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def effective_rank(features: Tensor) -> float:
    """Compute the effective rank: the exponential of the entropy of the normalized singular values.

    It is 1 if all features are multiples of one, and the number of columns if they are orthogonal
    and of equal norm. The features are not centered, so that a collapse to one point has rank 1.
    Source: Roy and Vetterli, "The effective rank" (EUSIPCO 2007); for features of pre-training:
    RankMe, arXiv 2210.02885, section 3.

    Args:
        features: (N, D), one per clip.

    Returns:
        In [1, min(N, D)]; NaN if a feature is not finite or all are zero.
    """
    if not _are_finite(features):
        return float("nan")
    values = torch.linalg.svdvals(features.double())
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())


@torch.no_grad()
def mean_deviation(features: Tensor) -> float:
    """Compute the standard deviation of each channel over the clips, averaged over channels.

    It is 0 if all features are equal.

    Args:
        features: (N, D), one per clip.

    Returns:
        NaN if a feature is not finite.
    """
    if not _are_finite(features):
        return float("nan")
    return float(features.double().std(dim=0, correction=0).mean())


def _are_finite(features: Tensor) -> bool:
    return len(features) > 0 and bool(torch.isfinite(features).all())
