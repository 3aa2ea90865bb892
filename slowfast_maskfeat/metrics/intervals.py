"""Confidence intervals of accuracies, and the comparison of two on the same videos."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """Bounds of a confidence interval."""

    low: float
    high: float


def wilson(num_right: int, total: int, confidence: float = CONFIDENCE) -> Interval:
    """Compute Wilson's score interval of a share, which stays inside [0, 1].

    Source: Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212.

    Args:
        num_right: of `total` independent trials.
        total: 0 gives [0, 1].
        confidence: probability that the interval covers the share.
    """
    assert 0 <= num_right <= total
    if not total:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = num_right / total
    center = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    scale = 1 + z * z / total
    # The exact bounds at 0 and at 1, without rounding.
    low = 0.0 if num_right == 0 else (center - half) / scale
    high = 1.0 if num_right == total else (center + half) / scale
    return Interval(low, high)


def paired_difference(
    both: int, only_first: int, only_second: int, neither: int, confidence: float = CONFIDENCE
) -> Interval:
    """Compute the interval of the second share minus the first, of the same videos.

    Source: Newcombe, Stat. Med. 17 (1998), 2635-2650, method 10: Wilson's intervals of both shares,
    combined with the correlation of the pairs.

    Args:
        both: videos that both tests have right.
        only_first: videos that only the first has right.
        only_second: videos that only the second has right.
        neither: videos that both have wrong.
        confidence: see `wilson`.

    Returns:
        Bounds in [-1, 1]; [-1, 1] without a video.
    """
    total = both + only_first + only_second + neither
    if not total:
        return Interval(-1.0, 1.0)
    first, second = (both + only_first) / total, (both + only_second) / total
    first_low, first_high = wilson(both + only_first, total, confidence)
    second_low, second_high = wilson(both + only_second, total, confidence)
    phi = _correlation(both, only_first, only_second, neither)
    below = _combined(second - second_low, first_high - first, phi)
    above = _combined(second_high - second, first - first_low, phi)
    difference = (only_second - only_first) / total
    return Interval(max(difference - below, -1.0), min(difference + above, 1.0))


def _correlation(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Correlation of the pairs, with the continuity correction of method 10 if positive."""
    product = math.prod(
        (both + only_first, only_second + neither, both + only_second, only_first + neither)
    )
    if not product:
        return 0.0
    covariance = float(both * neither - only_first * only_second)
    if covariance > 0:
        total = both + only_first + only_second + neither
        covariance = max(covariance - total / 2, 0.0)
    return covariance / math.sqrt(product)


def _combined(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(one * one - 2 * phi * one * other + other * other, 0.0))


def mcnemar(only_first: int, only_second: int) -> float:
    """Compute the exact two-sided p-value that both tests are equally often right.

    Under that hypothesis the videos that one test alone has right are split like throws of a coin.
    Source: McNemar, Psychometrika 12 (1947), 153-157, with the binomial distribution itself.

    Args:
        only_first: videos that only the first has right.
        only_second: videos that only the second has right.

    Returns:
        p in [0, 1]; 1 without such a video.
    """
    fewer, total = min(only_first, only_second), only_first + only_second
    if 2 * fewer == total:
        return 1.0
    log_last = math.lgamma(total + 1) - math.lgamma(fewer + 1) - math.lgamma(total - fewer + 1)
    last = math.exp(log_last - total * math.log(2))  # P(X = fewer)
    down = np.arange(fewer, 0, -1)  # P(X = n - 1) / P(X = n) = n / (total - n + 1)
    return min(1.0, 2 * last * (1 + float(np.cumprod(down / (total - down + 1)).sum())))
