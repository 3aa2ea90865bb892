"""Average precision of each class where a video has any number of classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def average_precisions(
    scores: NDArray[np.floating], labels: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Average precision of each class over videos.

    It is the sum of precision times gain in recall over all thresholds, without interpolation:
    equal scores are one threshold. Equal to `average_precision_score` of scikit-learn, which
    PySlowFast uses for Charades (slowfast/utils/meters.py); its mean is over the classes with
    positives, too.

    Args:
        scores: (V, K), higher is better; NaN is lower than every number.
        labels: (V, K), 1 where the class is present, else 0.

    Returns:
        (K,) in [0, 1]; NaN for a class without positives.
    """
    assert scores.shape == labels.shape, f"{scores.shape} against {labels.shape}"
    found = np.full(scores.shape[1], np.nan)
    ranked = np.where(np.isnan(scores), -np.inf, scores)
    for number in np.flatnonzero(labels.any(0)).tolist():
        every = np.sort(ranked[:, number])
        positives = np.sort(ranked[labels[:, number] > 0, number])
        # The precision at the score of each positive, of the videos with at least this score.
        num_hits = len(positives) - np.searchsorted(positives, positives, side="left")
        num_videos = len(every) - np.searchsorted(every, positives, side="left")
        found[number] = (num_hits / num_videos).mean()
    return found


def mean_average_precision(precisions: NDArray[np.float64]) -> float:
    """Mean over the classes with positives, in [0, 1]; NaN if there are none."""
    counted = precisions[~np.isnan(precisions)]
    return float(counted.mean()) if len(counted) else float("nan")
