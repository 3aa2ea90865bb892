"""Tiny networks of BYOL, DINO and iBOT, with batches of random views."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from helpers.tiny_cases import tiny_options
from torch import Tensor

from slowfast_maskfeat.builders import build_model, build_task
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.optimizer import make_optimizer, parameter_groups
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.engine.train_settings import TrainSettings

KINDS = ("byol", "dino", "ibot")
HEADS: dict[str, dict[str, Any]] = {
    "byol": {
        "DIM": 8,
        "MLP_DIM": 16,
        "NUM_MLP_LAYERS": 2,
        "BN_MLP": True,
        "BN_SYNC_MLP": True,
        "PREDICTOR_DEPTHS": [2],
        "MOMENTUM": 0.9,
        "MOMENTUM_ANNEALING": True,
        "T": 0.5,
    },
    "dino": {
        "DIM": 24,
        "MLP_DIM": 16,
        "NUM_MLP_LAYERS": 3,
        "BOTTLENECK_DIM": 8,
        "MOMENTUM": 0.9,
        "MOMENTUM_ANNEALING": True,
        "T": 0.1,
        "TEACHER_T_EPOCHS": 3,
    },
}
HEADS["ibot"] = HEADS["dino"]


def view_options(kind: str, case: str = "img_vit", **changes: Any) -> dict[str, Any]:
    """Keys and values; those of CONTRASTIVE are given without their section."""
    own = {"TYPE": kind, **HEADS[kind]}
    others = {key: value for key, value in changes.items() if "__" in key}
    own |= {key: value for key, value in changes.items() if key not in others}
    options = tiny_options(case, MODEL__MODEL_NAME="ContrastiveModel", MODEL__ARCH="mvit")
    options |= {"MODEL.LOSS_FUNC": "contrastive_loss", "MASK.ENABLE": False, "SOLVER.MAX_EPOCH": 4}
    options |= {f"CONTRASTIVE.{key}": value for key, value in own.items()}
    if kind == "ibot":
        options["AUG.MASK_KIND"] = "ibot"
    return options | {key.replace("__", "."): value for key, value in others.items()}


def view_config(kind: str, case: str = "img_vit", **changes: Any) -> CfgNode:
    """The frozen configuration of `view_options`."""
    pairs = view_options(kind, case, **changes).items()
    return load_config([], [str(word) for pair in pairs for word in pair])


def view_batch(cfg: CfgNode, size: int, *, seed: int = 0, num_local: int = 2) -> ClipBatch:
    """Random views of samples: two large ones, masked for iBOT, and small ones but for BYOL."""
    generator = torch.Generator().manual_seed(seed)
    kind = cfg.CONTRASTIVE.TYPE

    def clips(count: int, side: int) -> Tensor:
        shape = (size * count, 3, cfg.DATA.NUM_FRAMES, side, side)
        return torch.randn(shape, generator=generator)

    side = cfg.DATA.TRAIN_CROP_SIZE
    mask = None
    if kind == "ibot":
        steps = 1 if cfg.DATA.NUM_FRAMES == 1 else 2
        mask = torch.rand((2 * size, steps, 4, 4), generator=generator) < 0.4
        mask[0] = False  # half of iBOT's views have none
    large = ClipBatch(clips=clips(2, side), mask=mask, views_per_sample=2)
    if kind == "byol" or not num_local:
        return large
    small = ClipBatch(clips=clips(num_local, side // 2), views_per_sample=num_local)
    return replace(large, further=(small,))


def view_state(cfg: CfgNode, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> TrainState:
    """A training before its first step."""
    torch.manual_seed(seed)
    model = build_model(cfg).to(dtype)
    groups = parameter_groups(model, weight_decay=0.01, zero_decay_1d=True)
    return TrainState(
        model=model,
        task=build_task(cfg, model).to(dtype),
        stepper=GradientStep(make_optimizer(groups, method="sgd", lr=0.05)),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
    )


def in_float64(batch: ClipBatch) -> ClipBatch:
    """The batch with clips in float64."""
    further = tuple(in_float64(kind) for kind in batch.further)
    return replace(batch, clips=batch.clips.double(), further=further)


def view_settings(cfg: CfgNode, *, parts: int = 1) -> TrainSettings:
    """Settings of `train_step`."""
    return TrainSettings(
        max_epoch=cfg.SOLVER.MAX_EPOCH,
        learning_rate=lambda epoch: 0.05,
        accumulation_steps=parts,
        folder=Path(),
    )
