"""The mAP of AVA: the golden figures, a scalar form of the rules, and what is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.ava_data import box_overlap

from slowfast_maskfeat.datasets import MissingListError
from slowfast_maskfeat.datasets.box_rows import read_box_rows
from slowfast_maskfeat.metrics.ava_map import (
    Detections,
    check_overlap,
    evaluate,
    evaluate_detections,
    read_ground_truth,
    write_detections,
)

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "ava_metric"
TRUTH, DETECTIONS, EXCLUDED = (
    FOLDER / f"{name}.csv" for name in ("groundtruth", "detections", "excluded")
)
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
LABELMAP = {int(k): name for k, name in json.loads((FOLDER / "labelmap.json").read_text()).items()}


def _golden_detections(order=None) -> Detections:
    with np.load(FOLDER / "predictions.npz") as arrays:
        order = np.arange(len(arrays["preds"])) if order is None else order
        video, seconds = arrays["metadata"][order].T
        return Detections(
            EXPECTED["_info"]["video_idx_to_name"],
            video.astype(np.int64),
            seconds.astype(np.float64),
            arrays["boxes"][order, 1:],
            arrays["preds"][order],
        )


def _assert_golden(result, row: str) -> None:
    expected = EXPECTED[row]
    assert result.mean_ap == pytest.approx(expected["mAP"], abs=1e-9)
    assert list(result.per_class_ap) == list(LABELMAP.values())
    for name, ap in result.per_class_ap.items():
        if expected[name] is None:
            assert math.isnan(ap)
        else:
            assert ap == pytest.approx(expected[name], abs=1e-9)


def test_files_give_the_golden_figures():
    result = evaluate(TRUTH, DETECTIONS, LABELMAP, EXCLUDED)
    _assert_golden(result, "csv_top12_score_order")
    # Counted in the files by other means: 60 frames, of which 3 are excluded; see `_count`.
    assert (result.num_classes_counted, result.num_classes) == (58, 60)
    frames = {"truth": _frames(TRUTH), "detected": _frames(DETECTIONS, with_area=True)}
    assert result.num_frames_expected == len(frames["truth"])
    assert result.num_frames_matched == len(frames["truth"] & frames["detected"])
    assert result.num_frames_unexpected == len(frames["detected"] - frames["truth"])
    assert result.num_boxes == len(_boxes(DETECTIONS))
    assert result.num_boxes_expected == len(_boxes(TRUTH))
    assert sum(result.per_class_boxes.values()) == _num_rows(TRUTH)


def _rows(path: Path, *, with_area: bool = False):
    excluded = {tuple(line.split(",")) for line in EXCLUDED.read_text().split()}
    for line in path.read_text().split():
        fields = line.split(",")
        x1, y1, x2, y2 = map(float, fields[2:6])
        if tuple(fields[:2]) not in excluded and (not with_area or (x2 > x1 and y2 > y1)):
            yield fields


def _frames(path: Path, **options) -> set:
    is_truth = path == TRUTH  # a frame counts whatever its actions are
    rows = _rows(path, **options)
    return {tuple(row[:2]) for row in rows if is_truth or int(row[6]) in LABELMAP}


def _boxes(path: Path) -> set:
    return {tuple(row[:6]) for row in _rows(path, with_area=True) if int(row[6]) in LABELMAP}


def _num_rows(path: Path) -> int:
    return sum(int(row[6]) in LABELMAP for row in _rows(path))


def test_arrays_give_the_golden_figures():
    truth = read_ground_truth(TRUTH, LABELMAP, EXCLUDED)
    _assert_golden(evaluate_detections(truth, _golden_detections()), "arrays_score_order")


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_rows_does_not_matter(seed, tmp_path):
    generator = np.random.default_rng(seed)
    truth = read_ground_truth(TRUTH, LABELMAP, EXCLUDED)
    shuffled = _golden_detections(generator.permutation(265))
    _assert_golden(evaluate_detections(truth, shuffled), "arrays_score_order")
    lines = DETECTIONS.read_text().splitlines(keepends=True)
    mixed = tmp_path / "mixed.csv"
    mixed.write_text("".join(lines[i] for i in generator.permutation(len(lines))))
    _assert_golden(evaluate(TRUTH, mixed, LABELMAP, EXCLUDED), "csv_top12_score_order")


def test_what_is_written_gives_the_same_figures(tmp_path):
    detections = _golden_detections()
    write_detections(tmp_path / "out.csv", detections, LABELMAP)
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert len(lines) == len(detections.video) * len(LABELMAP)
    video, second, *numbers = lines[0].split(",")
    assert (video, second, len(numbers)) == ("vidA-1", "0902", 6)
    result = evaluate(TRUTH, tmp_path / "out.csv", LABELMAP, EXCLUDED)
    expected = EXPECTED["arrays_score_order"]["mAP"]
    assert result.mean_ap == pytest.approx(expected, abs=1e-6)  # six decimals


def test_names_with_commas_and_quotes_are_read_back(tmp_path):
    names = ("Doe, John", 'the "best"', "100%s")
    detections = Detections(
        names=names,
        video=np.arange(3),
        seconds=np.full(3, 902.0),
        boxes=np.full((3, 4), [0.0, 0.0, 1.0, 1.0]),
        scores=np.full((3, 2), 0.5),
    )
    write_detections(tmp_path / "out.csv", detections, {1: "a", 2: "b"})
    assert read_box_rows(tmp_path / "out.csv").names == names


def _scalar_map(truth: list, detections: list, labelmap: dict) -> dict:
    """The rules, row by row: rows of (frame, box, action[, score])."""
    result = {}
    for action, name in labelmap.items():
        wanted = [row for row in truth if row[2] == action]
        found = sorted((row for row in detections if row[2] == action), key=lambda row: -row[3])
        taken, hits = set(), []
        for frame, box, _, _ in found:
            overlaps = [(box_overlap(box, t[1]), i) for i, t in enumerate(wanted) if t[0] == frame]
            best = max(overlaps, key=lambda pair: (pair[0], -pair[1]), default=(0, None))
            is_hit = best[0] >= 0.5 and best[1] not in taken
            taken |= {best[1]} if is_hit else set()
            hits.append(is_hit)
        precisions = [sum(hits[: i + 1]) / (i + 1) for i in range(len(hits))]
        area = sum(max(precisions[i:]) for i, is_hit in enumerate(hits) if is_hit)
        result[name] = area / len(wanted) if wanted else math.nan
    return result


@pytest.mark.parametrize("seed", range(6))
def test_random_boxes_are_judged_by_the_rules(seed, tmp_path):
    generator = np.random.default_rng(seed)
    labelmap = {1: "a", 2: "b", 4: "c", 7: "d"}
    truth, detections = [], []
    for frame in range(12):
        for _ in range(int(generator.integers(0, 4))):
            low = generator.random(2) * 0.4
            box = (*low, *(low + 0.1 + generator.random(2) * 0.4))
            truth += [
                (frame, box, int(action)) for action in generator.choice([1, 2, 3, 4], 2, False)
            ]
            for shift in generator.normal(0, 0.06, (int(generator.integers(0, 4)), 4)):
                moved = tuple(np.clip(np.array(box) + shift, 0, 1))
                if moved[2] > moved[0] and moved[3] > moved[1]:
                    scores = generator.random(4)
                    detections += [
                        (frame, moved, action, scores[action - 1]) for action in (1, 2, 3, 4)
                    ]
    form = "video {},{:04d},{!r},{!r},{!r},{!r},{}".format
    rows = {"truth": truth, "found": detections}
    for name, content in rows.items():
        lines = [
            ",".join(
                [form(row[0] % 3, 900 + row[0], *map(float, row[1]), row[2]), *map(str, row[3:])]
            )
            for row in content
        ]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    result = evaluate(tmp_path / "truth.csv", tmp_path / "found.csv", labelmap)
    expected = _scalar_map(truth, detections, labelmap)
    assert result.per_class_ap == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert result.mean_ap == pytest.approx(np.nanmean(list(expected.values())), abs=1e-12)


TWO = "v,0902,0.1,0.1,0.5,0.5,1\nv,0903,0.1,0.1,0.5,0.5,2\n"


def _evaluate(folder: Path, truth: str, found: str, labelmap=None, excluded=None):
    (folder / "truth.csv").write_text(truth)
    (folder / "found.csv").write_text(found)
    if excluded is not None:
        (folder / "excluded.csv").write_text(excluded)
        excluded = folder / "excluded.csv"
    labelmap = labelmap or {1: "a", 2: "b", 3: "c"}
    return evaluate(folder / "truth.csv", folder / "found.csv", labelmap, excluded)


def test_a_class_without_truth_is_not_counted_and_one_without_detections_is_zero(tmp_path):
    result = _evaluate(tmp_path, TWO, "v,0902,0.1,0.1,0.5,0.5,1,0.9\nv,0902,0,0,1,1,3,0.4\n")
    assert result.per_class_ap == pytest.approx({"a": 1, "b": 0, "c": math.nan}, nan_ok=True)
    assert result.mean_ap == 0.5
    assert result.as_dict()["per_class_ap"] == {"a": 1.0, "b": 0.0, "c": None}
    assert json.dumps(result.as_dict(), allow_nan=False)


def test_a_second_detection_of_a_box_is_wrong_even_beside_another_box(tmp_path):
    truth = "v,902,0,0,1,1,1\nv,902,0,0,1,0.8,1\n"
    found = "v,902,0,0,1,1,1,0.9\nv,902,0,0,1,0.95,1,0.8\n"  # both overlap the first box most
    assert _evaluate(tmp_path, truth, found).per_class_ap["a"] == 0.5


def test_an_overlap_of_exactly_one_half_counts(tmp_path):
    half = "v,902,0,0,1,1,1,0.9\n"
    assert _evaluate(tmp_path, "v,902,0,0,1,0.5,1\n", half).mean_ap == 1
    with pytest.warns(UserWarning, match="0.0% of the 1 boxes of the ground truth are hit"):
        assert _evaluate(tmp_path, "v,902,0,0,1,0.4999,1\n", half).mean_ap == 0


def test_turned_over_detections_and_excluded_frames_are_left_out(tmp_path):
    wrong = "v,903,0.5,0.5,0.1,0.6,2,0.99\nw,904,0,0,1,1,1,1\n"
    found = "v,902,0.1,0.1,0.5,0.5,1,0.9\n" + wrong
    result = _evaluate(tmp_path, TWO + "w,904,0,0,0.1,0.1,1\n", found, excluded="w,0904\n\n")
    assert result.per_class_ap["a"] == 1
    assert (result.num_boxes, result.num_boxes_dropped) == (1, 1)
    assert (result.num_frames_matched, result.num_frames_expected) == (1, 2)


def test_only_every_fourth_second_counts_where_asked(tmp_path):
    (tmp_path / "t.csv").write_text("".join(f"v,{s},0,0,1,1,1\n" for s in range(900, 912)))
    truth = read_ground_truth(tmp_path / "t.csv", {1: "a"}, every=4)
    assert len(truth.frames) == len(truth.frame) == 3


def test_fractions_of_seconds_tell_key_frames_apart(tmp_path):
    found = Detections(
        ["100% v"], np.zeros(2, np.int64), np.array([2.0, 2.25]), np.full((2, 4), [0, 0, 1, 1]),
        np.array([[0.25], [0.5]]),
    )  # fmt: skip
    write_detections(tmp_path / "out.csv", found, {1: "a"})
    assert (tmp_path / "out.csv").read_text().splitlines() == [
        "100% v,0002,0.000000,0.000000,1.000000,1.000000,1,0.250000",
        "100% v,0002.25,0.000000,0.000000,1.000000,1.000000,1,0.500000",
    ]
    text = (tmp_path / "out.csv").read_text()
    result = _evaluate(tmp_path, "100% v,2.25,0,0,1,1,1\n", text, {1: "a"})
    assert result.mean_ap == 1
    assert (result.num_frames_matched, result.num_frames_unexpected) == (1, 1)


@pytest.mark.parametrize(
    ("truth", "found", "message"),
    [
        (
            TWO,
            "w,0902,0,0,1,1,1,0.9\n",
            r"found.csv: .*share no key frame.*truth.csv.*another split",
        ),
        (TWO, "v,1902,0,0,1,1,1,0.9\n", "share no key frame"),
        (TWO, "v,0902,0,0,1,1,1\n", "found.csv: .* score"),
        (TWO, "", "found.csv has no rows"),
        (TWO, "v,0902,0,0,1,1,1,nan\n", r"found.csv, line 1: the score .*\bnan\b"),
        (TWO, "v,0902,0,0,1,x,1,0.9\n", r"found.csv, line 1: the box must be a number, got 'x'"),
        (
            TWO + "v,902,0.5,0,0.4,1,1\n",
            "v,902,0,0,1,1,1,1\n",
            "truth.csv, line 3: the box must be .*got 0.5, 0, 0.4, 1",
        ),
        (
            TWO + "v,902,5,0,9,1,1\n",
            "v,902,0,0,1,1,1,1\n",
            r"truth.csv, line 3: the box must be .*got 5, 0, 9, 1",
        ),
        ("v,0902,0,0,1,1,8\n", "v,902,0,0,1,1,8,1\n", "truth.csv: none of its 1 rows"),
    ],
)
def test_what_can_not_be_judged_is_one_clear_error(truth, found, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        _evaluate(tmp_path, truth, found)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingListError, match=r"gone\.csv does not exist"):
        evaluate(TRUTH, DETECTIONS, LABELMAP, tmp_path / "gone.csv")
    with pytest.raises(MissingListError, match=r"gone\.csv does not exist"):
        evaluate(TRUTH, tmp_path / "gone.csv", LABELMAP)


def test_arrays_that_can_not_be_judged_are_refused():
    truth, found = read_ground_truth(TRUTH, LABELMAP, EXCLUDED), _golden_detections()
    with pytest.raises(ValueError, match=r"action 80, 'class_80'.* 60 classes"):
        evaluate_detections(truth, replace(found, scores=found.scores[:, :60]))
    with pytest.raises(ValueError, match="scores must be finite"):
        evaluate_detections(truth, replace(found, scores=found.scores * np.nan))
    with pytest.raises(ValueError, match="share no key frame"):
        evaluate_detections(truth, replace(found, seconds=found.seconds + 0.5))
    with pytest.raises(ValueError, match=r"\(N, 4\) and \(N, K\), got"):
        replace(found, boxes=found.boxes[:-1])
    with pytest.raises(ValueError, match="my list: the detections share no key frame"):
        check_overlap(truth, ["other"], found.video * 0, found.seconds, "my list")
    check_overlap(truth, found.names, found.video, found.seconds, "my list")


# Prints seconds of processor time and the most memory in GB.
_FULL_SIZE = """
import re, sys, time
from pathlib import Path
import numpy as np
from slowfast_maskfeat.metrics.ava_map import *

folder, num_boxes = sys.argv[1], 180_000
generator = np.random.default_rng(0)
labelmap = {a: f"action {a}" for a in range(1, 81) if a % 4}
names = [f"video-{n:05d}" for n in range(64)]
frame = np.sort(generator.integers(0, 57_000, num_boxes))
video, seconds = frame // 891, 902.0 + frame % 891
low = generator.random((num_boxes, 2)) * 0.5
boxes = np.concatenate([low, low + 0.1 + generator.random((num_boxes, 2)) * 0.4], 1)
actions = np.sort(generator.geometric(0.06, (num_boxes, 2)).clip(1, 80), axis=1)
with open(f"{folder}/truth.csv", "w") as file:
    for i, (v, s) in enumerate(zip(video, seconds)):
        head = f"{names[v]},{int(s):04d}," + ",".join("%.3f" % side for side in boxes[i])
        file.writelines(f"{head},{a},0\\n" for a in set(actions[i].tolist()))
scores = generator.random((num_boxes, 80), np.float32)
found = Detections(names, video, seconds, boxes.clip(0, 1).astype(np.float32), scores)
start = time.process_time()
truth = read_ground_truth(f"{folder}/truth.csv", labelmap)
first = evaluate_detections(truth, found)
between = time.process_time()
write_detections(f"{folder}/found.csv", found, labelmap)
written = time.process_time()
second = evaluate(f"{folder}/truth.csv", f"{folder}/found.csv", labelmap)
end = time.process_time()
assert abs(first.mean_ap - second.mean_ap) < 1e-5, (first.mean_ap, second.mean_ap)
assert first.num_boxes == num_boxes and first.num_classes == 60
# Not `ru_maxrss`, in which Linux counts what the starting process had when it forked.
memory = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e6
print(between - start, written - between, end - written, memory)
"""


@pytest.mark.slow
def test_the_whole_validation_set_takes_under_a_minute_and_4_gb(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _FULL_SIZE, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    arrays, writing, files, memory = map(float, done.stdout.split())
    print(f"arrays {arrays:.1f} s, writing {writing:.1f} s, files {files:.1f} s, {memory:.2f} GB")
    assert arrays < 20  # 2 s on a quiet core
    assert files < 60  # 21 s on a quiet core, of a file of 690 MB
    assert memory < 4
