"""Boxes of the ground truth that a detected box hits, whatever its class and score.

A share near 0 means that the two files write boxes differently, not that a model is bad: no model
changes the boxes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.metrics.average_precision import IOU_THRESHOLD, best_match

_LOW_SHARE = 0.1
_HIGH_SHARE = 0.5  # where boxes are not suspected to have x and y exchanged
_LARGEST_FRACTION = 1.5  # of a box that extends beyond the frame; pixels are far above


class BoxHits(NamedTuple):
    """Number of ground-truth boxes that are hit.

    Attributes:
        num_hit: distinct boxes that a detected box of their key frame overlaps by an IoU of 0.5.
        num_boxes: distinct boxes.
        num_hit_exchanged: the same as `num_hit` if the detected boxes are read as y1, x1, y2, x2;
            0 if at least half of the boxes are hit.
        highest: largest coordinate of the detected boxes.
    """

    num_hit: int
    num_boxes: int
    num_hit_exchanged: int
    highest: float

    @property
    def share(self) -> float:
        """Share of the boxes that are hit, in [0, 1]."""
        return self.num_hit / self.num_boxes

    @property
    def warning(self) -> str:
        """Sentence about a share below a tenth, or far below the exchanged one; else empty."""
        exchanged = self.num_hit_exchanged / self.num_boxes
        is_exchanged = exchanged >= max(_LOW_SHARE, 2 * self.share)
        if self.share >= _LOW_SHARE and not is_exchanged:
            return ""
        text = (
            f"only {self.share:.1%} of the {self.num_boxes} boxes of the ground truth are hit by a "
            f"detected box at IoU {IOU_THRESHOLD}; boxes of both files must be x1, y1, x2, y2, as "
            "fractions of width and height"
        )
        if is_exchanged:
            return f"{text}: with x and y exchanged in one of them, {exchanged:.1%} are hit"
        if self.highest > _LARGEST_FRACTION:
            return f"{text}: detected boxes have coordinates up to {self.highest:g}, as of pixels"
        return text


def count_hits(
    frame: NDArray[np.int64],
    boxes: NDArray[np.floating],
    truth_frame: NDArray[np.int64],
    truth_boxes: NDArray[np.float64],
) -> BoxHits:
    """Count the boxes of the ground truth that are hit.

    Args:
        frame: (N,), key frame of each detected box; a box may be repeated, as all below.
        boxes: (N, 4).
        truth_frame: (G,), key frame of each ground-truth box; at least one.
        truth_boxes: (G, 4).
    """
    is_near = np.isin(frame, truth_frame)
    frame, sides = frame[is_near], boxes[is_near].astype(np.float64)
    kept, counted = distinct_boxes(frame, sides), distinct_boxes(truth_frame, truth_boxes)
    kept = kept[np.argsort(frame[kept], kind="stable")]
    frame, sides = frame[kept], sides[kept]
    truth_frame, truth_boxes = truth_frame[counted], truth_boxes[counted]

    def num_hit(detected: NDArray[np.float64]) -> int:
        return int((best_match(truth_frame, truth_boxes, frame, detected) >= 0).sum())

    found, exchanged = num_hit(sides), 0
    if found < _HIGH_SHARE * len(counted):
        exchanged = num_hit(sides[:, [1, 0, 3, 2]])
    return BoxHits(found, len(counted), exchanged, float(sides.max(initial=0.0)))


def distinct_boxes(frame: NDArray[np.int64], boxes: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return an index of each distinct box, compared by a hash."""
    sides = np.ascontiguousarray(boxes, np.float64).view(np.uint64)
    value = frame.astype(np.uint64)
    for column in sides.T:
        value = (value ^ column) * np.uint64(0x9E3779B97F4A7C15)
        value ^= value >> np.uint64(29)
    return np.unique(value, return_index=True)[1]
