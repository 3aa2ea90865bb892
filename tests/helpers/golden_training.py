"""Optimizers and schedules against goldens of other implementations."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from helpers.load_tool import ROOT
from helpers.method_goldens import MethodGolden
from torch import nn

from slowfast_maskfeat.builders.optimizer import build_schedule
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.optimizer import make_optimizer, parameter_groups
from slowfast_maskfeat.schedules import Schedule

# The form of the norm in each implementation, see SOLVER.LARS_NORM.
_LARS_NORMS = {"ibot": "decayed", "lightly": "sum"}


def check_lars(golden: MethodGolden) -> None:
    """Take the steps of LARS, by the step that trainings take."""
    settings = golden.settings
    assert settings["trust"] == pytest.approx(0.001), "the published trust coefficient is fixed"
    names = [name for name in golden.input_names() if not name.startswith("grad_")]
    num_steps = sum(name.startswith(f"grad_{names[0]}") for name in golden.input_names())
    for implementation, norm in _LARS_NORMS.items():
        model = nn.ParameterDict({name: nn.Parameter(golden.input(name)) for name in names})
        optimizer = make_optimizer(
            parameter_groups(model, weight_decay=settings["weight_decay"], zero_decay_1d=True),
            method="sgd",
            lr=settings["lr"],
            momentum=settings["momentum"],
            nesterov=False,
            lars_norm=norm,
        )
        step = GradientStep(optimizer)
        for number in range(num_steps):
            for name in names:
                model[name].grad = golden.input(f"grad_{name}{number}")
            assert step(torch.tensor(1.0)).taken
            for name in names:
                golden.compare(f"{implementation}/{name}{number}", model[name])


def check_ema_schedules(golden: MethodGolden) -> None:
    """Compare schedules, whose ends, lengths and warm-ups are in the names of their arrays."""
    num_steps = golden.settings["steps"]
    last = {"official": num_steps, "lightly": num_steps - 1}  # progress of step i is i / last
    warm_temperature = "teacher_temp_"
    (warm,) = (name for name in golden.array_names if name.startswith(warm_temperature))
    low, high, length, num_epochs = _numbers(warm)
    for name in golden.array_names:
        if name.startswith("teacher"):  # per epoch; iBOT's for patches begins with masking
            first = 0 if name == warm else _numbers(name)[0]
            warm_up = Schedule(low, high, "linear")
            got = [
                warm_up(min(max(epoch - first, 0) / (length - 1), 1.0))
                for epoch in range(int(num_epochs))
            ]
        else:
            start, end, *warm_epochs = _numbers(name)
            # The names do not say how many steps an epoch has: the warm-up ends where the rate is
            # the highest for the first time.
            steps = int(golden.raw(name).argmax()) + 1 if warm_epochs else 0
            rise, fall = Schedule(0.0, start, "linear"), Schedule(start, end)
            rest = last[name.split("/")[0]] - steps
            got = [rise(step / (steps - 1)) for step in range(steps)]
            got += [fall(step / rest) for step in range(num_steps - steps)]
            if warm_epochs:
                _check_rates_of_dino(golden.raw(name), start, end, warm_epochs[0], steps)
        golden.compare(name, torch.tensor(got, dtype=torch.float64))


def _check_rates_of_dino(
    expected: np.ndarray, base: float, end: float, warm_epochs: float, warm_steps: int
) -> None:
    """Check the learning rates by step of the shipped recipe of DINO, which is iBOT's, too."""
    num_steps = round(warm_steps / warm_epochs)
    num_epochs = len(expected) // num_steps
    sizes = {"MAX_EPOCH": num_epochs, "WARMUP_EPOCHS": warm_epochs}
    sizes |= {"BASE_LR": base, "COSINE_END_LR": end}
    words = [str(word) for key, value in sizes.items() for word in (f"SOLVER.{key}", value)]
    for method in ("dino", "ibot"):
        cfg = load_config([ROOT / f"configs/_base_/method/{method}.yaml"], words)
        rate = build_schedule(cfg, num_steps=num_steps)
        got = [rate(step / num_steps) for step in range(len(expected))]
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-15)


def _numbers(name: str) -> list[float]:
    return [float(number) for number in re.findall(r"[0-9.]+(?:e-?[0-9]+)?", name)]
