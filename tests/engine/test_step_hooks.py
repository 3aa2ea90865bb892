"""Frozen parameters of a task, and the schedule of the weight decay, in the steps of a training."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Collection
from pathlib import Path

import pytest
import torch
from helpers.tiny_run import MODEL, PRETRAINING, make_videos, pairs, run
from torch import Tensor, nn

from slowfast_maskfeat.builders.methods import build_model, build_task
from slowfast_maskfeat.checkpoints import find_checkpoints, load_checkpoint
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.ema import WeightAverage
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.optimizer import make_optimizer, parameter_groups
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.engine.train_settings import TrainSettings
from slowfast_maskfeat.engine.train_step import train_step
from slowfast_maskfeat.tasks import Evaluation, StepOutput, Task


class FirstLayerLater(Task):
    """Squares of a network's outputs, whose first layer is frozen in the first tenth."""

    def step(self, model: nn.Module, batch: ClipBatch) -> StepOutput:
        terms = model(batch.clips.flatten(1)).square().mean(dim=1)
        return StepOutput(terms.mean(), torch.tensor(float(len(terms))))

    def frozen_parameters(self, model: nn.Module, progress: float) -> Collection[nn.Parameter]:
        return list(model[0].parameters()) if progress < 0.1 else ()

    def evaluation(self, videos: object, num_views: int) -> Evaluation:
        raise NotImplementedError


@pytest.mark.parametrize("accumulation_steps", [1, 3])
def test_a_task_freezes_parameters_for_a_while(accumulation_steps: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 4), nn.Linear(4, 2))
    groups = parameter_groups(model, weight_decay=0.1, zero_decay_1d=False)
    stepper = GradientStep(make_optimizer(groups, method="adamw", lr=0.1))
    task = FirstLayerLater()
    state = TrainState(model, task, stepper, torch.amp.GradScaler("cpu", enabled=False))
    settings = TrainSettings(
        max_epoch=10,
        learning_rate=lambda _: 0.1,
        accumulation_steps=accumulation_steps,
        folder=tmp_path,
    )
    batch = ClipBatch(torch.randn(6, 3, 1, 2, 2))
    for progress, is_frozen in ((0.0, True), (0.05, True), (0.1, False)):
        before = copy.deepcopy(model)
        *_, result = train_step(state, batch, settings, torch.device("cpu"), progress=progress)
        assert bool(result.taken)
        for name, old in before.named_parameters():
            is_same = torch.equal(old, dict(model.named_parameters())[name])
            assert is_same == (is_frozen and name.startswith("0.")), (progress, name)


class MovesStatistics(FirstLayerLater):
    """Moves a buffer of the network after each step."""

    def after_step(self, model: nn.Module, progress: float, taken: Tensor) -> None:
        model.get_buffer("statistics").add_(1)


def test_the_weight_average_has_the_statistics_after_the_step(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(12, 4), nn.Linear(4, 2))
    model.register_buffer("statistics", torch.zeros(2))
    stepper = GradientStep(torch.optim.SGD(model.parameters(), lr=0.1))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = TrainState(model, MovesStatistics(), stepper, scaler)
    state.average = WeightAverage(model, decay=0.5)
    settings = TrainSettings(max_epoch=10, learning_rate=lambda _: 0.1, folder=tmp_path)
    batch = ClipBatch(torch.randn(6, 3, 1, 2, 2))
    for expected in (0.5, 1.25):  # half of the way to 1, then to 2
        train_step(state, batch, settings, torch.device("cpu"), progress=0.5)
        assert state.average.weights["statistics"].tolist() == [expected] * 2


def test_nothing_is_frozen_by_default() -> None:
    cfg = load_config([], pairs(MODEL, PRETRAINING))
    model = build_model(cfg)
    assert build_task(cfg, model).frozen_parameters(model, 0.0) == ()


def test_a_resumed_run_has_the_weight_decay_of_its_progress(tmp_path: Path) -> None:
    """Bit-equal to an uninterrupted one, with LARS and clipping of each parameter, too."""
    (tmp_path / "data").mkdir()
    data = make_videos(tmp_path / "data", num_videos=4)
    options = {
        "SOLVER.OPTIMIZING_METHOD": "sgd",
        "SOLVER.LARS_ON": True,
        "SOLVER.WEIGHT_DECAY": 0.04,
        "SOLVER.WEIGHT_DECAY_END": 4.0,
        "SOLVER.CLIP_GRAD_L2NORM": 0.01,
        "SOLVER.CLIP_GRAD_PER_PARAM": True,
    }

    def weights_of(folder: str, *further: dict[str, object]) -> dict[str, Tensor]:
        done = run(data, tmp_path / folder, PRETRAINING, options, *further)
        assert done.returncode == 0, done.stderr
        last = find_checkpoints(tmp_path / folder / "checkpoints", "ssl")[-1]
        return load_checkpoint(last)["model_state"]

    whole = weights_of("whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    _, last = find_checkpoints(tmp_path / "resumed" / "checkpoints", "ssl")
    last.unlink()
    resumed = weights_of("resumed")
    assert all(value.equal(resumed[name]) for name, value in whole.items())
    constant = weights_of("constant", {"SOLVER.WEIGHT_DECAY_END": None})
    assert any(not value.equal(constant[name]) for name, value in whole.items())
