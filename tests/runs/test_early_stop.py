"""Early stopping and the best checkpoint of a training with labels, from end to end."""

from __future__ import annotations

import json
import shutil

import pytest
from helpers.tiny_run import (
    FINETUNING,
    PRETRAINING,
    events,
    losses,
    make_videos,
    run,
    run_two_processes,
)

from slowfast_maskfeat.checkpoints import find_checkpoints, load_checkpoint
from slowfast_maskfeat.runs.load_trained import checkpoint_file

# Weights that hardly move: only the first validation is progress.
STILL = {
    **FINETUNING,
    "SOLVER.BASE_LR": 1e-12,
    "SOLVER.WARMUP_START_LR": 0,
    "SOLVER.MAX_EPOCH": 9,
    "TRAIN.STOP_AFTER": 2,
    "TRAIN.KEEP_BEST": "validation",
    "TEST.NUM_ENSEMBLE_VIEWS": 1,
    "TEST.REPORT": False,
}
STOP = {"epoch", "figure", "best", "best_epoch", "num_without_progress", "checkpoint"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = make_videos(tmp_path_factory.mktemp("data"), num_videos=8)
    rows = (folder / "val.csv").read_text().splitlines(keepends=True)
    (folder / "val.csv").write_text("".join(rows[:4]))
    return folder


@pytest.fixture(scope="module")
def stopped(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("stopped")
    done = run(data, output, STILL)
    assert done.returncode == 0, done.stderr
    return output, done.stderr


def _stops(output):
    return [{name: event[name] for name in STOP} for event in events(output, "early_stop")]


def test_a_training_without_progress_stops_and_is_tested(stopped):
    output, stderr = stopped
    values = [event["top1"] for event in events(output, "validation")]
    assert len(values) == len(events(output, "epoch")) == 3
    assert len(set(values)) == 1
    (stop,) = _stops(output)
    assert stop == {
        "epoch": 3,
        "figure": "top1",
        "best": values[0],
        "best_epoch": 1,
        "num_without_progress": 2,
        "checkpoint": "ssl_eval_checkpoint_epoch_00003.pyth",
    }
    line = "stopped early after epoch 3: no progress of top1 in 2 validations (TRAIN.STOP_AFTER)"
    assert line in stderr
    best = output / "checkpoints" / "ssl_eval_checkpoint_best.pyth"
    assert load_checkpoint(best)["best"] == {"figure": "top1", "value": values[0]}
    assert load_checkpoint(best)["epoch"] == 0
    (test,) = events(output, "test")
    assert test["checkpoint"] == str(best)
    assert (output / "curves.png").exists()


def test_the_folder_of_the_run_means_the_checkpoint_that_it_tests(stopped, tmp_path):
    output, _ = stopped
    folder = output / "checkpoints"
    assert checkpoint_file(output) == str(folder / "ssl_eval_checkpoint_best.pyth")
    shutil.copytree(folder, tmp_path / "checkpoints")
    last = tmp_path / "checkpoints" / "ssl_eval_checkpoint_epoch_00003.pyth"
    (tmp_path / "checkpoints" / "ssl_eval_checkpoint_best.pyth").unlink()
    last.write_bytes(b"damaged")  # which is found where it is read, not here
    assert checkpoint_file(tmp_path) == str(last)


def _cut(output, epoch, *, after_validation):
    """Files of a run that was killed after the checkpoint of an epoch, or after its validation."""
    for path in find_checkpoints(output / "checkpoints", "ssl_eval"):
        if int(path.stem[-5:]) > epoch:
            path.unlink()
    log = output / "stats.jsonl"
    kept = []
    for line in log.read_text().splitlines(keepends=True):
        event = json.loads(line)
        is_validation = event["event"] == "validation" and event["epoch"] == epoch
        if is_validation and not after_validation:
            break
        kept.append(line)
        if is_validation:
            break
    log.write_text("".join(kept))


@pytest.mark.parametrize("after_validation", [False, True])
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_resumed_run_stops_where_an_uninterrupted_one_does(
    data, stopped, tmp_path, epoch, after_validation
):
    whole, _ = stopped
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    _cut(again, epoch, after_validation=after_validation)
    done = run(data, again, STILL, {"TEST.ENABLE": False})
    assert done.returncode == 0, done.stderr
    assert len(events(again, "validation")) == 3
    assert len(events(again, "epoch")) == 3
    assert losses(again) == losses(whole)
    if epoch < 3:
        assert _stops(again) == _stops(whole)
    elif after_validation:
        assert "nothing left to train" in done.stderr


def test_the_best_is_kept_from_the_resume_on(data, stopped, tmp_path):
    """A run without TRAIN.KEEP_BEST has logged the best validation, but kept no checkpoint."""
    shutil.copytree(stopped[0], tmp_path / "run")
    _cut(tmp_path / "run", 1, after_validation=True)
    best = tmp_path / "run" / "checkpoints" / "ssl_eval_checkpoint_best.pyth"
    best.unlink()
    done = run(data, tmp_path / "run", STILL, {"TEST.ENABLE": False})
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(best)["epoch"] == 0
    first, again = events(tmp_path / "run", "validation")[:2]
    assert (first["epoch"], again["epoch"]) == (1, 1)
    assert first["top1"] == again["top1"]


def test_a_longer_training_knows_the_best_validation_before(data, tmp_path):
    """No validation is due any more at the epoch where the shorter one had its last."""
    every = {**PRETRAINING, "TRAIN.EVAL_PERIOD": 3, "TRAIN.KEEP_BEST": "validation"}
    assert run(data, tmp_path, every, {"SOLVER.MAX_EPOCH": 2}).returncode == 0
    best = tmp_path / "checkpoints" / "ssl_checkpoint_best.pyth"
    before = best.read_bytes()
    worse = {"SOLVER.MAX_EPOCH": 4, "SOLVER.BASE_LR": 3.0, "SOLVER.WARMUP_EPOCHS": 0}
    assert run(data, tmp_path, every, worse).returncode == 0
    first, *others = events(tmp_path, "validation")
    assert [event["epoch"] for event in others] == [3, 4]
    assert all(event["loss"] > first["loss"] for event in others)
    assert best.read_bytes() == before


def test_the_last_checkpoint_is_written_whatever_the_period(data, stopped, tmp_path):
    options = {"TRAIN.CHECKPOINT_PERIOD": 5, "TEST.ENABLE": False}
    assert run(data, tmp_path, STILL, options).returncode == 0
    (path,) = find_checkpoints(tmp_path / "checkpoints", "ssl_eval")
    assert path.name == "ssl_eval_checkpoint_epoch_00003.pyth"
    assert load_checkpoint(path)["loop_state"]["validation"]["num_without_progress"] == 2
    done = run(data, tmp_path, STILL, options)
    assert done.returncode == 0, done.stderr
    assert "nothing left to train" in done.stderr
    assert len(events(tmp_path, "validation")) == 3  # none is owed
    more = {"TRAIN.STOP_AFTER": 3}  # more patience goes on
    assert run(data, tmp_path, STILL, options, more).returncode == 0
    assert len(events(tmp_path, "epoch")) == 4


def test_progress_goes_on_to_the_last_epoch(data, tmp_path):
    options = {"TRAIN.STOP_AFTER": 3, "SOLVER.MAX_EPOCH": 3, "TEST.ENABLE": False}
    assert run(data, tmp_path, STILL, options).returncode == 0
    assert len(events(tmp_path, "epoch")) == 3
    assert not events(tmp_path, "early_stop")


def test_without_the_keys_a_checkpoint_has_no_such_state(data, tmp_path):
    off = {"TRAIN.STOP_AFTER": 0, "TRAIN.KEEP_BEST": "", "SOLVER.MAX_EPOCH": 1}
    done = run(data, tmp_path, STILL, off)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "checkpoints").iterdir()
    assert load_checkpoint(path)["loop_state"].keys() == {"lost", "meter", "measured", "batches"}
    assert events(tmp_path, "test")[0]["checkpoint"] == str(path)


def test_a_pre_training_stops_by_its_loss(data, tmp_path):
    still = {key: STILL[key] for key in STILL if not key.startswith(("MODEL", "MVIT", "TASK"))}
    done = run(data, tmp_path, PRETRAINING, still, {"MVIT.DROPPATH_RATE": 0.0})
    assert done.returncode == 0, done.stderr
    (stop,) = _stops(tmp_path)
    assert stop["figure"] == "loss"


@pytest.mark.slow
def test_two_processes_stop_together(data, stopped, tmp_path):
    whole, _ = stopped
    done = run_two_processes(data, tmp_path, STILL, {"TEST.ENABLE": False})
    assert done.returncode == 0, done.stderr
    assert _stops(tmp_path) == _stops(whole)


@pytest.mark.parametrize(
    "given", [{"TRAIN.STOP_AFTER": 0}, {"TRAIN.KEEP_BEST": ""}], ids=lambda given: str(given)
)
def test_the_test_list_does_not_select_the_weights(data, tmp_path, given):
    lists = tmp_path / "lists"
    shutil.copytree(data, lists)
    shutil.copy(data / "test.csv", lists / "val.csv")
    done = run(lists, tmp_path / "out", STILL, given)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"{lists / 'val.csv'} must be another list than the test's" in line
    key = "TRAIN.KEEP_BEST ''" if "TRAIN.STOP_AFTER" in given else "TRAIN.STOP_AFTER 0"
    assert f"or set {key}, or TEST.ENABLE False" in line
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_a_validation_list_is_needed(data, tmp_path):
    lists = tmp_path / "lists"
    shutil.copytree(data, lists)
    (lists / "val.csv").unlink()
    done = run(lists, tmp_path / "out", PRETRAINING, {"TRAIN.STOP_AFTER": 1})
    assert done.returncode == 2
    assert "must have a validation split, on which this training depends" in done.stderr
