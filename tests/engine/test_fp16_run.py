"""fp16 on a CPU: steps that the gradient scaler skips are shown as skipped."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_run import PRETRAINING, events, make_videos, run

from slowfast_maskfeat.engine.finite_watch import FiniteWatch
from slowfast_maskfeat.engine.gradient_step import StepResult

FP16 = {"TRAIN.PRECISION": "fp16"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"))


def test_an_epoch_of_skipped_steps_has_no_loss(data, tmp_path):
    # One step an epoch; torch's first scale, 65536, overflows this network's gradients.
    done = run(data, tmp_path, PRETRAINING, FP16, {"TRAIN.BATCH_SIZE": 12})
    assert done.returncode == 0, done.stderr
    assert "nan" not in done.stderr
    assert "epoch 1: no step taken, 1 steps skipped" in done.stderr
    for kind in ("train", "epoch"):
        first = events(tmp_path, kind)[0]
        assert (first["loss"], first["num_skipped"]) == (None, 1)


def test_a_skipped_step_is_not_part_of_the_loss(data, tmp_path):
    done = run(data, tmp_path, PRETRAINING, FP16, {"SOLVER.MAX_EPOCH": 4, "LOG_PERIOD": 3})
    assert done.returncode == 0, done.stderr
    assert "nan" not in done.stderr
    epochs = events(tmp_path, "epoch")
    assert epochs[0]["num_skipped"] > 0
    assert epochs[-1]["num_skipped"] < 3
    assert 0 < epochs[-1]["loss"] < 1


def test_gradients_that_never_become_finite_are_an_error():
    """The scale of the loss adapts within a few steps, not within a hundred."""
    result = StepResult(*(torch.tensor(value) for value in (math.inf, True, False, False)))
    videos = SimpleNamespace(path=lambda row: f"{row}.mp4")
    loader = SimpleNamespace(dataset=SimpleNamespace(videos=videos))
    batch = SimpleNamespace(index=torch.tensor([3]))
    watch = FiniteWatch(3, loader, torch.device("cpu"), has_scaler=True)
    for _ in range(99):
        watch.add(batch, result)
    watch.check()
    watch.add(batch, result)
    with pytest.raises(ValueError, match=r"in 100 steps in a row \(the limit of fp16\).*: 3.mp4;"):
        watch.check()
    both = FiniteWatch(3, loader, torch.device("cpu"), has_scaler=True)
    worse = StepResult(*(torch.tensor(value) for value in (math.inf, False, False, False)))
    for number, outcome in enumerate([result] * 12 + [worse] * 3):
        both.add(SimpleNamespace(index=torch.tensor([number])), outcome)
    with pytest.raises(ValueError, match=r"loss was not finite in 3 .* 12.mp4, 13.mp4, 14.mp4;"):
        both.check()
    without = FiniteWatch(3, loader, torch.device("cpu"), has_scaler=False)
    for _ in range(3):
        without.add(batch, result)
    with pytest.raises(ValueError, match=r"not finite in 3 steps in a row"):
        without.check()


def test_a_loss_that_is_not_finite_is_still_an_error(data, tmp_path):
    options = {"DATA.STD": [1e-38, 1e-38, 1e-38], "TRAIN.MAX_NONFINITE": 2, "LOG_PERIOD": 3}
    done = run(data, tmp_path, PRETRAINING, FP16, options)
    assert done.returncode == 2
    assert "not finite in 3 steps in a row" in done.stderr.splitlines()[-1]
