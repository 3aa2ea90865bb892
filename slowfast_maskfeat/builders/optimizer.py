"""Builders of the optimizer and of the schedules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.backbones import LayeredModel
from slowfast_maskfeat.config import default_config
from slowfast_maskfeat.engine.optimizer import make_optimizer, parameter_groups
from slowfast_maskfeat.schedules import LearningRates, Schedule, learning_rate, scale_by_shards


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer over the parameters of an unwrapped model, in the published groups.

    Args:
        cfg: configuration; not modified.
        model: from `build_model`, on its device.

    Raises:
        ValueError: keys of SOLVER contradict each other.
    """
    solver = cfg.SOLVER
    if solver.OPTIMIZING_METHOD == "sgd" and solver.NESTEROV and solver.DAMPENING:
        raise ValueError(
            f"SOLVER.DAMPENING must be 0 with SOLVER.NESTEROV True, got {solver.DAMPENING:g}"
        )
    layered = model if isinstance(model, LayeredModel) else None
    no_weight_decay = getattr(model, "no_weight_decay", set)  # some have no layers in a row
    exempt: set[str] = no_weight_decay() if cfg.MVIT.ZERO_DECAY_POS_CLS else set()
    groups = parameter_groups(
        model,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        # LARS neither scales nor decays biases and norms.
        zero_decay_1d=cfg.SOLVER.ZERO_WD_1D_PARAM or cfg.SOLVER.LARS_ON,
        zero_decay_names=exempt,
        layer_decay=cfg.SOLVER.LAYER_DECAY,
        layer_id=layered.layer_id if layered else None,
        num_layers=layered.num_layers if layered else None,
    )
    return make_optimizer(
        groups,
        method=cfg.SOLVER.OPTIMIZING_METHOD,
        lr=learning_rates(cfg).base_lr,
        betas=tuple(cfg.SOLVER.BETAS),
        momentum=cfg.SOLVER.MOMENTUM,
        dampening=cfg.SOLVER.DAMPENING,
        nesterov=cfg.SOLVER.NESTEROV,
        lars_norm=cfg.SOLVER.LARS_NORM if cfg.SOLVER.LARS_ON else None,
    )


def learning_rates(cfg: CfgNode) -> LearningRates:
    """Return the learning rates, scaled by NUM_SHARDS if BASE_LR_SCALE_NUM_SHARDS is set."""
    rates = LearningRates(cfg.SOLVER.BASE_LR, cfg.SOLVER.WARMUP_START_LR, cfg.SOLVER.COSINE_END_LR)
    return scale_by_shards(rates, cfg.NUM_SHARDS if cfg.SOLVER.BASE_LR_SCALE_NUM_SHARDS else 1)


def schedule_warnings(cfg: CfgNode) -> list[str]:
    """Describe what in the warm-up of the learning rate is probably not meant.

    Args:
        cfg: configuration; not modified.

    Returns:
        Warnings, empty if there is nothing to warn about.
    """
    solver = cfg.SOLVER
    found: list[str] = []
    if not solver.WARMUP_EPOCHS:
        return found
    if solver.MAX_EPOCH <= solver.WARMUP_EPOCHS:
        found.append(
            f"SOLVER.WARMUP_EPOCHS should be below SOLVER.MAX_EPOCH {solver.MAX_EPOCH:g}, got "
            f"{solver.WARMUP_EPOCHS:g}: training ends before the learning rate reaches "
            "SOLVER.BASE_LR"
        )
    if solver.WARMUP_START_LR > solver.BASE_LR:
        default = default_config().SOLVER.WARMUP_START_LR
        origin = " (the published default)" if default == solver.WARMUP_START_LR else ""
        found.append(
            f"SOLVER.WARMUP_START_LR should be at most SOLVER.BASE_LR {solver.BASE_LR:g}, got "
            f"{solver.WARMUP_START_LR:g}{origin}: the learning rate falls during the warm-up "
            "instead of rising"
        )
    return found


def build_schedule(cfg: CfgNode, *, num_steps: int = 1) -> Callable[[float], float]:
    """Build the learning-rate schedule, a function of the fractional epoch.

    Args:
        cfg: configuration; not modified.
        num_steps: steps of an epoch, on which SOLVER.WARMUP_INCLUDES_END depends.

    Raises:
        ValueError: keys of SOLVER contradict each other, see `learning_rate`.
    """
    rates = learning_rates(cfg)
    schedule = partial(
        learning_rate,
        policy=cfg.SOLVER.LR_POLICY,
        base_lr=rates.base_lr,
        end_lr=rates.end_lr,
        warmup_start_lr=rates.warmup_start_lr,
        max_epoch=cfg.SOLVER.MAX_EPOCH,
        warmup_epochs=cfg.SOLVER.WARMUP_EPOCHS,
        warmup_last_step=1 / num_steps if cfg.SOLVER.WARMUP_INCLUDES_END else 0.0,
        cosine_after_warmup=cfg.SOLVER.COSINE_AFTER_WARMUP,
        steps=tuple(cfg.SOLVER.STEPS),
        lrs=tuple(cfg.SOLVER.LRS),
    )
    schedule(0.0)  # raises its errors now, not in the first step
    return schedule


def build_weight_decay(cfg: CfgNode) -> Schedule | None:
    """Build the schedule of the weight decay over the progress of the training.

    Args:
        cfg: configuration; not modified.

    Returns:
        A cosine from SOLVER.WEIGHT_DECAY to SOLVER.WEIGHT_DECAY_END; None if it is constant.

    Raises:
        ValueError: SOLVER.WEIGHT_DECAY_END is below 0, or no parameter has weight decay.
    """
    start, end = cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.WEIGHT_DECAY_END
    if end is None:
        return None
    if end < 0:
        raise ValueError(f"SOLVER.WEIGHT_DECAY_END must be >= 0 or None, got {end}")
    if start <= 0:
        raise ValueError(
            f"SOLVER.WEIGHT_DECAY must be > 0 with SOLVER.WEIGHT_DECAY_END {end}, got {start}"
        )
    return Schedule(start, end)
