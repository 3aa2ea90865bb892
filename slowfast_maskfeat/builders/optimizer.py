"""Builders of the optimizer, the learning-rate schedule and the autocast precision."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.backbones import LayeredModel
from slowfast_maskfeat.engine.optimizer import make_optimizer, parameter_groups
from slowfast_maskfeat.schedules import LearningRates, learning_rate, scale_by_shards

_PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer over the parameters of an unwrapped model, in the published groups.

    Args:
        cfg: configuration; not modified.
        model: from `build_model`, on its device.
    """
    layered = model if isinstance(model, LayeredModel) else None
    exempt = layered.no_weight_decay() if layered and cfg.MVIT.ZERO_DECAY_POS_CLS else set()
    groups = parameter_groups(
        model,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        zero_decay_1d=cfg.SOLVER.ZERO_WD_1D_PARAM,
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
    )


def learning_rates(cfg: CfgNode) -> LearningRates:
    """Return the learning rates, scaled by NUM_SHARDS if BASE_LR_SCALE_NUM_SHARDS is set."""
    rates = LearningRates(cfg.SOLVER.BASE_LR, cfg.SOLVER.WARMUP_START_LR, cfg.SOLVER.COSINE_END_LR)
    return scale_by_shards(rates, cfg.NUM_SHARDS if cfg.SOLVER.BASE_LR_SCALE_NUM_SHARDS else 1)


def build_schedule(cfg: CfgNode) -> Callable[[float], float]:
    """Build the learning-rate schedule, a function of the fractional epoch.

    Args:
        cfg: configuration; not modified.
    """
    if 0 < cfg.SOLVER.MAX_EPOCH <= cfg.SOLVER.WARMUP_EPOCHS:
        warnings.warn(
            f"SOLVER.WARMUP_EPOCHS should be below SOLVER.MAX_EPOCH {cfg.SOLVER.MAX_EPOCH:g}, got "
            f"{cfg.SOLVER.WARMUP_EPOCHS:g}: training ends before the learning rate reaches "
            "SOLVER.BASE_LR",
            UserWarning,
            stacklevel=2,
        )
    rates = learning_rates(cfg)
    return partial(
        learning_rate,
        policy=cfg.SOLVER.LR_POLICY,
        base_lr=rates.base_lr,
        end_lr=rates.end_lr,
        warmup_start_lr=rates.warmup_start_lr,
        max_epoch=cfg.SOLVER.MAX_EPOCH,
        warmup_epochs=cfg.SOLVER.WARMUP_EPOCHS,
        cosine_after_warmup=cfg.SOLVER.COSINE_AFTER_WARMUP,
        steps=tuple(cfg.SOLVER.STEPS),
        lrs=tuple(cfg.SOLVER.LRS),
    )


def autocast_precision(cfg: CfgNode) -> torch.dtype | None:
    """Return the dtype of autocast; None disables it.

    TRAIN.MIXED_PRECISION without TRAIN.PRECISION means bf16, which has the range of float32 and
    needs no loss scaling.
    """
    name = cfg.TRAIN.PRECISION or ("bf16" if cfg.TRAIN.MIXED_PRECISION else "float32")
    return _PRECISIONS[name]
