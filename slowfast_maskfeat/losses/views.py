"""Losses of methods that compare the views of a sample with a teacher's.

Sources: BYOL (arXiv 2006.07733), section 3.1; DINO (arXiv 2104.14294), equation 3; iBOT
(arXiv 2111.07832), section 3; KoLeo (arXiv 1806.03198), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat import distributed
from slowfast_maskfeat.host_copies import copy_to_device
from slowfast_maskfeat.losses.classification import soft_cross_entropy
from slowfast_maskfeat.losses.precision import at_least_float32, full_precision
from slowfast_maskfeat.losses.regression import cosine_distance, unit_length

_SMALLEST_DISTANCE = 1e-8


def view_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each view with the distributions that a teacher gives to other views.

    Args:
        logits: (V, B, K) of all views, divided by the temperature; any floating type.
        target: (Q, B, K) distributions of the first Q views, Q <= V.

    Returns:
        (B,), mean over all pairs of a view with a target of another one, float32 (float64 if
        `logits` are).
    """
    num_views, num_targets = len(logits), len(target)
    assert 1 < num_views >= num_targets, (logits.shape, target.shape)
    log_probability = at_least_float32(logits).log_softmax(dim=-1)
    # The sum over all pairs is that of sums; then the pairs of a view with itself are taken out.
    every = (target.sum(dim=0) * log_probability.sum(dim=0)).sum(dim=-1)
    same = (target * log_probability[:num_targets]).sum(dim=(0, 2))
    return (same - every) / (num_targets * (num_views - 1))


def patch_cross_entropy(logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Cross-entropy of masked patch tokens, as terms of the mean of each clip.

    Args:
        logits: (M, K) of the masked tokens of all clips, divided by the temperature.
        target: (M, K) distributions.
        counts: (C,) int64, masked tokens of each clip, with the sum M; on the CPU.

    Returns:
        (M,), divided by the number of masked tokens of the clip: the sum of a clip's terms is its
        mean, and the sum of all over C the mean over clips, to which one without masked tokens
        contributes 0. float32 (float64 if `logits` are).
    """
    terms = soft_cross_entropy(logits, target)
    shares = counts.to(terms.dtype).clamp(min=1).reciprocal().repeat_interleave(counts)
    return terms * copy_to_device(shares, terms.device)


def prediction_distance(predictions: Tensor, targets: Tensor) -> Tensor:
    """Sum over both views of 1 - cosine of the prediction of a view and the target of the other.

    With more than two views it is twice the mean over all pairs of different views.

    Args:
        predictions: (V, B, P) of each view.
        targets: (V, B, P) of each view.

    Returns:
        (B,), from 0 to 4; float32 (float64 if the predictions are).
    """
    assert predictions.shape == targets.shape, (predictions.shape, targets.shape)
    assert len(predictions) > 1, len(predictions)
    pairs = [
        cosine_distance(prediction, target)
        for v, prediction in enumerate(predictions)
        for q, target in enumerate(targets)
        if v != q
    ]
    return 2 * torch.stack(pairs).mean(dim=0)


def keep_apart(
    loss: Tensor, features: Sequence[Tensor], weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Add KoLeo, which keeps the features of different samples apart, to a loss.

    Args:
        loss: ().
        features: (B, D) for each view or mask of the samples.
        weight: of KoLeo.

    Returns:
        The loss, and as "koleo" what was added before its weight: the mean over the samples, summed
        over the views as in DINOv2's code.
    """
    distances = torch.stack([koleo(one).mean() for one in features]).sum()
    return loss + weight * distances, {"koleo": distances.detach()}


def koleo(features: Tensor) -> Tensor:
    """Compute minus the logarithm of the distance of each vector to the nearest other one.

    Its minimum spreads the vectors, scaled to length 1, evenly over the sphere. The gradient moves
    both vectors of a pair. Values as in DINOv2's code, with neighbors in all processes instead of
    one: collective, so every process must run it, and its backward.

    Args:
        features: (B, D) of this process, the same shape on all; two vectors or more in total.

    Returns:
        (B,), float32 (float64 if `features` are).
    """
    # In 16 bits the products of features near each other would be equal.
    with full_precision(features):
        own = unit_length(at_least_float32(features))
        every = distributed.gather_with_grad(own)
        rows = torch.arange(own.shape[0], device=own.device)
        with torch.no_grad():
            cosines = own @ every.T
            cosines[rows, rows + distributed.rank() * own.shape[0]] = -torch.inf  # not itself
            nearest = cosines.argmax(dim=1)
        distances = F.pairwise_distance(own, every[nearest], eps=_SMALLEST_DISTANCE)
        return -(distances + _SMALLEST_DISTANCE).log()
