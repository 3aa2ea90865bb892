"""Configuration -> the pictures at the end of a training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.backbones import MaskedModel, resize_mask
from slowfast_maskfeat.build.augment import build_device_cut
from slowfast_maskfeat.clips import ClipBatch, ClipLoader, normalise
from slowfast_maskfeat.metrics.average_precision import IOU_THRESHOLD
from slowfast_maskfeat.pictures import HOGPanelRow, class_bars, hog_panel, training_curves
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets import HOGTarget
from slowfast_maskfeat.tasks import PretrainTask, Task

_NUM_CLIPS = 4


def draw_curves(cfg: CfgNode) -> Path:
    """Draw loss, baseline, accuracy and learning rate of the run from its stats.jsonl."""
    folder = Path(cfg.OUTPUT_DIR)
    path = folder / "curves.png"
    training_curves(path, read_events(folder / "stats.jsonl"), title=cfg.TASK or "training")
    return path


def draw_average_precision(cfg: CfgNode, results: Mapping[str, Any]) -> Path:
    """Draw the average precision of each class as bars."""
    path = Path(cfg.OUTPUT_DIR) / "test_average_precision.png"
    title = f"{cfg.TASK or 'detection'}: average precision at IoU {IOU_THRESHOLD}"
    class_bars(path, results["per_class_ap"], results["per_class_boxes"], title=title)
    return path


def read_events(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a stats.jsonl."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


@torch.no_grad()
def draw_predictions(
    cfg: CfgNode, model: nn.Module, task: Task, loader: ClipLoader, device: torch.device
) -> Path | None:
    """Draw frame, masked frame, HOG target and predicted HOG of the first clips of a list.

    Returns:
        the picture; None where the target is not HOG.
    """
    if not isinstance(task, PretrainTask) or not isinstance(task.targets[-1], HOGTarget):
        return None
    assert isinstance(model, MaskedModel)
    target = task.targets[-1]
    batch = next(iter(loader.epoch(0))).to(device)
    if batch.plans is not None:  # of the training loader, without a validation list
        cut = build_device_cut(cfg)
        assert cut is not None
        batch = cut(batch)
    batch = batch.split(_NUM_CLIPS)[0]
    grid = model.prediction_grids(batch.clips.shape[2:])[-1]
    assert batch.mask is not None
    was_training = model.training
    model.eval()
    predicted = model(normalise(batch.clips, task.mean, task.std), batch.mask)[-1].float()
    model.train(was_training)
    described = target.encode(batch.clips, grid)  # (B, N, dim)
    filled = described.clone()
    filled[resize_mask(batch.mask, grid).flatten(1)] = predicted
    path = Path(cfg.OUTPUT_DIR) / "predictions.png"
    rows = _panel_rows(batch, grid, target.to_cells(described, grid), target.to_cells(filled, grid))
    hog_panel(path, rows, title="HOG of masked tokens")
    return path


def _panel_rows(
    batch: ClipBatch, grid: Grid, described: torch.Tensor, filled: torch.Tensor
) -> list[HOGPanelRow]:
    """One row per clip: its time step with the most masked cells that are not all of the frame."""
    assert batch.mask is not None
    mask = resize_mask(batch.mask, grid).cpu()
    frames_per_step = batch.clips.shape[2] // grid.t
    rows = []
    for clip in range(len(batch)):
        hidden = mask[clip].flatten(1).float().mean(1)  # (t,)
        step = int(torch.where(hidden < 0.9, hidden, -1.0).argmax())
        rows.append(
            HOGPanelRow(
                frame=batch.clips[clip, :, step * frames_per_step].permute(1, 2, 0).cpu(),
                mask=mask[clip, step],
                target=described[clip, step].cpu(),
                prediction=filled[clip, step].cpu(),
                name=f"clip {clip + 1}",
            )
        )
    return rows
