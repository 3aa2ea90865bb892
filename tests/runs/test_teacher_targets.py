"""Pre-training on targets of a frozen network: features and pseudo-labels, from end to end."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_run import FINETUNING, PRETRAINING, events, make_videos, run

from slowfast_maskfeat.checkpoints import find_checkpoints, load_checkpoint

ONE_EPOCH = {"SOLVER.MAX_EPOCH": 1}
CLASSIFIER = {**FINETUNING, **ONE_EPOCH, "TASK": "teacher", "TEST.ENABLE": False}


def _last(output, task):
    return find_checkpoints(output / "checkpoints", task)[-1]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"), num_videos=8)


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory):
    """A classifier of clips, trained for one epoch."""
    output = tmp_path_factory.mktemp("teacher")
    done = run(data, output, CLASSIFIER)
    assert done.returncode == 0, done.stderr
    return _last(output, "teacher")


def _features(teacher, **keys):
    options = {f"MASK.{key}": value for key, value in keys.items()}
    return {
        **PRETRAINING,
        **ONE_EPOCH,
        "MASK.TARGET": "features",
        "MASK.TEACHER_CHECKPOINT": teacher,
        **options,
    }


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"FEATURE_NORM": "unit", "FEATURE_LOSS": "cosine"},
        {"TEACHER_LAYER": 0, "FEATURE_NORM": "none", "FEATURE_LOSS": "l2"},
        {"TARGET": "pseudo_labels"},
        {"TARGET": "pseudo_labels", "PSEUDO_LABELS": "hard"},
    ],
)
def test_a_frozen_network_gives_the_targets(data, teacher, tmp_path, keys):
    before = teacher.read_bytes()
    done = run(data, tmp_path, _features(teacher, **keys))
    assert done.returncode == 0, done.stderr
    (validation,) = events(tmp_path, "validation")
    assert 0 < validation["loss"]
    assert 0 < validation["baseline"]
    saved = load_checkpoint(_last(tmp_path, "ssl"))
    own = load_checkpoint(teacher)["model_state"]
    assert not any(isinstance(value, torch.Tensor) for value in saved["task_state"].values()), (
        "the weights of a frozen network are in the checkpoint"
    )
    (state,) = [value for name, value in saved["task_state"].items() if "extra_state" in name]
    assert len(state["sha256"]) == 64
    assert state["source"] == str(teacher)
    assert teacher.read_bytes() == before
    assert own
