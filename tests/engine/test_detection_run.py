"""Whole detection runs: files, resuming, processes, parts of a batch, wrong input."""

from __future__ import annotations

import csv
import shutil
import subprocess

import pytest
from helpers.tiny_detection import DETECTION, folders, make_boxes
from helpers.tiny_run import (
    MODEL,
    PRETRAINING,
    command,
    events,
    losses,
    pairs,
    run,
    run_two_processes,
    wait_for,
)

from slowfast_maskfeat.checkpoints import find_checkpoints, load_checkpoint
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.metrics.ava_map import evaluate, read_labelmap
from slowfast_maskfeat.runs import run as build_run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_boxes(tmp_path_factory.mktemp("boxes"))


def _options(data, *more):
    return {key: value for part in (DETECTION, folders(data), *more) for key, value in part.items()}


def _run_here(data, output, *more):
    """Run in this process, which takes less time to start."""
    build_run.run(load_config([], pairs(MODEL, {"OUTPUT_DIR": output}, _options(data, *more))))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Two epochs of three steps and a test that nothing interrupts."""
    output = tmp_path_factory.mktemp("whole")
    done = run(data, output, _options(data))
    assert done.returncode == 0, done.stderr
    (output / "stderr").write_text(done.stderr)
    return output


def test_a_run_writes_what_it_promises(data, whole):
    assert sorted(losses(whole)) == [1, 2, 3, 4, 5, 6]
    assert len(events(whole, "validation")) == 2
    (test,) = events(whole, "test")
    assert 0 < test["mean_ap"] < 1
    assert test["num_classes"] == len(test["per_class_ap"]) == 10
    assert test["num_frames_expected"] == 9
    assert test["num_expected"] == test["num_decoded"]
    assert test["lost"] == []
    said = (whole / "stderr").read_text()
    assert f"mAP {100 * test['mean_ap']:.2f} over {test['num_classes_counted']} of 10" in said
    rows = [line.split() for line in said.splitlines() if line.startswith(("  move_", "  be_"))]
    assert {row[0] for row in rows} == set(test["per_class_ap"])
    assert {row[0]: int(row[-1]) for row in rows} == test["per_class_boxes"]
    for picture in ("curves.png", "test_average_precision.png"):
        assert (whole / picture).read_bytes().startswith(b"\x89PNG")


def test_the_written_detections_give_the_same_figure(data, whole):
    (test,) = events(whole, "test")
    folder = data / "annotations"
    result = evaluate(
        folder / "motion_val.csv",
        test["scores"],
        read_labelmap(folder / "motion_actions.pbtxt"),
        folder / "motion_val_excluded_timestamps.csv",
    )
    assert result.mean_ap == pytest.approx(test["mean_ap"], abs=1e-3)
    with open(test["scores"], newline="") as file:
        rows = list(csv.reader(file))
    assert {len(row) for row in rows} == {8}
    assert len(rows) == 10 * test["num_boxes"]


def test_a_killed_run_goes_on_as_if_nothing_had_happened(data, whole, tmp_path):
    options = {"TRAIN.CHECKPOINT_STEP_PERIOD": 1, "DATA_LOADER.NUM_WORKERS": 2}
    process = subprocess.Popen(
        command(data, tmp_path, _options(data), options), stderr=subprocess.DEVNULL
    )
    name = "ava_checkpoint_epoch_00000_step_0000002.pyth"
    wait_for((tmp_path / "checkpoints" / name).exists)
    process.kill()
    process.wait()
    done = run(data, tmp_path, _options(data), options)
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stderr
    assert losses(tmp_path) == losses(whole)
    last, expected = (
        load_checkpoint(find_checkpoints(folder / "checkpoints", "ava")[-1])["model_state"]
        for folder in (tmp_path, whole)
    )
    assert all(value.equal(expected[name]) for name, value in last.items())
    assert events(tmp_path, "test")[-1]["per_class_ap"] == events(whole, "test")[-1]["per_class_ap"]


STILL = {"MVIT.DROPPATH_RATE": 0.0}


def _assert_close(first, second):
    for name in ("loss", "gradient_norm"):
        # The first step starts from the same weights; the later ones add up the rounding.
        ours, theirs = ([event[name] for event in events(x, "train")] for x in (first, second))
        assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_two_processes_equal_one(data, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    _run_here(data, one, STILL)
    done = run_two_processes(data, two, _options(data, STILL))
    assert done.returncode == 0, done.stderr
    _assert_close(one, two)
    first, second = (events(folder, "test")[0] for folder in (one, two))
    assert second["num_boxes"] == first["num_boxes"]
    assert second["mean_ap"] == pytest.approx(first["mean_ap"], abs=1e-3)


def test_parts_of_a_batch_equal_the_batch(data, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _run_here(data, whole, STILL, {"TEST.ENABLE": False})
    _run_here(data, parts, STILL, {"TEST.ENABLE": False, "TRAIN.ACCUMULATION_STEPS": 4})
    _assert_close(whole, parts)


def test_a_checkpoint_that_is_evaluated_twice_gives_the_same(data, whole, tmp_path):
    again = shutil.copytree(whole, tmp_path / "again")
    _run_here(data, again, {"TRAIN.ENABLE": False})
    before, after = events(again, "test")
    assert after["per_class_ap"] == before["per_class_ap"]


def test_detection_starts_from_a_pre_training(data, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    videos = sorted((data / "videos").glob("train_*.mp4"))
    (lists / "train.csv").write_text("".join(f"{path}\n" for path in videos))
    short = {"SOLVER.MAX_EPOCH": 1, "DATA.PATH_TO_DATA_DIR": lists}
    build_run.run(
        load_config([], pairs(MODEL, PRETRAINING, {"OUTPUT_DIR": tmp_path / "ssl"}, short))
    )
    start = find_checkpoints(tmp_path / "ssl" / "checkpoints", "ssl")[-1]
    weights = {"TRAIN.CHECKPOINT_FILE_PATH": start, "TRAIN.CHECKPOINT_EPOCH_RESET": True}
    done = run(data, tmp_path / "ava", _options(data, weights, {"SOLVER.MAX_EPOCH": 1}))
    assert done.returncode == 0, done.stderr
    assert "of the backbone" in done.stderr
    assert events(tmp_path / "ava", "start")[0]["started_from"] == str(start)


def _changed(data, folder, name, change):
    """A copy of the annotations with one file changed, as options."""
    copy = folder / "annotations"
    shutil.copytree(data / "annotations", copy)
    path = copy / name
    if change is None:
        path.unlink()
    else:
        path.write_text(change(path.read_text()))
    return {"AVA.ANNOTATION_DIR": copy}


def _with_row(row):
    return lambda text: f"{row}\n{text}"


@pytest.mark.parametrize(
    ("name", "change", "messages"),
    [
        ("motion_train.csv", _with_row("train_0000,1,0.1,0.1,0.2,0.2,11,0"), ["line 1", "11"]),
        ("motion_train.csv", _with_row("train_0000,1,0.3,0.1,0.2,0.2,1,0"), ["line 1", "0.3"]),
        ("motion_train.csv", _with_row("train_0000,1,0.1,0.1,1.2,0.2,1,0"), ["line 1", "1.2"]),
        ("motion_train.csv", _with_row("no_such_video,1,0.1,0.1,0.2,0.2,1,0"), ["no_such_video"]),
        ("motion_train.csv", lambda text: "", ["motion_train.csv"]),
        ("motion_val_excluded_timestamps.csv", None, ["motion_val_excluded_timestamps.csv"]),
        (
            "motion_val.csv",
            lambda text: text.replace("val_", "other_"),
            ["share no key frame", "another split"],
        ),
        ("motion_actions.pbtxt", lambda text: "", ["motion_actions.pbtxt"]),
    ],
    ids=[
        "label outside the map",
        "x2 below x1",
        "box outside 0..1",
        "unknown video",
        "empty list",
        "missing excluded file",
        "another split",
        "empty label map",
    ],
)
def test_wrong_input_is_one_clear_error(data, tmp_path, name, change, messages):
    options = _changed(data, tmp_path, name, change)
    with pytest.raises(ValueError) as caught:
        _run_here(data, tmp_path / "output", options, {"SOLVER.MAX_EPOCH": 1})
    for message in messages:
        assert message in str(caught.value)
    assert not (tmp_path / "output" / "checkpoints").exists()  # it was told before the first epoch


def test_wrong_input_ends_a_program_with_one_line_and_exit_code_2(data, tmp_path):
    options = _changed(data, tmp_path, "motion_train.csv", lambda text: "")
    done = run(data, tmp_path / "output", _options(data, options))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
