"""Average precision of classes: by hand, by its definition, and with ties and gaps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from slowfast_maskfeat.metrics.multi_label import average_precisions, mean_average_precision


def _by_definition(scores, labels) -> float:
    """Sum over falling thresholds of the gain in recall times the precision."""
    total, before, found = labels.sum(), 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        taken = scores >= threshold
        recall = labels[taken].sum() / total
        found += (recall - before) * labels[taken].mean()
        before = recall
    return found


def _ap(scores, labels) -> float:
    (found,) = average_precisions(np.array(scores)[:, None], np.array(labels)[:, None])
    return float(found)


def test_values_by_hand():
    # Ranked: hit, miss, hit, miss: (1/1 + 2/3) / 2.
    assert _ap([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0]) == pytest.approx(5 / 6)
    assert _ap([0.1, 0.2, 0.3], [0, 1, 1]) == 1
    assert _ap([0.9, 0.8, 0.7], [0, 0, 1]) == pytest.approx(1 / 3)
    # The example in the documentation of scikit-learn's average_precision_score.
    assert _ap([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == pytest.approx(0.8333333333)


def test_equal_scores_are_one_threshold():
    # Both videos at 0.5 are taken at once: precision 1/2 there, whatever their order.
    assert _ap([0.5, 0.5, 0.1], [1, 0, 0]) == _ap([0.5, 0.5, 0.1], [0, 1, 0]) == 0.5
    assert _ap([0.3, 0.3, 0.3, 0.3], [1, 0, 0, 0]) == 0.25  # the share of positives


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("digits", [1, 8])
def test_the_definition(seed, digits):
    generator = np.random.default_rng(seed)
    scores = generator.random((40, 6)).round(digits)  # one digit: many ties
    labels = (generator.random((40, 6)) < [0.02, 0.1, 0.3, 0.5, 0.9, 1.0]).astype(np.int64)
    found = average_precisions(scores, labels)
    for number in range(6):
        if labels[:, number].any():
            expected = _by_definition(scores[:, number], labels[:, number])
            assert found[number] == pytest.approx(expected, rel=1e-12)
        else:
            assert math.isnan(found[number])


def test_classes_without_positives_do_not_count():
    labels = np.array([[1, 0, 0], [0, 0, 1]])
    found = average_precisions(np.array([[0.9, 0.5, 0.9], [0.1, 0.5, 0.1]]), labels)
    assert found[[0, 2]].tolist() == [1.0, 0.5]
    assert mean_average_precision(found) == 0.75
    assert math.isnan(
        mean_average_precision(average_precisions(np.ones((2, 2)), labels[:, 1:2] * [[1, 1]]))
    )


def test_a_score_that_is_no_number_ranks_last():
    assert _ap([math.nan, 0.2, 0.1], [1, 0, 0]) == pytest.approx(1 / 3)
    assert _ap([math.nan, 0.2, 0.1], [0, 1, 0]) == 1
