"""Calibration: whether videos with a score of 0.8 are right in 80 of 100 cases."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 15


class CalibrationBin(NamedTuple):
    """Videos whose top-1 score is in (low, high].

    Attributes:
        low: the first bin includes 0.
        high: end of the bin.
        num_videos: number of them.
        score: their mean top-1 score; None without videos.
        accuracy: share of them that is right; None without videos.
    """

    low: float
    high: float
    num_videos: int
    score: float | None
    accuracy: float | None


class Calibration(NamedTuple):
    """Calibration of top-1 scores.

    Attributes:
        error: expected calibration error, in [0, 1].
        bins: of equal width, from 0 to 1.
    """

    error: float
    bins: tuple[CalibrationBin, ...]


def calibrate(
    scores: NDArray[np.float64], is_right: NDArray[np.bool_], num_bins: int = NUM_BINS
) -> Calibration | None:
    """Compare top-1 scores with accuracy in bins of equal width.

    The error is the mean over videos of |accuracy - mean score| of their bin.
    Source: Guo et al., 2017 (arXiv 1706.04599), section 2; 15 bins as in its experiments.

    Args:
        scores: (V,), of the predicted class.
        is_right: (V,), whether the predicted class is the true one.
        num_bins: number of bins.

    Returns:
        None without videos, or if a score is outside of [0, 1] and thus no probability.
    """
    # Means of float32 probabilities exceed 1 by rounding.
    if not len(scores) or scores.min() < 0 or scores.max() > 1 + 1e-6:
        return None
    edges = np.arange(num_bins + 1) / num_bins
    place = np.clip(np.searchsorted(edges, scores, side="left") - 1, 0, num_bins - 1)
    counts = np.bincount(place, minlength=num_bins)
    score_sums = np.bincount(place, scores, num_bins)
    right_sums = np.bincount(place, is_right, num_bins)
    error = float(np.abs(right_sums - score_sums).sum() / len(scores))
    bins = tuple(
        CalibrationBin(
            float(edges[n]),
            float(edges[n + 1]),
            int(counts[n]),
            float(score_sums[n] / counts[n]) if counts[n] else None,
            float(right_sums[n] / counts[n]) if counts[n] else None,
        )
        for n in range(num_bins)
    )
    return Calibration(error, bins)
