"""Pre-training on targets of a frozen network: features and pseudo-labels, from end to end."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_run import (
    FINETUNING,
    PRETRAINING,
    assert_same_training,
    events,
    kill_and_resume,
    last_checkpoint,
    losses,
    make_videos,
    run,
    run_two_processes,
)

from slowfast_maskfeat.checkpoints import load_checkpoint

ONE_EPOCH = {"SOLVER.MAX_EPOCH": 1}
CLASSIFIER = {**FINETUNING, **ONE_EPOCH, "TASK": "teacher", "TEST.ENABLE": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"), num_videos=8)


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory):
    """A classifier of clips, trained for one epoch."""
    output = tmp_path_factory.mktemp("teacher")
    done = run(data, output, CLASSIFIER)
    assert done.returncode == 0, done.stderr
    return last_checkpoint(output, "teacher")


def _predicts(teacher, **keys):
    options = {f"MASK.{key}": value for key, value in keys.items()}
    teacher = {"MASK.TARGET": "features", "MASK.TEACHER_CHECKPOINT": teacher}
    return {**PRETRAINING, **ONE_EPOCH, **teacher, **options}


@pytest.mark.parametrize(
    "keys",
    [
        {"TEACHER_LAYER": 0, "FEATURE_NORM": "none", "FEATURE_LOSS": "l2"},
        {"TARGET": "pseudo_labels", "PSEUDO_LABELS": "hard"},
    ],
)
def test_the_checkpoint_has_the_hash_of_the_network_not_its_weights(data, teacher, tmp_path, keys):
    done = run(data, tmp_path, _predicts(teacher, **keys))
    assert done.returncode == 0, done.stderr
    (validation,) = events(tmp_path, "validation")
    assert validation["loss"] > 0
    assert validation["baseline"] > 0
    state = load_checkpoint(last_checkpoint(tmp_path))["task_state"]
    assert not any(isinstance(value, torch.Tensor) for value in state.values())
    (facts,) = [value for name, value in state.items() if "extra_state" in name]
    assert len(facts["sha256"]) == 64
    assert facts["source"] == str(teacher)
    assert (tmp_path / "predictions.png").read_bytes().startswith(b"\x89PNG")


def test_a_killed_run_goes_on_as_if_nothing_had_happened(data, teacher, tmp_path):
    whole, output = tmp_path / "whole", tmp_path / "killed"
    assert run(data, whole, _predicts(teacher)).returncode == 0
    kill_and_resume(data, output, _predicts(teacher))
    assert_same_training(output, whole)


def test_a_run_does_not_resume_with_another_network(data, teacher, tmp_path):
    assert run(data, tmp_path, _predicts(teacher)).returncode == 0
    other = tmp_path / "other.pyth"
    content = load_checkpoint(teacher)
    content["model_state"]["norm.bias"] += 0.01
    torch.save(content, other)
    done = run(data, tmp_path, _predicts(other), {"SOLVER.MAX_EPOCH": 2})
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "the frozen network must be that of the checkpoint" in last
    assert str(teacher) in last
    assert str(other) in last


def test_a_moved_network_of_equal_weights_resumes(data, teacher, tmp_path):
    assert run(data, tmp_path, _predicts(teacher)).returncode == 0
    moved = tmp_path / "moved.pyth"
    moved.write_bytes(teacher.read_bytes())
    done = run(data, tmp_path, _predicts(moved), {"SOLVER.MAX_EPOCH": 2})
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_equal_one_and_parts_equal_the_batch(data, teacher, tmp_path):
    still = {**_predicts(teacher), "MVIT.DROPPATH_RATE": 0.0}
    one, two, parts = (tmp_path / name for name in ("one", "two", "parts"))
    assert run(data, one, still).returncode == 0
    done = run_two_processes(data, two, still)
    assert done.returncode == 0, done.stderr
    assert run(data, parts, still, {"TRAIN.ACCUMULATION_STEPS": 2}).returncode == 0
    for output in (two, parts):
        assert losses(output) == pytest.approx(losses(one), rel=1e-5)
        norms, expected = (
            [event["gradient_norm"] for event in events(folder, "train")]
            for folder in (output, one)
        )
        assert norms == pytest.approx(expected, rel=1e-4)
