"""Intervals and tests of accuracies: published values, brute force, and what they must satisfy."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from slowfast_maskfeat.metrics.intervals import mcnemar, paired_difference, wilson


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        # Newcombe, Stat. Med. 17 (1998), 857-872, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_the_published_interval(right, total, low, high):
    assert wilson(right, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("right", "total"), [(0, 1), (3, 7), (7, 7), (500, 1000)])
def test_the_ends_of_wilson_are_where_the_score_test_changes_its_mind(right, total):
    z = 1.959963984540054
    for end in wilson(right, total):
        if 0 < end < 1:
            deviation = abs(right / total - end) / math.sqrt(end * (1 - end) / total)
            assert deviation == pytest.approx(z, rel=1e-9)


def test_wilson_without_a_trial_is_everything():
    assert wilson(0, 0) == (0, 1)
    assert wilson(5, 5).high == 1
    assert wilson(0, 5).low == 0


def test_the_paired_interval_is_the_published_one():
    # Newcombe, Stat. Med. 17 (1998), 2635-2650, table II, method 10, counts 36, 12, 2, 0.
    assert paired_difference(36, 2, 12, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)


@pytest.mark.parametrize("counts", [(36, 2, 12, 0), (5, 9, 1, 40), (100, 0, 0, 3), (0, 4, 4, 0)])
def test_the_paired_interval_is_mirrored_by_exchanging_the_tests(counts):
    both, first, second, neither = counts
    low, high = paired_difference(both, first, second, neither)
    assert -1 <= low <= (second - first) / sum(counts) <= high <= 1
    assert paired_difference(both, second, first, neither) == pytest.approx((-high, -low))
    assert paired_difference(0, 0, 0, 0) == (-1, 1)


def test_the_paired_interval_covers_the_difference_in_95_of_100_cases():
    shares = [0.6, 0.06, 0.14, 0.2]
    counts = np.random.default_rng(0).multinomial(200, shares, size=2000)
    bounds = np.array([paired_difference(*row) for row in counts.tolist()])
    covered = ((bounds[:, 0] <= 0.08) & (bounds[:, 1] >= 0.08)).mean()
    assert covered == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("first", "second"), [(1, 9), (0, 3), (4, 5), (30, 17), (5, 5), (0, 0)])
def test_mcnemar_is_the_exact_sum(first, second):
    total, fewer = first + second, min(first, second)
    tail = Fraction(sum(math.comb(total, k) for k in range(fewer + 1)), 2**total)
    expected = float(min(Fraction(1), 2 * tail))
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_mcnemar_of_many_videos_is_near_the_normal_distribution():
    # Edwards' continuity correction: (|b - c| - 1)^2 / (b + c).
    expected = math.erfc((400 - 1) / math.sqrt(20_400) / math.sqrt(2))
    assert mcnemar(10_000, 10_400) == pytest.approx(expected, rel=1e-3)
    assert mcnemar(0, 100_000) == 0.0
