"""The share of the ground truth that detected boxes hit, and the warning about a low one."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers.ava_data import box_overlap

from slowfast_maskfeat.metrics.ava_map import evaluate
from slowfast_maskfeat.metrics.box_hits import count_hits, distinct_boxes


def _random_boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    low = generator.random((count, 2)) * 0.5
    return np.concatenate([low, low + 0.1 + generator.random((count, 2)) * 0.4], 1)


@pytest.mark.parametrize("seed", range(4))
def test_hits_are_those_counted_pair_by_pair(seed):
    generator = np.random.default_rng(seed)
    truth, found = _random_boxes(generator, 40), _random_boxes(generator, 90)
    truth_frame, frame = generator.integers(0, 9, 40), generator.integers(0, 12, 90)
    expected = sum(
        any(box_overlap(box, other) >= 0.5 for other in found[frame == number])
        for number, box in zip(truth_frame, truth, strict=True)
    )
    assert 0 < expected < 40
    order = generator.permutation(180) % 90  # each box twice, in any order
    hits = count_hits(frame[order], found[order], truth_frame, truth)
    assert (hits.num_hit, hits.num_boxes) == (expected, 40)
    assert hits.share == expected / 40
    assert len(distinct_boxes(frame[order], found[order])) == 90


def test_without_a_detection_nothing_is_hit():
    none = count_hits(np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(1, np.int64), np.eye(1, 4))
    assert (none.num_hit, none.num_boxes, none.highest) == (0, 1, 0)


def _files(folder: Path, change) -> tuple[Path, Path]:
    """Ground truth of tall boxes, and the same as detections after a change of each."""
    generator = np.random.default_rng(0)
    truth, found = [], []
    for second in range(900, 960):
        x, y = generator.random(2) * (0.8, 0.3)
        box = (x, y, x + 0.12, y + 0.6)
        truth.append(f"v,{second},{','.join(f'{side:.4f}' for side in box)},1")
        found.append(f"v,{second},{','.join(f'{side:.4f}' for side in change(*box))},1,0.9")
    (folder / "truth.csv").write_text("\n".join(truth))
    (folder / "found.csv").write_text("\n".join(found))
    return folder / "truth.csv", folder / "found.csv"


def test_boxes_with_x_and_y_exchanged_are_told(tmp_path):
    truth, found = _files(tmp_path, lambda x1, y1, x2, y2: (y1, x1, y2, x2))
    with pytest.warns(UserWarning, match=r"found\.csv: only \d\.\d% of the 60 boxes") as caught:
        result = evaluate(truth, found, {1: "a"})
    assert len(caught) == 1
    assert result.hit_share == result.num_boxes_hit / 60 < 0.1
    assert "with x and y exchanged in one of them, 100.0% are hit" in result.warning
    event = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert event["hit_share"] == result.hit_share
    assert event["warning"] == result.warning


def test_exchanged_boxes_are_told_even_if_some_happen_to_be_hit():
    generator = np.random.default_rng(0)
    truth, frame = _random_boxes(generator, 400), np.arange(400)
    truth[:80] = (0.2, 0.2, 0.6, 0.6)  # the same either way
    hits = count_hits(frame, truth[:, [1, 0, 3, 2]], frame, truth)
    assert 0.2 < hits.share < 0.5
    assert "with x and y exchanged in one of them, 100.0% are hit" in hits.warning
    few = count_hits(frame[:80], truth[:80], frame, truth)
    assert (few.share, few.warning) == (0.2, "")


def test_boxes_in_pixels_are_told(tmp_path):
    pixels = _files(tmp_path, lambda *box: np.array(box) * (640, 480, 640, 480))
    with pytest.warns(UserWarning, match="coordinates up to .*, as of pixels"):
        assert evaluate(*pixels, {1: "a"}).hit_share == 0


def test_right_boxes_have_a_share_and_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = evaluate(*_files(tmp_path, lambda *box: box), {1: "a"})
    assert (result.num_boxes_hit, result.hit_share, result.warning) == (60, 1.0, "")
    assert "warning" not in result.as_dict()
