"""A step whose loss is not finite changes nothing of a tokenizer that is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.tiny_teachers import tokenizer_config

from slowfast_maskfeat import ClipBatch, build_model, build_optimizer, build_task
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.engine.train_settings import TrainSettings
from slowfast_maskfeat.engine.train_step import train_step

CPU = torch.device("cpu")


def _clips(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, 1, 32, 32, generator=generator)


def _step(state: TrainState, clips: torch.Tensor) -> bool:
    """Take one step in two micro-batches; return whether the optimizer took it."""
    batch = ClipBatch(clips, index=torch.arange(4), view=torch.zeros(4, dtype=torch.int64))
    settings = TrainSettings(
        max_epoch=1, learning_rate=lambda epoch: 0.01, accumulation_steps=2, folder=Path("unused")
    )
    *_, result = train_step(state, batch, settings, CPU)
    return bool(result.taken)


def _content(state: TrainState) -> dict[str, torch.Tensor]:
    entries = {**state.model.state_dict(), **state.task.state_dict(prefix="task.")}
    return {name: value.clone() for name, value in entries.items() if torch.is_tensor(value)}


@pytest.mark.parametrize(
    "keys",
    [
        {"CODEBOOK": "ema", "KMEANS_ROUNDS": 2, "RESTART_AFTER": 1},
        {"CODEBOOK": "direction", "DISTANCE": "cosine", "KMEANS_ROUNDS": 0, "RESTART_AFTER": 1},
        {"CODEBOOK": "gradient", "KMEANS_ROUNDS": 0},
        {"TYPE": "dvae"},
    ],
    ids=["ema", "direction", "gradient", "dvae"],
)
def test_a_step_with_nan_leaves_weights_codes_and_statistics(keys):
    cfg = tokenizer_config(**keys)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    task = build_task(cfg, model).train()
    stepper = GradientStep(build_optimizer(cfg, model))
    state = TrainState(model, task, stepper, torch.amp.GradScaler("cpu", enabled=False))
    for group in stepper.optimizer.param_groups:
        group["lr"] = 0.01
    start = _content(state)
    assert _step(state, _clips(1))
    before = _content(state)
    assert any(not value.equal(start[name]) for name, value in before.items())
    broken = _clips(2)
    broken[3, 0, 0, 5, 5] = torch.nan  # of the second micro-batch
    assert not _step(state, broken)
    after = _content(state)
    assert after.keys() == before.keys()
    for name, value in after.items():
        assert value.equal(before[name]), name
    assert _step(state, _clips(3))
    assert all(value.isfinite().all() for value in _content(state).values())
