"""Configuration -> the pictures at the end of a training."""

from __future__ import annotations

from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.clips import ClipLoader
from slowfast_maskfeat.tasks import Task


def draw_curves(cfg: CfgNode) -> Path:
    """Loss, baseline, accuracy and learning rate of the run."""
    return Path(cfg.OUTPUT_DIR) / "curves.png"


def draw_predictions(
    cfg: CfgNode, model: nn.Module, task: Task, loader: ClipLoader, device: torch.device
) -> Path:
    """Frame, masked frame, target and prediction of a few clips."""
    return Path(cfg.OUTPUT_DIR) / "predictions.png"
