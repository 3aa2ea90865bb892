"""Optimizers and schedules against goldens of other implementations."""

from __future__ import annotations

import re

import numpy as np
import torch
from helpers.load_tool import ROOT
from helpers.method_goldens import MethodGolden
from torch import nn

from slowfast_maskfeat.builders.optimizer import build_schedule
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.lars import LARS
from slowfast_maskfeat.engine.optimizer import make_optimizer, parameter_groups
from slowfast_maskfeat.schedules import Schedule

# The form of the norm in each implementation, see SOLVER.LARS_NORM.
_LARS_NORMS = {"ibot": "decayed", "lightly": "sum"}


def check_lars(golden: MethodGolden) -> None:
    """Take the steps of LARS, by the step that trainings take."""
    settings = golden.settings
    names = [name for name in golden.input_names() if not name.startswith("grad_")]
    num_steps = sum(name.startswith(f"grad_{names[0]}") for name in golden.input_names())
    for implementation in {name.partition("/")[0] for name in golden.array_names}:
        model = nn.ParameterDict({name: nn.Parameter(golden.input(name)) for name in names})
        optimizer = make_optimizer(
            parameter_groups(model, weight_decay=settings["weight_decay"], zero_decay_1d=True),
            method="sgd",
            lr=settings["lr"],
            momentum=settings["momentum"],
            nesterov=False,
            lars_norm=_LARS_NORMS[implementation],
        )
        assert isinstance(optimizer, LARS)
        optimizer._trust = settings["trust"]  # trainings have the published coefficient
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
            ages = [max(epoch - first, 0) for epoch in range(int(num_epochs))]
            got = [warm_up(age / max(length - 1, 1) if age < length else 1.0) for age in ages]
        else:
            start, end, *warm_epochs = _numbers(name)
            rest = last[name.split("/")[0]]
            # The names do not say how many steps an epoch has: the number that agrees best.
            warm_steps = {
                int(*warm_epochs) * number if warm_epochs else 0
                for number in range(1, num_steps + 1)
                if num_steps % number == 0
            }
            curves = {
                steps: _warm_cosine(start, end, steps, rest - steps, num_steps)
                for steps in sorted(warm_steps)
                if steps < num_steps
            }
            stored, stride = golden.raw(name), golden.stride(name)
            steps = min(curves, key=lambda n: np.abs(curves[n][::stride] - stored).max())
            got = curves[steps]
            if steps > 1:
                _check_rates_of_dino(got, start, end, int(*warm_epochs), steps)
        golden.compare(name, torch.tensor(got, dtype=torch.float64))


def _warm_cosine(start: float, end: float, warm: int, rest: int, num_steps: int) -> list[float]:
    """A rise over `warm` steps to the start of a cosine, which reaches its end `rest` later."""
    rise, fall = Schedule(0.0, start, "linear"), Schedule(start, end)
    values = [rise(step / max(warm - 1, 1)) for step in range(warm)]
    return values + [fall(step / max(rest, 1)) for step in range(num_steps - warm)]


def _check_rates_of_dino(
    expected: list[float], base: float, end: float, warm_epochs: int, warm_steps: int
) -> None:
    """Check the learning rates by step of the shipped recipe of DINO, which is iBOT's, too."""
    num_steps = warm_steps // warm_epochs
    num_epochs = len(expected) // num_steps
    sizes = {"MAX_EPOCH": num_epochs, "WARMUP_EPOCHS": float(warm_epochs)}
    sizes |= {"BASE_LR": base, "COSINE_END_LR": end}
    words = [str(word) for key, value in sizes.items() for word in (f"SOLVER.{key}", value)]
    for method in ("dino", "ibot"):
        cfg = load_config([ROOT / f"configs/_base_/method/{method}.yaml"], words)
        rate = build_schedule(cfg, num_steps=num_steps)
        got = [rate(step / num_steps) for step in range(len(expected))]
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-15)


def _numbers(name: str) -> list[float]:
    return [float(number) for number in re.findall(r"[0-9.]+(?:e-?[0-9]+)?", name)]
