"""Accuracy and confusions of classes: by hand, by loops, and in an order that groups them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slowfast_maskfeat.metrics import class_report
from slowfast_maskfeat.metrics.accuracy import topk_correct
from slowfast_maskfeat.metrics.class_report import (
    accuracy,
    class_rows,
    confusion_order,
    count_confusions,
    frequent_confusions,
    rank,
)
from slowfast_maskfeat.metrics.saved_scores import SavedScores


def saved(labels, predicted, num_classes: int) -> SavedScores:
    """Scores whose best class is the predicted one; a label of -1 has no clip."""
    labels = np.array(labels)
    scores = np.full((len(labels), num_classes), 0.1 / num_classes)
    scores[np.arange(len(labels)), predicted] = 0.9
    return SavedScores(scores, labels, np.where(labels < 0, 0, 2))


def test_six_videos_by_hand():
    ranking = rank(saved([0, 0, 0, 1, 2, -1], [0, 1, 1, 1, 0, 0], 3))
    confusions = count_confusions(ranking, 3)
    assert ranking.rows.tolist() == [0, 1, 2, 3, 4]
    cells = list(zip(*(part.tolist() for part in confusions[1:]), strict=True))
    assert cells == [(0, 0, 1), (0, 1, 2), (1, 1, 1), (2, 0, 1)]
    assert confusions.support.tolist() == [3, 1, 1]
    rows = class_rows(ranking, confusions)
    assert [tuple(row) for row in rows] == [(3, 1, 2, 1, 2), (1, 1, 3, -1, 0), (1, 0, 0, 0, 1)]
    assert frequent_confusions(confusions, 10) == [(0, 1, 2), (2, 0, 1)]
    assert frequent_confusions(confusions, 1) == [(0, 1, 2)]
    found = accuracy(ranking.is_right())
    assert (found.num_right, found.total, found.percent) == (2, 5, 40.0)


@pytest.mark.parametrize("num_classes", [2, 5, 12])
def test_counts_are_those_of_the_accuracy_of_a_test(num_classes):
    generator = np.random.default_rng(num_classes)
    # Few values, so that many scores are equal; some are NaN.
    scores = generator.integers(0, 4, (200, num_classes)).astype(float)
    scores[generator.random(scores.shape) < 0.01] = float("nan")
    labels = generator.integers(0, num_classes, 200)
    ranking = rank(SavedScores(scores, labels, np.ones(200, np.int64)))
    expected = topk_correct(torch.from_numpy(scores), torch.from_numpy(labels), (1, 5)).tolist()
    assert [int(ranking.is_right(k).sum()) for k in (1, 5)] == expected
    confusions = count_confusions(ranking, num_classes)
    matrix = np.zeros((num_classes, num_classes), int)
    for label, row in zip(labels, scores, strict=True):
        if not np.isnan(row).any():
            matrix[label, torch.from_numpy(row).topk(min(5, num_classes)).indices[0]] += 1
    dense = np.zeros_like(matrix)
    dense[confusions.true, confusions.predicted] = confusions.counts
    assert (dense == matrix).all()
    rows = class_rows(ranking, confusions)
    assert [row.num_right for row in rows] == np.diag(matrix).tolist()
    assert [row.num_predicted for row in rows] == matrix.sum(0).tolist()
    assert [row.support for row in rows] == np.bincount(labels, minlength=num_classes).tolist()
    np.fill_diagonal(matrix, 0)
    for row, errors in zip(rows, matrix, strict=True):
        assert row.num_confused == errors.max()
        assert row.confused_with == (errors.argmax() if errors.any() else -1)


def grouped(num_groups: int, size: int, noise: float, seed: int = 0):
    """Classes in groups within which they are confused; the groups' numbers are shuffled."""
    generator = np.random.default_rng(seed)
    number = num_groups * size
    group = generator.permutation(np.arange(number) % num_groups)
    labels = generator.integers(0, number, 60 * number)
    predicted = labels.copy()
    for video in np.flatnonzero(generator.random(len(labels)) < 0.4):
        inside = np.flatnonzero(group == group[labels[video]])
        anywhere = generator.random() < noise
        predicted[video] = generator.integers(number) if anywhere else generator.choice(inside)
    return group, count_confusions(rank(saved(labels, predicted, number)), number)


@pytest.mark.parametrize(("num_groups", "size", "noise"), [(4, 3, 0), (8, 5, 0), (20, 5, 0.1)])
def test_confused_classes_stand_together(num_groups, size, noise):
    group, confusions = grouped(num_groups, size, noise)
    order = confusion_order(confusions)
    assert sorted(order.tolist()) == list(range(num_groups * size))
    changes = (np.diff(group[order]) != 0).sum()
    assert num_groups - 1 <= changes <= (num_groups - 1) * (1 + noise)
    assert (np.diff(group) != 0).sum() > 2 * num_groups
    assert (confusion_order(confusions) == order).all()


def test_classes_that_are_never_confused_come_last_in_their_order():
    confusions = count_confusions(rank(saved([0, 1, 2, 3, 4, 4], [0, 4, 2, 3, 4, 1], 5)), 5)
    assert confusion_order(confusions).tolist() == [1, 4, 0, 2, 3]


def test_a_path_of_confusions_is_followed():
    chain = [3, 0, 4, 1, 5, 2]  # each is confused with the next
    labels, predicted = chain[:-1], chain[1:]
    order = confusion_order(count_confusions(rank(saved(labels, predicted, 6)), 6)).tolist()
    assert order in (chain, chain[::-1])
    assert order[0] < order[-1]


def test_more_classes_than_can_be_ordered_keep_their_numbers(monkeypatch):
    _, confusions = grouped(4, 3, 0)
    monkeypatch.setattr(class_report, "MAX_ORDERED", 11)
    assert confusion_order(confusions).tolist() == list(range(12))


def test_the_number_of_threads_is_as_before():
    before = torch.get_num_threads()
    confusion_order(grouped(4, 3, 0)[1])
    assert torch.get_num_threads() == before
