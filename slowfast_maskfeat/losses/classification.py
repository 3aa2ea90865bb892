"""Losses on class scores.

All take logits: the logarithm of a sigmoid or softmax in half precision is inaccurate.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat.losses.precision import at_least_float32


def cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with one class index per term.

    Args:
        logits: (B, K), any floating type.
        labels: (B,) class indices, int64.
        label_smoothing: share of the probability that is spread evenly over all classes.

    Returns:
        (B,), float32 (float64 if `logits` are).
    """
    return F.cross_entropy(
        at_least_float32(logits), labels, reduction="none", label_smoothing=label_smoothing
    )


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with a distribution over the classes per term, as from mixup and cutmix.

    The target is used as given: rows that do not sum to one are not normalized.

    Args:
        logits: (B, K), any floating type.
        target: (B, K) weights of the classes.

    Returns:
        (B,), float32 (float64 if `logits` are).
    """
    assert logits.shape == target.shape, f"{logits.shape} against {target.shape}"
    return -(target * at_least_float32(logits).log_softmax(dim=-1)).sum(dim=-1)


def binary_cross_entropy_with_logits(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of each class, averaged over the classes of a term.

    Args:
        logits: (R, K), any floating type.
        target: (R, K), 1 where the class is present, else 0.

    Returns:
        (R,), float32 (float64 if `logits` are).
    """
    logits = at_least_float32(logits)
    terms = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    return terms.mean(dim=-1)


def kl_to_uniform(logits: Tensor, *, epsilon: float = 0.0) -> Tensor:
    """Kullback-Leibler divergence of a distribution over K classes from the uniform one.

    Args:
        logits: (..., K), any floating type.
        epsilon: added to each probability, as in the published code of some dVAEs.

    Returns:
        (...,), from 0 to log(K): log(K) minus the entropy; float32 (float64 if `logits` are).
    """
    log_probability = at_least_float32(logits).log_softmax(dim=-1)
    if epsilon:
        log_probability = (log_probability.exp() + epsilon).log()
    log_ratio = log_probability + math.log(logits.shape[-1])
    return (log_probability.exp() * log_ratio).sum(dim=-1)
