"""TFLOP/s and their share of the rate of matrix products."""

from __future__ import annotations

import time

import pytest
import torch
from helpers.tiny_run import FINETUNING, PRETRAINING, events, make_videos, run

from slowfast_maskfeat.engine.utilization import Utilization, matrix_rate


def test_figures_of_two_processes():
    """A clip costs 10 G multiply-adds forward: 2 operations each, and backward twice as many."""
    of_device = Utilization(multiply_adds=10**10, matrix_rate=4e12, num_processes=2)
    figures = of_device.figures(clips_per_second=50.0)
    assert figures == {"tflops": pytest.approx(3.0), "mfu": pytest.approx(3.0 / 8.0)}


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_the_matrix_rate_draws_nothing_and_ends_soon(precision):
    before = torch.get_rng_state()
    start = time.perf_counter()
    rate = matrix_rate(torch.device("cpu"), precision)
    assert time.perf_counter() - start < 20
    assert 1e7 < rate < 1e15
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_logs_what_it_achieves(tmp_path):
    data = make_videos(tmp_path)
    options = {"LOG_MODEL_INFO": True, "SOLVER.MAX_EPOCH": 1, "TRAIN.EVAL_PERIOD": 10}
    done = run(data, tmp_path / "run", PRETRAINING, options)
    assert done.returncode == 0, done.stderr
    (start,) = events(tmp_path / "run", "start")
    for event in events(tmp_path / "run", "train"):
        achieved = 6e-12 * start["multiply_adds"] * event["clips_per_second"]
        assert event["tflops"] == pytest.approx(achieved)
        assert event["mfu"] == pytest.approx(achieved / start["matrix_tflops"])


def test_a_run_with_frozen_blocks_logs_no_share(tmp_path):
    """Their backward pass is left out, so that a step costs less than three forward passes."""
    data = make_videos(tmp_path)
    options = {"LOG_MODEL_INFO": True, "SOLVER.MAX_EPOCH": 1, "TRAIN.FREEZE_BLOCKS": -1}
    done = run(data, tmp_path / "run", FINETUNING, options, {"TEST.ENABLE": False})
    assert done.returncode == 0, done.stderr
    assert events(tmp_path / "run", "start")[0]["multiply_adds"] > 0
    assert all("mfu" not in event for event in events(tmp_path / "run", "train"))
