"""Classes of a classification test: accuracy of each, and which are confused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from slowfast_maskfeat.metrics.intervals import Interval, wilson
from slowfast_maskfeat.metrics.saved_scores import SavedScores

MAX_ORDERED = 2000
"""Classes above which `confusion_order` keeps the order of their numbers: its time is cubic."""

_NUM_BEST = 5
_REGULARIZATION = 0.1
_SMALLEST_CUT = 3  # nodes that are still cut in two


class Ranking(NamedTuple):
    """The best classes of each video that has a score.

    Attributes:
        rows: (S,) int64, rows of the list.
        labels: (S,) int64, true classes.
        best: (S, k) int64, the best classes, the best first; k is 5, or K if there are fewer.
        scores: (S, k) float64, their scores.
        is_finite: (S,) bool, False for a video with a score that is NaN, which counts as wrong.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    best: NDArray[np.int64]
    scores: NDArray[np.float64]
    is_finite: NDArray[np.bool_]

    def is_right(self, k: int = 1) -> NDArray[np.bool_]:
        """Whether the true class is among the k best: (S,) bool."""
        hits = self.best[:, :k] == self.labels[:, None]
        return np.asarray(hits.any(1) & self.is_finite)

    def of_rows(self, rows: NDArray[np.int64]) -> Ranking:
        """Return the ranking of some rows of the list alone."""
        kept = np.isin(self.rows, rows)
        return Ranking(
            self.rows[kept],
            self.labels[kept],
            self.best[kept],
            self.scores[kept],
            self.is_finite[kept],
        )


class Accuracy(NamedTuple):
    """Share of videos whose class is among the k best.

    Attributes:
        num_right: number of these videos.
        total: number of scored videos.
        interval: Wilson's at 95 %, in [0, 1].
    """

    num_right: int
    total: int
    interval: Interval

    @property
    def percent(self) -> float:
        """In percent; NaN without a scored video."""
        return 100.0 * self.num_right / self.total if self.total else float("nan")


class Confusions(NamedTuple):
    """The nonzero cells of a confusion matrix, in the order of rows and columns.

    Attributes:
        num_classes: K.
        true: (E,) int64, true class.
        predicted: (E,) int64, predicted class.
        counts: (E,) int64, videos.
    """

    num_classes: int
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def support(self) -> NDArray[np.int64]:
        """Videos of each class: (K,) int64."""
        return _sums(self.true, self.counts, self.num_classes)


class ClassRow(NamedTuple):
    """Results of one class.

    Attributes:
        support: scored videos of the class.
        num_right: those that are predicted as it.
        num_predicted: videos of any class that are predicted as it.
        confused_with: class that its wrong videos are most often predicted as, the first of
            several; -1 if none is wrong.
        num_confused: videos that are.
    """

    support: int
    num_right: int
    num_predicted: int
    confused_with: int
    num_confused: int


def rank(saved: SavedScores) -> Ranking:
    """Find the best classes of each scored video, as the accuracy of a test does."""
    rows = np.flatnonzero(saved.num_clips > 0)
    scores = torch.from_numpy(saved.scores[rows])
    top = scores.topk(min(_NUM_BEST, scores.shape[1]), dim=1, sorted=True)
    is_finite = ~scores.isnan().any(1)  # topk treats NaN as the largest number
    return Ranking(
        rows, saved.labels[rows], top.indices.numpy(), top.values.numpy(), is_finite.numpy()
    )


def accuracy(is_right: NDArray[np.bool_]) -> Accuracy:
    """Count the videos that are right, with a confidence interval."""
    num_right, total = int(is_right.sum()), len(is_right)
    return Accuracy(num_right, total, wilson(num_right, total))


def count_confusions(ranking: Ranking, num_classes: int) -> Confusions:
    """Count the videos of each pair of classes; those with a NaN score are left out."""
    kept = ranking.is_finite
    pairs = ranking.labels[kept] * num_classes + ranking.best[kept, 0]
    found, counts = np.unique(pairs, return_counts=True)
    return Confusions(num_classes, found // num_classes, found % num_classes, counts)


def class_rows(ranking: Ranking, confusions: Confusions) -> list[ClassRow]:
    """Summarize each class, in the order of their numbers."""
    number = confusions.num_classes
    support = np.bincount(ranking.labels, minlength=number)
    right = np.bincount(ranking.labels[ranking.is_right()], minlength=number)
    predicted = _sums(confusions.predicted, confusions.counts, number)
    with_class, confused = np.full(number, -1), np.zeros(number, np.int64)
    for true, other, count in _ordered_errors(confusions):
        if with_class[true] < 0:
            with_class[true], confused[true] = other, count
    columns = (support, right, predicted, with_class, confused)
    return [ClassRow(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]


def frequent_confusions(confusions: Confusions, limit: int) -> list[tuple[int, int, int]]:
    """List the most frequent errors: true class, predicted class and videos; at most `limit`."""
    return _ordered_errors(confusions)[:limit]


def _ordered_errors(confusions: Confusions) -> list[tuple[int, int, int]]:
    """All pairs of different classes, the most frequent first, then by their numbers."""
    errors = np.flatnonzero(confusions.true != confusions.predicted)
    errors = errors[np.argsort(-confusions.counts[errors], kind="stable")]
    columns = (confusions.true, confusions.predicted, confusions.counts)
    return list(zip(*(column[errors].tolist() for column in columns), strict=True))


def confusion_order(confusions: Confusions) -> NDArray[np.int64]:
    """Order classes so that those that are confused stand together.

    Classes are the nodes of a graph; an edge is the mean of the shares at which two classes are
    predicted as each other. Each connected part is ordered by the second eigenvector of its
    normalized Laplacian (Shi and Malik, IEEE TPAMI 22 (2000), 888-905), cut where the normalized
    cut is smallest in the middle half of this order, and both sides are ordered likewise. A weak
    edge between all nodes keeps single loose nodes from deciding (Amini et al., 2013, arXiv
    1207.2340). Larger parts come first, classes that are never confused last.

    Returns:
        (K,) int64, a permutation; the order of the numbers for more than `MAX_ORDERED` classes.
    """
    if confusions.num_classes > MAX_ORDERED:
        return np.arange(confusions.num_classes)
    shape = (confusions.num_classes, confusions.num_classes)
    shares = np.zeros(shape)
    support = np.maximum(confusions.support, 1)
    shares[confusions.true, confusions.predicted] = confusions.counts / support[confusions.true]
    np.fill_diagonal(shares, 0)
    edges = (shares + shares.T) / 2
    parts = sorted(_connected_parts(edges), key=lambda part: (-len(part), part[0]))
    with _one_thread():
        return np.concatenate([part[_order_part(edges[np.ix_(part, part)])] for part in parts])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread: hundreds of small decompositions would wait for the others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _connected_parts(edges: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Nodes of each connected part, ascending."""
    is_left = np.ones(len(edges), bool)
    parts = []
    for start in range(len(edges)):
        if not is_left[start]:
            continue
        is_inside = np.zeros(len(edges), bool)
        front = np.array([start])
        while len(front):
            is_inside[front] = True
            front = np.flatnonzero((edges[front] > 0).any(0) & ~is_inside)
        is_left &= ~is_inside
        parts.append(np.flatnonzero(is_inside))
    return parts


def _order_part(edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Order the nodes of a connected part; the end that has the smaller number is the first."""
    order = _spectral_order(edges)
    order = order if order[0] < order[-1] else order[::-1]
    done: list[NDArray[np.int64]] = []
    left = [order]  # a stack of pieces that are not ordered within yet, the next one last
    while left:
        piece = left.pop()
        if len(piece) < _SMALLEST_CUT:
            done.append(piece)
            continue
        inside = edges[np.ix_(piece, piece)]  # in the order of the piece
        finer = _spectral_order(inside)
        # An eigenvector has no sign: the direction of the piece before is kept.
        ranks = np.arange(len(finer)) - (len(finer) - 1) / 2
        finer = finer if (finer * ranks).sum() >= 0 else finer[::-1]
        cut = _smallest_cut(inside[np.ix_(finer, finer)])
        left += [piece[finer[cut:]], piece[finer[:cut]]]
    return np.concatenate(done)


def _spectral_order(edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sort nodes by the second eigenvector of the normalized Laplacian."""
    if len(edges) < _SMALLEST_CUT:
        return np.arange(len(edges))
    edges = edges + _REGULARIZATION * max(edges.sum(), 1e-12) / len(edges) ** 2
    scale = edges.sum(1) ** -0.5
    vectors = torch.linalg.eigh(torch.from_numpy(scale[:, None] * edges * scale)).eigenvectors
    return np.argsort(scale * vectors[:, -2].numpy(), kind="stable")


def _smallest_cut(edges: NDArray[np.float64]) -> int:
    """Place in the middle half at which cutting the order costs the smallest normalized cut."""
    number = len(edges)
    degrees = edges.sum(1).cumsum()
    # Edges between the first n nodes and the others grow by those of node n to later ones.
    later, earlier = np.triu(edges).sum(1), np.tril(edges).sum(1)
    crossing = (later - earlier).cumsum()[:-1]
    volume = np.minimum(degrees[:-1], degrees[-1] - degrees[:-1])
    cost = crossing / np.maximum(volume, 1e-12)
    first = max(number // 4, 1)
    return first + int(cost[first - 1 : number - first].argmin())


def _sums(places: NDArray[np.int64], counts: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Add counts up by their places."""
    sums = np.zeros(number, np.int64)
    np.add.at(sums, places, counts)
    return sums
