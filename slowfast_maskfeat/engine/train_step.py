"""One optimizer step of all tasks."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from slowfast_maskfeat import distributed
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.engine.gradient_step import StepResult
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.engine.train_settings import TrainSettings
from slowfast_maskfeat.tasks.base import with_one_weight


def train_step(
    state: TrainState,
    batch: ClipBatch,
    settings: TrainSettings,
    device: torch.device,
    *,
    progress: float = 0.0,
) -> tuple[list[str], Tensor, StepResult]:
    """Take one optimizer step on one batch, without reading anything back from the device.

    Gradients are sums over terms: they are summed over micro-batches and processes, and divided
    once.

    Args:
        state: model, task and optimizer.
        batch: of this process.
        settings: accumulation and precision.
        device: of the model.
        progress: fraction of the whole training before the step, in [0, 1).

    Returns:
        The names of the terms; the weight and each term times the weight, summed over micro-batches
        and processes, float64; the outcome of the step.
    """
    state.task.before_step(progress)
    parts = batch.split(-(-len(batch) // settings.accumulation_steps))
    precision = settings.precision
    total: Tensor | None = None
    for number, part in enumerate(parts, 1):
        # Gradients are exchanged among processes only in the last micro-batch.
        is_last = number == len(parts)
        with nullcontext() if is_last else distributed.without_gradient_exchange(state.model):
            with torch.autocast(device.type, precision, enabled=precision is not None):
                output = state.task.step(state.model, part.to(device))
            state.scaler.scale(output.loss * output.weight).backward()
        sums = output.sums()
        total = sums if total is None else total + sums
    assert total is not None
    # Steps are averaged by the weight of the loss.
    total = with_one_weight(
        distributed.all_reduce(total, "sum"), output.scalars, output.scalar_weights
    )
    if state.scaler.is_enabled():
        state.scaler.unscale_(state.stepper.optimizer)
    frozen = state.task.frozen_parameters(state.bare, progress)
    result = state.stepper(total[0], total[1], frozen=frozen)
    if state.scaler.is_enabled():
        state.scaler.update()
    state.stepper.optimizer.zero_grad(set_to_none=True)
    state.task.after_step(state.bare, progress, result.taken)
    if state.average is not None:  # after the task, which may move statistics of the model
        state.average.update(state.bare, result.taken)
    return ["loss", *output.scalars], total, result
