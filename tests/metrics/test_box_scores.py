"""Boxes of a key frame, with the ground truth of the same video and second."""

from __future__ import annotations

import numpy as np

from slowfast_maskfeat.metrics.ava_map import Detections, read_ground_truth
from slowfast_maskfeat.metrics.box_scores import BoxScores

TRUTH = """\
a,902,0.1,0.1,0.5,0.5,1
a,902,0.1,0.1,0.5,0.5,3
a,902,0.6,0.1,0.9,0.5,2
b,902,0.2,0.2,0.4,0.4,1
b,903,0.3,0.3,0.4,0.4,1
"""


def _scores(tmp_path) -> BoxScores:
    (tmp_path / "truth.csv").write_text(TRUTH)
    (tmp_path / "excluded.csv").write_text("b,0903\n")
    names = {1: "sit", 2: "stand", 3: "walk"}
    truth = read_ground_truth(tmp_path / "truth.csv", names, tmp_path / "excluded.csv")
    detections = Detections(
        names=["c", "b", "a"],  # in another order than in the ground truth
        video=np.array([2, 2, 1, 1, 0]),
        seconds=np.array([902.0, 902.0, 902.0, 903.0, 902.0]),
        boxes=np.array([[0.1, 0.1, 0.5, 0.5], *[[n / 10, 0.2, 1, 1] for n in range(4)]]),
        scores=np.array([[0.2, 0.9, 0.5, 1], [0.1, 0.1, 0.3, 1], *[[0.5, 0.5, 0.5, 1]] * 3]),
    )
    return BoxScores(np.array([7, 7, 8, 9, 4]), detections, truth)


def test_rows_with_ground_truth_that_counts(tmp_path):
    # Row 9 is excluded, and the video of row 4 has no ground truth.
    assert _scores(tmp_path).annotated_rows().tolist() == [7, 8]


def test_a_key_frame_has_its_boxes_and_the_best_actions(tmp_path):
    frame = _scores(tmp_path).frame(7, num_best=2)
    assert (frame.row, frame.video, frame.second) == (7, "a", 902.0)
    assert frame.truth.tolist() == [[0.1, 0.1, 0.5, 0.5], [0.6, 0.1, 0.9, 0.5]]
    assert frame.truth_names == [["sit", "walk"], ["stand"]]
    assert frame.boxes.tolist() == [[0.1, 0.1, 0.5, 0.5], [0.0, 0.2, 1.0, 1.0]]
    # The fourth score is of an action that the label map lacks.
    assert frame.best == [[("stand", 0.9), ("walk", 0.5)], [("walk", 0.3), ("sit", 0.1)]]
    assert _scores(tmp_path).frame(8).truth_names == [["sit"]]
