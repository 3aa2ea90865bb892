"""Checks before the first step of what a run needs later, each an error in one line."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers.ava_data import extract_frames, make_ava
from helpers.tar_shards import write_shard
from helpers.tiny_run import (
    FINETUNING,
    MODEL,
    PRETRAINING,
    copy_lists,
    events,
    make_videos,
    pairs,
    run,
    run_two_processes,
)

from slowfast_maskfeat.builders import DataSource
from slowfast_maskfeat.builders.preflight import check_files, check_training
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.datasets import VideoList

SHORT = {"SOLVER.MAX_EPOCH": 1, "TEST.NUM_ENSEMBLE_VIEWS": 1}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"), num_videos=4, num_classes=3)


@pytest.fixture
def lists(videos, tmp_path) -> Path:
    """Lists that a test may change."""
    return copy_lists(videos, tmp_path / "lists")


def _check(folder: Path, *options: dict) -> list[str]:
    """Check a run of the default OUTPUT_DIR, which is not touched; returns its warnings."""
    names = {"DATA.PATH_TO_DATA_DIR": folder, "OUTPUT_DIR": folder / "out"}
    cfg = load_config([], pairs(MODEL, FINETUNING, names, *options))
    found = check_training(cfg, DataSource(cfg))
    assert not (folder / "out").exists()
    return found


def _error_of_a_run(data: Path, output: Path, *options: dict) -> str:
    """Run; the one line of its error, before the first step."""
    done = run(data, output, FINETUNING, SHORT, *options)
    assert done.returncode == 2
    assert not (output / "checkpoints").exists()
    assert not (output / "stats.jsonl").exists() or not events(output, "train")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    return line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "test.csv does not exist; the run tests after training: add the test split, or set"),
        ("", "test.csv has no rows"),
        ("a.mp4 x\n", "test.csv, line 1: the label must be an integer"),
        ("a.mp4 7\n", "test.csv, line 1: the label must be in [0, 3), got 7"),
        ("a.mp4\n", "test.csv: rows must be `path label`"),
        ("a.mp4 0\nb.mp4 1\n", "test.csv: none of the first 2 exists under"),
    ],
)
def test_the_test_list_is_read_before_training(lists, tmp_path, text, message):
    if text is None:
        (lists / "test.csv").unlink()
    else:
        (lists / "test.csv").write_text(text)
    assert message in _error_of_a_run(lists, tmp_path / "out")


def test_without_a_test_the_test_list_may_be_absent(lists):
    (lists / "test.csv").unlink()
    assert _check(lists, {"TEST.ENABLE": False}) == []
    assert _check(lists, PRETRAINING) == []
    (lists / "val.csv").unlink()
    assert _check(lists, PRETRAINING) == []
    with pytest.raises(ValueError, match=r"val\.csv does not exist"):
        _check(lists, {"TEST.ENABLE": False})


def test_views_of_the_test_are_checked_before_training(lists):
    test = {"TEST.DATASET": "ssv2", "TEST.NUM_ENSEMBLE_VIEWS": 5}
    with pytest.raises(ValueError, match=r"must be 1 for ssv2, .*got 5"):
        _check(lists, test)


def test_a_checkpoint_to_test_must_exist_unless_the_training_writes_it(lists, tmp_path):
    gone = {"TEST.CHECKPOINT_FILE_PATH": tmp_path / "gone.pyth"}
    assert "TEST.CHECKPOINT_FILE_PATH must be a checkpoint, got '" in _error_of_a_run(
        lists, tmp_path / "run", gone
    )
    own = lists / "out" / "checkpoints" / "checkpoint_epoch_00001.pyth"
    assert _check(lists, {"TEST.CHECKPOINT_FILE_PATH": own}) == []


@pytest.mark.parametrize(
    ("name", "reason"), [("folder", "is a folder"), ("file/scores.npz", "must be a folder")]
)
@pytest.mark.parametrize("trains", [True, False])
def test_a_file_of_scores_that_cannot_be_written_is_reported_first(
    videos, tmp_path, name, reason, trains
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    options = {"TEST.SAVE_RESULTS_PATH": tmp_path / name, "TRAIN.ENABLE": trains}
    error = _error_of_a_run(videos, tmp_path / "output", options)
    assert f"TEST.SAVE_RESULTS_PATH must be a file that can be written, got {tmp_path}" in error
    assert reason in error


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("has_prefix", [False, True])
def test_a_list_of_which_no_first_file_exists_is_refused(lists, tmp_path, split, has_prefix):
    prefix = f"{tmp_path / 'videos'}" if has_prefix else ""
    names = [f"{n}.mp4" for n in range(150)]
    folder = tmp_path / ("videos" if has_prefix else "elsewhere")
    paths = names if has_prefix else [str(folder / name) for name in names]
    rows = "".join(f"{path} {n % 3}\n" for n, path in enumerate(paths))
    (lists / f"{split}.csv").write_text(rows)
    message = f"{split}.csv: none of the first 100 exists under {str(folder)!r}, such as "
    message += f"{str(folder / '0.mp4')!r}; is DATA.PATH_PREFIX right?"
    with pytest.raises(ValueError) as caught:
        _check(lists, {"DATA.PATH_PREFIX": prefix})
    assert message in str(caught.value)
    if not has_prefix:  # one file of them is enough
        folder.mkdir()
        (folder / "99.mp4").touch()
        assert _check(lists) == []


@pytest.mark.parametrize("prefix", ["", "videos"])
def test_a_list_in_another_encoding_is_told_unless_its_files_exist(lists, tmp_path, prefix):
    """As Excel saves a CSV: in Latin-1, where it does not save it as UTF-8."""
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "été.mp4").touch()
    row = (prefix and "été.mp4") or str(folder / "été.mp4")
    options = {"DATA.PATH_PREFIX": folder if prefix else ""}
    (lists / "test.csv").write_text(f"{row} 0\n", "latin-1")
    with pytest.raises(ValueError) as caught:
        _check(lists, options)
    assert "test.csv: none of the first 1 exists under" in str(caught.value)
    assert str(caught.value).endswith(
        "t\\udce9.mp4'; the list must be text in UTF-8 or UTF-16, got other bytes: save it as UTF-8"
    )
    # Names without such bytes are in each encoding the same: they are missing for another reason.
    (lists / "test.csv").write_text(f"{row} 0\ngone.mp4 1\n", "latin-1")
    with pytest.raises(ValueError, match=r"gone\.mp4'; is DATA\.PATH_PREFIX right\?$"):
        _check(lists, options)
    (folder / os.fsdecode("été.mp4".encode("latin-1"))).touch()
    (lists / "test.csv").write_text(f"{row} 0\n", "latin-1")
    assert _check(lists, options) == []


def test_a_list_of_folders_is_refused(lists, tmp_path):
    rows = ""
    for number in range(3):
        (tmp_path / f"frames_{number}").mkdir()
        rows += f"{tmp_path / f'frames_{number}'} {number}\n"
    (lists / "train.csv").write_text(rows)
    with pytest.raises(ValueError, match=r"train\.csv: a row must name .*frames_0'; extracted fra"):
        _check(lists)


def test_a_test_alone_looks_for_its_files_too(videos, lists, tmp_path):
    short = {"TEST.ENABLE": False}
    assert run(videos, tmp_path / "out", FINETUNING, SHORT, short).returncode == 0
    (lists / "test.csv").write_text("gone.mp4 0\n")
    done = run(lists, tmp_path / "out", FINETUNING, SHORT, {"TRAIN.ENABLE": False})
    assert done.returncode == 2
    assert "test.csv: none of the first 1 exists under" in done.stderr.splitlines()[-1]


def test_addresses_and_shards_are_not_looked_for(lists, tmp_path):
    (lists / "test.csv").write_text("http://localhost:9/a.mp4 0\ns3://bucket/b.mp4 1\n")
    assert _check(lists) == []
    write_shard(tmp_path / "a.tar", {"0.mp4": b"0", "0.cls": b"1"})
    shards = {f"DATA.{split}_SHARDS": tmp_path / "a.tar" for split in ("TRAIN", "VAL", "TEST")}
    assert _check(lists, shards) == []


def test_a_list_that_makes_its_samples_itself_is_not_looked_for(videos):
    class Made(VideoList):
        def content(self, index: int, *, timeout: float = 0.0) -> bytes | None:
            return b""

    listed = Made(np.frombuffer(b"x", np.uint8), np.array([1]), None, source="made")
    check_files(load_config([]), [listed])
    assert listed.first_files(3) == []
    assert VideoList.first_files(_plain_copy(listed), 3) == ["x"]


def _plain_copy(listed: VideoList) -> VideoList:
    return VideoList(listed._paths, listed._ends, None, source="plain")


def test_several_processes_report_it_once(lists, tmp_path):
    (lists / "test.csv").write_text("gone.mp4 0\n")
    warm = {"SOLVER.WARMUP_EPOCHS": 0.5, "SOLVER.WARMUP_START_LR": 0.01}
    done = run_two_processes(lists, tmp_path / "out", FINETUNING, SHORT, warm)
    assert done.returncode != 0
    assert done.stderr.count("test.csv: none of the first 1 exists under") == 1


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"SOLVER.WARMUP_EPOCHS": 0.5, "SOLVER.BASE_LR": 0.002}, 1),
        ({"SOLVER.WARMUP_EPOCHS": 0.0, "SOLVER.BASE_LR": 0.002}, 0),
        ({"SOLVER.WARMUP_EPOCHS": 0.5, "SOLVER.BASE_LR": 0.01}, 0),
    ],
)
def test_a_warm_up_that_starts_above_the_base_rate_is_one_warning(lists, options, count):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = _check(lists, {"SOLVER.WARMUP_START_LR": 0.01}, options)
    assert len(found) == count
    for warning in found:
        assert "SOLVER.WARMUP_START_LR should be at most SOLVER.BASE_LR 0.002, got 0.01" in warning
        assert "(the published default)" in warning


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"COSINE_END_LR": 1.0}, "SOLVER.COSINE_END_LR must be smaller than SOLVER.BASE_LR"),
        ({"LR_POLICY": "steps_with_relative_lrs"}, "SOLVER.STEPS must list the epoch"),
        ({"OPTIMIZING_METHOD": "sgd", "DAMPENING": 0.1}, "SOLVER.DAMPENING must be 0"),
    ],
)
def test_schedules_are_checked_before_the_first_step(lists, tmp_path, options, message):
    named = {f"SOLVER.{name}": value for name, value in options.items()}
    assert message in _error_of_a_run(lists, tmp_path / "out", named)


def test_fine_tuning_without_a_checkpoint_says_random_weights(videos, tmp_path):
    done = run(videos, tmp_path / "a", FINETUNING, SHORT, {"TEST.ENABLE": False})
    assert done.returncode == 0, done.stderr
    said = "TRAIN.CHECKPOINT_FILE_PATH is empty: training starts from random weights\n"
    assert done.stderr.count(said) == 1
    (made,) = (tmp_path / "a" / "checkpoints").glob("*.pyth")
    start = {"TRAIN.CHECKPOINT_FILE_PATH": made, "TRAIN.CHECKPOINT_EPOCH_RESET": True}
    done = run(videos, tmp_path / "b", FINETUNING, SHORT, start, {"TEST.ENABLE": False})
    assert done.returncode == 0, done.stderr
    assert "random weights" not in done.stderr


def test_a_number_of_classes_that_the_data_contradicts_is_a_warning(lists):
    (lists / "classes.txt").write_text("a\nb\nc\n")
    assert not _check(lists, {"MODEL.NUM_CLASSES": 3}, SHORT)
    (warning,) = _check(lists, {"MODEL.NUM_CLASSES": 2}, SHORT)
    assert warning.startswith("MODEL.NUM_CLASSES 2 has no effect: ")
    assert warning.endswith("classes.txt has 3 classes")


def test_other_classes_in_the_same_folder_are_told_where_to_go(lists, tmp_path):
    output, short = tmp_path / "out", {"TEST.ENABLE": False}
    assert run(lists, output, FINETUNING, SHORT, short).returncode == 0
    (lists / "classes.txt").write_text("a\nb\nc\n")
    done = run(lists, output, FINETUNING, SHORT, short)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "its class 0 is 'class 0', the data set's is 'a'" in line
    assert line.endswith(f"to train other classes, set another OUTPUT_DIR than {output}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"TRAIN.MONITOR_PERIOD": 0}, r"must be '' with TRAIN\.MONITOR_PERIOD 0.*, got 'rank'"),
        ({"TRAIN.MONITOR": []}, r"must be one of the figures of TRAIN\.MONITOR, '', got 'rank'"),
        ({"TRAIN.MONITOR": ["std"]}, r".* of TRAIN\.MONITOR, '', 'std', got 'rank'"),
    ],
)
def test_the_best_checkpoint_needs_a_figure_that_is_measured(lists, options, message):
    best = {"TRAIN.KEEP_BEST": "rank"}
    assert _check(lists, PRETRAINING, best) == _check(lists, PRETRAINING)
    with pytest.raises(ValueError, match=rf"^TRAIN\.KEEP_BEST {message}"):
        _check(lists, PRETRAINING, best, options)


def test_a_training_with_labels_has_no_best_checkpoint(lists):
    with pytest.raises(ValueError, match=r"^TRAIN\.KEEP_BEST must be '' .*TRAIN\.MONITOR .*labels"):
        _check(lists, {"TRAIN.KEEP_BEST": "knn"})


@pytest.fixture(scope="module")
def ava(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("ava") / "ava"
    return folder, make_ava(folder, num_frames=130) | extract_frames(folder, 130)


DETECTION = {"TASK": "ava", "MODEL.DROPOUT_RATE": 0.0}


def _check_ava(folder: Path, *options: dict) -> list[str]:
    cfg = load_config([], pairs(MODEL, DETECTION, {"OUTPUT_DIR": folder / "out"}, *options))
    return check_training(cfg, DataSource(cfg))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("AVA.TRAIN_GT_BOX_LISTS", ["gone.csv"]),
        ("AVA.TRAIN_PREDICT_BOX_LISTS", ["gone.csv"]),
        ("AVA.TEST_PREDICT_BOX_LISTS", ["gone.csv"]),
        ("AVA.GROUNDTRUTH_FILE", "gone.csv"),
        ("AVA.EXCLUSION_FILE", "gone.csv"),
        ("AVA.LABEL_MAP_FILE", "gone.csv"),
        ("AVA.TRAIN_LISTS", ["gone.csv"]),
        ("AVA.TEST_LISTS", ["gone.csv"]),
    ],
)
@pytest.mark.parametrize("is_missing", [True, False])
def test_each_file_of_ava_is_named_with_its_key(ava, tmp_path, key, value, is_missing):
    _, options = ava
    name = tmp_path / "gone.csv"
    if not is_missing:
        name.write_text("not,what,it,should,be\n")
    given = [str(name)] if isinstance(value, list) else name
    with pytest.raises(ValueError) as caught:
        _check_ava(tmp_path, options, {key: given})
    assert str(caught.value).startswith(f"{key}: ")
    assert str(name) in str(caught.value)


def test_frames_that_are_elsewhere_are_named_with_their_key(ava, tmp_path):
    _, options = ava
    assert _check_ava(tmp_path, options) == []
    with pytest.raises(ValueError, match=r"none of the first 3 exists under .*AVA\.FRAME_DIR"):
        _check_ava(tmp_path, options, {"AVA.FRAME_DIR": tmp_path / "elsewhere"})


def test_boxes_with_x_and_y_exchanged_are_told_before_and_with_each_result(ava, tmp_path):
    folder, options = ava
    rows = [row.split(",") for row in (folder / "test_boxes.csv").read_text().split()]
    rows = [[*row[:2], row[3], row[2], row[5], row[4], *row[6:]] for row in rows]
    (tmp_path / "exchanged.csv").write_text("".join(f"{','.join(row)}\n" for row in rows))
    boxes = {"AVA.TEST_PREDICT_BOX_LISTS": [str(tmp_path / "exchanged.csv")]}
    low = {"AVA.DETECTION_SCORE_THRESH": 0.9}
    (warning,) = _check_ava(tmp_path, options, boxes, low)
    assert "exchanged.csv: only 0.0% of the 18 boxes of the ground truth are hit" in warning
    assert "with x and y exchanged in one of them" in warning
    done = run(folder, tmp_path / "out", options, DETECTION, boxes, {"SOLVER.MAX_EPOCH": 1})
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"warning: {warning}\n") == 3  # before, and of validation and test
    assert "in the ground truth, 0.0% of which are hit at IoU 0.5" in done.stderr
    for kind in ("validation", "test"):
        (event,) = events(tmp_path / "out", kind)
        assert (event["num_boxes_hit"], event["hit_share"]) == (0, 0.0)
        assert warning.endswith(event["warning"])
