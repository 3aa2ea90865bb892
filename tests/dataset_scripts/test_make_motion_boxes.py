"""The demo data with boxes: boxes are around the shapes, actions are what the shapes do."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from helpers.dataset_scripts import run
from helpers.load_tool import load_tool

from slowfast_maskfeat.metrics.ava_map import evaluate, read_labelmap
from slowfast_maskfeat.videos import open_video

boxes = load_tool("datasets/make_motion_boxes.py")
SETTINGS = boxes.BoxSettings(seed=3, seconds=4)


@pytest.fixture(scope="module")
def shapes() -> list:
    """Blobs of many videos."""
    generator = np.random.default_rng(0)
    return [shape for _ in range(60) for shape in boxes.sample_shapes(SETTINGS, generator)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boxes") / "data"
    boxes.make_data_set(folder, SETTINGS, num_train=3, num_val=2)
    return folder


def rows_of(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_a_shape_moves_about_a_key_frame_as_its_action_says(shapes: list) -> None:
    for shape in shapes:
        for number, second in enumerate(SETTINGS.key_seconds):
            around = slice(second * boxes.FPS - 8, second * boxes.FPS + 9)
            steps = np.diff(shape.path[around], axis=0)
            np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-9)
            turns = np.arctan2(steps[0, 1], steps[0, 0]) / (2 * np.pi)
            assert round(turns * 8) % 8 == shape.directions[number]


def test_shapes_never_leave_the_picture_nor_jump(shapes: list) -> None:
    for shape in shapes:
        margin = shape.radius * (1 + boxes.rendering.CONTOUR_BUMPS)
        assert (shape.path >= margin).all()
        assert (shape.path <= np.array([boxes.WIDTH, boxes.HEIGHT]) - margin).all()
        assert np.linalg.norm(np.diff(shape.path, axis=0), axis=1).max() < 12


def test_actions_are_drawn_uniformly_and_independently(shapes: list) -> None:
    """The seed is fixed; each bound is exceeded once in 1,000 times."""
    sizes = np.array([shape.size for shape in shapes])
    assert abs(sizes.sum() - len(sizes) / 2) < 3.3 * np.sqrt(len(sizes)) / 2
    for size in (0, 1):
        directions = np.concatenate([s.directions for s in shapes if s.size == size])
        expected = len(directions) / 8
        counts = np.bincount(directions, minlength=8)
        assert ((counts - expected) ** 2 / expected).sum() < 24.3  # chi-square, 7 degrees


def test_boxes_are_tight_around_what_is_drawn() -> None:
    generator = np.random.default_rng(1)
    shapes = boxes.sample_shapes(SETTINGS, generator)
    _, coverages = boxes.render_video(shapes, boxes.rendering.sample_look(generator))
    for key_frame in boxes.boxes_of(shapes, coverages, SETTINGS, generator):
        for shape, box, coverage in zip(
            shapes, key_frame.boxes, coverages[:, key_frame.second * boxes.FPS], strict=True
        ):
            sides = box * np.tile([boxes.WIDTH, boxes.HEIGHT], 2)
            x1, y1, x2, y2 = np.rint(sides).astype(int)
            inside = np.zeros_like(coverage, dtype=bool)
            inside[y1:y2, x1:x2] = True
            assert not (coverage[~inside] > 0.5).any()
            for edge in (coverage[y1, x1:x2], coverage[y2 - 1, x1:x2]):
                assert (edge > 0.5).any()
            center = shape.path[key_frame.second * boxes.FPS]
            assert x1 < center[0] < x2
            assert y1 < center[1] < y2


def test_files_are_those_of_ava(data: Path) -> None:
    annotations = data / "annotations"
    names = read_labelmap(annotations / "motion_actions.pbtxt")
    assert tuple(names.values()) == boxes.ACTION_NAMES
    of_box = defaultdict(list)
    for video, second, *sides, action, shape in rows_of(annotations / "motion_train.csv"):
        assert int(second) in SETTINGS.key_seconds
        assert all(0 <= float(side) <= 1 for side in sides)
        of_box[video, second, shape].append(int(action))
    assert {video for video, *_ in of_box} == {"train_0000", "train_0001", "train_0002"}
    for movement, size in of_box.values():
        assert 1 <= movement <= 8 < size <= 10
    for row in rows_of(annotations / "motion_val_predicted_boxes.csv"):
        assert len(row) == 8
        assert row[6] == ""
        assert 0.5 <= float(row[7]) <= 1
    with open_video(data / "videos" / "val_0001.mp4") as video:
        assert video.num_frames == 4 * boxes.FPS
        assert video.frames([0]).shape == (1, boxes.HEIGHT, boxes.WIDTH, 3)


def test_what_the_detector_finds_is_near_what_is_there(data: Path, tmp_path: Path) -> None:
    annotations = data / "annotations"
    names = read_labelmap(annotations / "motion_actions.pbtxt")
    rows = rows_of(annotations / "motion_val_predicted_boxes.csv")
    found = tmp_path / "found.csv"
    truth = rows_of(annotations / "motion_val.csv")
    exact = [",".join([*row[:7], "0.9"]) for row in truth]
    found.write_text("\n".join(exact) + "\n")
    assert evaluate(annotations / "motion_val.csv", found, names).mean_ap == 1.0
    num_boxes = len({tuple(row[:6]) for row in truth})
    sure = [row for row in rows if float(row[7]) >= 0.9]
    assert 0.8 * num_boxes < len(sure) < 1.3 * num_boxes


def test_a_data_set_is_the_same_again_and_grows(data: Path, tmp_path: Path) -> None:
    settings = ["--seed", SETTINGS.seed, "--seconds", SETTINGS.seconds, "--processes", "2"]
    counts = ["--num-train", "4", "--num-val", "2"]
    run("make_motion_boxes.py", "--output", tmp_path, *settings, *counts)
    for name in ("train_0002", "val_0000"):
        video = f"videos/{name}.mp4"
        assert (tmp_path / video).read_bytes() == (data / video).read_bytes()
    old, new = (
        (folder / "annotations" / "motion_train.csv").read_text() for folder in (data, tmp_path)
    )
    assert new.startswith(old)
    assert len(new) > len(old)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-train", "0"], "must be >= 1, got 0"),
        (["--seconds", "2"], "seconds must be >= 3"),
        (["--crf", "60"], "crf must be in 0..51, got 60"),
        (["--seed", "-1"], "seed must be >= 0, got -1"),
    ],
)
def test_impossible_settings_are_one_error(tmp_path: Path, words: list[str], message: str) -> None:
    done = run("make_motion_boxes.py", "--output", tmp_path / "x", *words, code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
