"""Scored boxes of a detection test, and the ground truth beside them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.metrics.ava_map import Detections, GroundTruth, key_frame_numbers


class FrameBoxes(NamedTuple):
    """Boxes of a key frame with their classes.

    Attributes:
        row: of the list of key frames.
        video: its name.
        second: time in the annotations.
        truth: (G, 4), x1, y1, x2, y2 as fractions of width and height.
        truth_names: names of the actions of each.
        boxes: (R, 4), detected.
        best: names and scores of the best actions of each, the best first.
    """

    row: int
    video: str
    second: float
    truth: NDArray[np.float64]
    truth_names: list[list[str]]
    boxes: NDArray[np.floating]
    best: list[list[tuple[str, float]]]


class BoxScores(NamedTuple):
    """Detections of a test with their ground truth.

    Attributes:
        rows: (N,) int64, row of the list of each detected box.
        detections: of N boxes.
        truth: of the split.
    """

    rows: NDArray[np.int64]
    detections: Detections
    truth: GroundTruth

    def annotated_rows(self) -> NDArray[np.int64]:
        """Rows of the list that have ground truth and detections, ascending."""
        frames = key_frame_numbers(self.truth, self.detections)
        return np.unique(self.rows[np.isin(frames, self.truth.frame)])

    def frame(self, row: int, num_best: int = 3) -> FrameBoxes:
        """Return all boxes of a key frame.

        Args:
            row: one of `annotated_rows`.
            num_best: number of actions of each detected box.
        """
        found, names = self.detections, self.truth.labelmap
        of_row = np.flatnonzero(self.rows == row)
        number = key_frame_numbers(self.truth, found)[of_row[0]]
        annotated = np.flatnonzero(self.truth.frame == number)
        truth, place = np.unique(self.truth.boxes[annotated], axis=0, return_inverse=True)
        truth_names: list[list[str]] = [[] for _ in truth]
        for box, action in zip(
            place.reshape(-1).tolist(), self.truth.actions[annotated].tolist(), strict=True
        ):
            truth_names[box].append(names[action])
        actions = list(names)
        scores = found.scores[of_row][:, np.array(actions) - 1]
        order = np.argsort(-scores, axis=1, kind="stable")[:, :num_best]
        return FrameBoxes(
            row=row,
            video=found.names[int(found.video[of_row[0]])],
            second=float(found.seconds[of_row[0]]),
            truth=truth,
            truth_names=truth_names,
            boxes=found.boxes[of_row],
            best=[
                [(names[actions[place]], float(of_box[place])) for place in of_best]
                for of_box, of_best in zip(scores, order.tolist(), strict=True)
            ],
        )
