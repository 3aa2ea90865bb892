"""Average precision of the boxes of one class, over key frames.

Source: VOC (Everingham et al., 2010), section 4.2, with the area under all steps, as in AVA.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IOU_THRESHOLD = 0.5


def average_precision(
    frame: NDArray[np.int64],
    boxes: NDArray[np.float64],
    scores: NDArray[np.floating],
    truth_frame: NDArray[np.int64],
    truth_boxes: NDArray[np.float64],
) -> float:
    """AP at an IoU of 0.5 of the detections of one class.

    Each detection is matched to the box of its key frame that it overlaps most, if by enough. Of
    the detections of one box, that with the highest score is a true positive; the others, and those
    without a match, are false positives.

    Args:
        frame: (N,), key frame of each detection.
        boxes: (N, 4).
        scores: (N,).
        truth_frame: (G,) ascending, key frame of each ground-truth box.
        truth_boxes: (G, 4).

    Returns:
        The AP in [0, 1]; NaN without ground truth.
    """
    if not len(truth_frame):
        return float("nan")
    if not len(frame):
        return 0.0
    target = best_match(frame, boxes, truth_frame, truth_boxes)
    # Equal scores are in the reverse order of the input, as in the published evaluation.
    order = np.argsort(scores, kind="stable")[::-1]
    target = target[order]
    claims = np.flatnonzero(target >= 0)
    _, first = np.unique(target[claims], return_index=True)  # the highest score gets the box
    hits = np.sort(claims[first])  # ranks of the true positives
    precision = np.arange(1, len(hits) + 1) / (hits + 1)
    envelope = np.maximum.accumulate(precision[::-1])
    return float(envelope.sum() / len(truth_frame))


def best_match(
    frame: NDArray[np.int64],
    boxes: NDArray[np.float64],
    truth_frame: NDArray[np.int64],
    truth_boxes: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Find the ground-truth box that each detection overlaps most; the first if several tie.

    Args:
        frame: (N,).
        boxes: (N, 4).
        truth_frame: (G,) ascending.
        truth_boxes: (G, 4).

    Returns:
        (N,) indices of boxes; -1 where the overlap is below the threshold.
    """
    begin = np.searchsorted(truth_frame, frame, side="left")
    counts = np.searchsorted(truth_frame, frame, side="right") - begin
    best = np.full(len(frame), -1, np.int64)
    rows = np.flatnonzero(counts)
    if not len(rows):
        return best
    counts = counts[rows]
    starts = counts.cumsum() - counts  # first pair of each detection
    detection = np.repeat(rows, counts)
    pairs = np.arange(len(detection))
    candidate = pairs - np.repeat(starts - begin[rows], counts)
    overlap = _iou(boxes[detection], truth_boxes[candidate])
    highest = np.maximum.reduceat(overlap, starts)
    is_highest = overlap == np.repeat(highest, counts)
    first = np.minimum.reduceat(np.where(is_highest, pairs, len(pairs)), starts)
    best[rows] = np.where(highest >= IOU_THRESHOLD, candidate[first], -1)
    return best


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of pairs: (P, 4), (P, 4) -> (P,)."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    shared = (high - low).clip(0).prod(1)
    areas = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1)
    return shared / np.maximum(areas - shared, np.finfo(np.float64).tiny)
