"""tools/detect.py: scores are the model's, boxes are drawn at their times, wrong input is told."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.load_tool import Done, run_tool
from helpers.tiny_detection import DETECTION, folders, make_boxes
from helpers.tiny_run import MODEL, events, pairs

from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.runs import run as build_run
from slowfast_maskfeat.videos import open_video


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_boxes(tmp_path_factory.mktemp("boxes"), num_val=1)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A detector that was trained and tested."""
    output = tmp_path_factory.mktemp("trained")
    short = {"OUTPUT_DIR": output, "SOLVER.MAX_EPOCH": 1}
    build_run.run(load_config([], pairs(MODEL, DETECTION, folders(data), short)))
    return output


@pytest.fixture
def detect():
    """Calls the tool in this process: words -> code, output, errors."""

    def call(*words) -> Done:
        return run_tool("tools/detect.py", *words, "--device", "cpu")

    return call


def _rows(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def _words(data, trained, boxes, output):
    (checkpoint,) = (trained / "checkpoints").glob("*.pyth")
    video = data / "videos" / "val_0000.mp4"
    return ["--checkpoint", checkpoint, "--video", video, "--boxes", boxes, "--output", output]


def _tested_boxes(trained) -> dict[tuple[float, ...], list[float]]:
    """Second and box -> scores, as the test of the training wrote them."""
    (test,) = events(trained, "test")
    found: dict[tuple[float, ...], list[float]] = {}
    for _, *place, _, score in _rows(test["scores"]):
        found.setdefault(tuple(map(float, place)), []).append(float(score))
    return found


@pytest.mark.parametrize("form", ["shares", "pixels", "training"])
def test_the_scores_are_those_of_a_test(data, trained, detect, tmp_path, form):
    expected = _tested_boxes(trained)
    factor = np.array([96, 72] * 2) if form == "pixels" else np.ones(4)
    rows = [[second, *(np.array(box) * factor)] for second, *box in expected]
    boxes = tmp_path / "boxes.csv"
    lines = [",".join(f"{value:.6f}" for value in row) for row in reversed(rows)]
    header = "time,x1,y1,x2,y2"
    if form == "training":  # a row for each action of a box, among those of other videos
        header = "video_id,second,x1,y1,x2,y2,action,person_id"
        lines = [f"val_0000,{line},{action},7" for line in lines for action in (3, 5)]
        lines.insert(1, "val_0001,0001,0.1,0.1,0.2,0.2,3,8")
    boxes.write_text(header + "\n" + "\n".join(lines) + "\n")
    code, printed, error = detect(*_words(data, trained, boxes, tmp_path / "out"))
    assert code == 0, error
    assert f"{len(rows)} boxes at 3 timestamps" in printed
    found: dict[tuple[float, ...], list[float]] = {}
    for video, *place, action, score in _rows(tmp_path / "out" / "detections.csv"):
        assert video == "val_0000"
        key = tuple(round(float(value), 3) for value in place)
        found.setdefault(key, []).append(float(score))
        assert len(found[key]) == int(action)
    assert len(found) == len(expected)
    for key, scores in expected.items():
        rounded = tuple(round(value, 3) for value in key)
        np.testing.assert_allclose(found[rounded], scores, atol=2e-3)


@pytest.mark.parametrize(
    "row", ["val_0000,0001,0.1,0.2,0.5,0.6,3,12", "val_0000.mp4,1,0.1,0.2,0.5,0.6,", "1,9,14,48,43"]
)
def test_a_single_row_is_no_header(data, trained, detect, tmp_path, row):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(row)
    code, printed, error = detect(*_words(data, trained, boxes, tmp_path / "out"))
    assert code == 0, error
    assert "1 boxes at 1 timestamps" in printed
    found = _rows(tmp_path / "out" / "detections.csv")
    assert {(video, second) for video, second, *_ in found} == {("val_0000", "0001")}
    sides = np.array([row[2:6] for row in found], float)
    np.testing.assert_allclose(sides, [[0.1, 0.2, 0.5, 0.6]] * len(found), atol=0.01)


def test_the_times_of_the_training_form_begin_where_the_video_does(data, trained, detect, tmp_path):
    boxes = tmp_path / "boxes.csv"
    scores = []
    for row, words in (("2,0.1,0.2,0.5,0.6", ()), ("902,0.1,0.2,0.5,0.6,3", ("900",))):
        boxes.write_text(f"val_0000,{row}" if words else row)
        pairs_ = ["AVA.VIDEO_BEGIN", *words] if words else []
        code, _, error = detect(*_words(data, trained, boxes, tmp_path / "out"), *pairs_)
        assert code == 0, error
        scores.append([row[6:] for row in _rows(tmp_path / "out" / "detections.csv")])
    assert scores[0] == scores[1]
    assert _rows(tmp_path / "out" / "detections.csv")[0][1] == "0902"


def test_boxes_fade_away_from_their_time_and_are_gone_after_half_a_second(
    data, trained, detect, tmp_path
):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("2.0,0.2,0.2,0.8,0.8\n")
    code, _, error = detect(*_words(data, trained, boxes, tmp_path), "--threshold", "0")
    assert code == 0, error
    with open_video(tmp_path / "detections.mp4") as drawn:
        assert drawn.num_frames == 4 * 30
        numbers = [30, 44, 46, 55, 60, 65, 74, 76, 100]
        frames = drawn.frames(numbers).astype(int)
    with open_video(data / "videos" / "val_0000.mp4") as video:
        bare = video.frames(numbers)
    height, width = frames.shape[1:3]
    assert (height, width) == (360, 480)
    plain = torch.nn.functional.interpolate(
        torch.from_numpy(bare).permute(0, 3, 1, 2).float(), (height, width), mode="bicubic"
    )
    difference = np.abs(frames - plain.permute(0, 2, 3, 1).numpy()).max(-1)
    left = difference[:, 100:260, 94:100].mean((1, 2))  # on the left side of the box
    assert (left > 10).tolist() == [False, False, True, True, True, True, True, False, False]
    in_full = left[3:6]
    assert in_full.min() > 25
    assert (left[[2, 6]] < in_full.min() / 2).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have at least one box"),
        ("1,0.1,0.1,0.2\n", "line 1: time and box must be five numbers, got '1,0.1,0.1,0.2'"),
        ("1,0.1,0.1,0.2,0.2\n1,a,0.1,0.2,0.2\n", "line 2: time and box must be five numbers"),
        ("1,0.1,0.1,0.2\n", "a row must be `time,x1,y1,x2,y2` or `video,second,x1,y1,x2,y2,"),
        ("time,y1,x1,y2,x2\n1,0.1,0.1,0.2,0.2\n", "order x1,y1,x2,y2, got the header 'time,y1,x"),
        ("video_id,second,y1,x1,y2,x2,action\na,1,0,0,1,1,3\n", "order x1,y1,x2,y2, got the hea"),
        ("a,1,0.1,0.1,0.2,0.2,3\n", "of the video 'val_0000', got those of 'a'; a row must be"),
        ("val_0000,9,0.1,0.1,0.2,0.2,3\n", "line 1: the key frame at 9 s is outside of the file"),
        ("val_0000,1,0.1,0.1,x,0.2,3\n", "line 1: time and box must be five numbers"),
        ("1,0.3,0.1,0.2,0.2\n", "0 <= x1 < x2 and 0 <= y1 < y2, got 0.3, 0.1, 0.2, 0.2"),
        ("9,0.1,0.1,0.2,0.2\n", "0 to 4 s, got 9 s"),
        ("nan,0,0,1,1\n", "line 1: time and box must be five numbers, got 'nan,0,0,1,1'"),
        ("1,0,0,inf,1\n", "line 1: time and box must be five numbers, got '1,0,0,inf,1'"),
        ("0.5;0;0;1;1\n", "line 1: time and box must be five numbers, got '0.5;0;0;1;1'"),
        ("1,5,5,500,20\n", "within the 96x72 pixels of the video, got 500, 20"),
    ],
)
def test_malformed_boxes_are_one_line(data, trained, detect, tmp_path, text, message):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(text)
    code, _, error = detect(*_words(data, trained, boxes, tmp_path / "out"))
    assert code == 2
    (line,) = error.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_missing_files_are_one_line(data, trained, detect, tmp_path):
    words = _words(data, trained, tmp_path / "no.csv", tmp_path)
    code, _, error = detect(*words)
    assert code == 2
    assert "no.csv" in error.splitlines()[-1]
    words[3] = tmp_path / "no.mp4"
    code, _, error = detect(*words)
    assert code == 2
    assert "no.mp4: no such file" in error.splitlines()[-1]


def test_a_classifier_is_refused(data, trained, detect, tmp_path):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("1,0.1,0.1,0.2,0.2\n")
    words = _words(data, trained, boxes, tmp_path)
    changes = ["DETECTION.ENABLE", "False", "MODEL.LOSS_FUNC", "cross_entropy"]
    code, _, error = detect(*words, *changes, "TRAIN.DATASET", "kinetics")
    assert code == 2
    assert "--checkpoint must be a detector" in error


def test_the_help_says_what_the_drawn_video_lacks():
    help_text = " ".join(run_tool("tools/detect.py", "--help").stdout.split())
    assert "mean frame rate" in help_text
    assert "no audio" in help_text
