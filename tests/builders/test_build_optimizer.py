"""Optimizer and schedules that a configuration asks for."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_cases import tiny_options
from torch import nn

from slowfast_maskfeat.builders import build_model, build_optimizer
from slowfast_maskfeat.builders.optimizer import build_weight_decay
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.engine.lars import LARS
from slowfast_maskfeat.engine.optimizer import set_weight_decay

SGD = {"SOLVER__OPTIMIZING_METHOD": "sgd", "SOLVER__WEIGHT_DECAY": 0.1}


def _cfg(**changes):
    pairs = tiny_options("pt_video_hog", **changes).items()
    return load_config([], [str(word) for pair in pairs for word in pair])


def _step(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


@pytest.mark.parametrize("norm", ["sum", "decayed"])
def test_lars_scales_weights_and_leaves_biases_and_norms(norm: str) -> None:
    rate, decay = 0.5, 0.1
    cfg = _cfg(**SGD, SOLVER__LARS_ON=True, SOLVER__LARS_NORM=norm, SOLVER__BASE_LR=rate)
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    assert isinstance(optimizer, LARS)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    decays = {
        name: group["weight_decay"] for group in optimizer.param_groups for name in group["names"]
    }
    assert set(decays.values()) == {0.0, decay}
    _step(optimizer, model)
    for name, parameter in model.named_parameters():
        old, factor = before[name], rate * 1.9  # Nesterov's first step: 1 + momentum times as long
        gradient = torch.ones_like(old)
        expected = gradient.norm()  # of biases and norms
        if parameter.ndim > 1 and old.any():
            whole = gradient + decays[name] * old
            sum_of_norms = gradient.norm() + decays[name] * old.norm()
            divisor = sum_of_norms if norm == "sum" else whole.norm()
            expected = 0.001 * old.norm() * whole.norm() / divisor
        change = float((parameter - old).norm())
        assert change == pytest.approx(factor * float(expected), rel=1e-4), name
    # The schedule of the weight decay finds the groups as they were.
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, decay}


def test_lars_needs_sgd() -> None:
    cfg = _cfg(SOLVER__LARS_ON=True, SOLVER__OPTIMIZING_METHOD="adamw")
    with pytest.raises(ValueError, match=r"OPTIMIZING_METHOD must be 'sgd' .*LARS_ON True, got"):
        build_optimizer(cfg, build_model(cfg))


def test_weight_decay_follows_a_cosine_where_there_is_one() -> None:
    cfg = _cfg(
        SOLVER__OPTIMIZING_METHOD="adamw",
        SOLVER__WEIGHT_DECAY=0.04,
        SOLVER__WEIGHT_DECAY_END=0.4,
        SOLVER__ZERO_WD_1D_PARAM=True,
    )
    schedule = build_weight_decay(cfg)
    assert schedule is not None
    assert [schedule(x) for x in (0.0, 0.5, 1.0)] == pytest.approx([0.04, 0.22, 0.4])
    optimizer = build_optimizer(cfg, build_model(cfg))
    set_weight_decay(optimizer, schedule(0.5))
    assert [group["weight_decay"] for group in optimizer.param_groups] == pytest.approx([0.22, 0.0])
    assert build_weight_decay(_cfg()) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SOLVER__WEIGHT_DECAY_END": -0.1}, r"WEIGHT_DECAY_END must be >= 0 or None, got -0\.1"),
        (
            {"SOLVER__WEIGHT_DECAY_END": 0.1, "SOLVER__WEIGHT_DECAY": 0.0},
            r"SOLVER\.WEIGHT_DECAY must be > 0 with SOLVER\.WEIGHT_DECAY_END 0\.1, got 0\.0",
        ),
    ],
)
def test_wrong_ends_of_the_weight_decay(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_weight_decay(_cfg(**changes))
