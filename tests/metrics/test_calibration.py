"""Expected calibration error: by hand, and by a loop."""

from __future__ import annotations

import numpy as np
import pytest

from slowfast_maskfeat.metrics.calibration import calibrate


def test_four_videos_by_hand():
    # Two bins: scores 0.2 and 0.5 of which one is right, 0.9 and 0.7 of which both are.
    found = calibrate(np.array([0.2, 0.9, 0.5, 0.7]), np.array([True, True, False, True]), 2)
    assert found is not None
    low, high = found.bins
    assert (low.low, low.high, low.num_videos) == (0, 0.5, 2)
    assert (low.score, low.accuracy) == pytest.approx((0.35, 0.5))
    assert (high.score, high.accuracy) == pytest.approx((0.8, 1.0))
    assert found.error == pytest.approx((2 * 0.15 + 2 * 0.2) / 4)


@pytest.mark.parametrize("seed", range(3))
def test_a_loop_over_bins_gives_the_same(seed):
    generator = np.random.default_rng(seed)
    scores = generator.random(300)
    scores[:4] = (0.0, 1.0, 1 / 15, 14 / 15)  # on edges: a bin includes its upper one
    is_right = generator.random(300) < scores
    found = calibrate(scores, is_right)
    assert found is not None
    error = 0.0
    for number, part in enumerate(found.bins):
        low, high = number / 15, (number + 1) / 15
        inside = (scores > low) & (scores <= high) | ((number == 0) & (scores == 0))
        assert part.num_videos == inside.sum()
        assert part.score == pytest.approx(scores[inside].mean())
        error += inside.sum() / 300 * abs(scores[inside].mean() - is_right[inside].mean())
    assert len(found.bins) == 15
    assert found.error == pytest.approx(error)


def test_an_empty_bin_has_no_numbers():
    found = calibrate(np.array([0.99]), np.array([False]))
    assert found is not None
    assert found.bins[0][2:] == (0, None, None)
    assert found.error == pytest.approx(0.99)


@pytest.mark.parametrize("scores", [[], [0.5, 1.2], [-0.1], [12.0]])
def test_scores_that_are_no_probabilities_have_no_calibration(scores):
    assert calibrate(np.array(scores), np.ones(len(scores), bool)) is None


def test_a_mean_of_float32_probabilities_that_exceeds_1_counts():
    assert calibrate(np.array([1.0000001]), np.array([True])) is not None
