"""Configuration -> the pictures at the end of a training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from slowfast_maskfeat.backbones import MaskedModel, resize_mask
from slowfast_maskfeat.build.augment import build_device_cut
from slowfast_maskfeat.clips import ClipBatch, ClipLoader, normalise
from slowfast_maskfeat.metrics.average_precision import IOU_THRESHOLD
from slowfast_maskfeat.pictures import (
    HOGDrawing,
    PanelRow,
    PixelDrawing,
    class_bars,
    prediction_panel,
    training_curves,
)
from slowfast_maskfeat.targets import HOGTarget, PixelTarget
from slowfast_maskfeat.tasks import PretrainTask, Task

Drawing = HOGDrawing | PixelDrawing

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


def draw_predictions(
    cfg: CfgNode, model: nn.Module, task: Task, loader: ClipLoader, device: torch.device
) -> Path | None:
    """Draw frame, masked frame, target and prediction of the first clips of a list.

    Returns:
        the picture; None where the target is neither HOG nor pixels.
    """
    assert isinstance(task, PretrainTask)
    assert isinstance(model, MaskedModel)
    batch = next(iter(loader.epoch(0))).to(device)
    if batch.plans is not None:  # of the training loader, without a validation list
        cut = build_device_cut(cfg)
        assert cut is not None
        batch = cut(batch)
    batch = batch.split(_NUM_CLIPS)[0]
    drawings = predicted_drawings(model, task, batch)
    if drawings is None:
        return None
    assert batch.mask is not None
    grid = model.prediction_grids(batch.clips.shape[2:])[-1]
    rows = []
    for clip, steps in enumerate(
        panel_rows(batch.clips, resize_mask(batch.mask, grid), [drawings])
    ):
        # The time step with the most masked tokens that are not all of the frame.
        hidden = [row.mask.float().mean() for row in steps]
        step = max(range(grid.t), key=lambda t: hidden[t] if hidden[t] < 0.9 else -1.0)
        rows.append(steps[step]._replace(name=f"clip {clip + 1}"))
    path = Path(cfg.OUTPUT_DIR) / "predictions.png"
    prediction_panel(path, rows, title="predictions of masked tokens")
    return path


@torch.no_grad()
def predicted_drawings(
    model: MaskedModel, task: PretrainTask, batch: ClipBatch, name: str = ""
) -> list[list[Drawing]] | None:
    """What a network predicts at its last predicting depth of masked clips.

    Args:
        model: on the device of the batch; its training mode is put back afterwards.
        task: with the target.
        batch: clips (uint8) with masks.
        name: of the method, above its column; "" for the name of the target.

    Returns:
        A drawing for each clip and time step; None where the target is neither HOG nor pixels.
    """
    target = task.targets[-1]
    assert batch.mask is not None
    grid = model.prediction_grids(batch.clips.shape[2:])[-1]
    if not isinstance(target, (HOGTarget, PixelTarget)):
        return None
    was_training = model.training
    model.eval()
    predicted = model(normalise(batch.clips, task.mean, task.std), batch.mask)[-1].float()
    model.train(was_training)
    described = target.encode(batch.clips, grid)  # (B, N, dim)
    filled = described.clone()
    filled[resize_mask(batch.mask, grid).flatten(1)] = predicted
    drawing: type[HOGDrawing] | type[PixelDrawing]
    if isinstance(target, HOGTarget):
        drawing = HOGDrawing
        pairs = [target.to_cells(tokens, grid) for tokens in (described, filled)]
    else:
        drawing = PixelDrawing
        pairs = [
            target.to_frames(tokens, batch.clips, grid).permute(0, 2, 3, 4, 1)
            for tokens in (described, filled)
        ]  # (B, T', H, W, C); of several frames of a token the first is drawn
        pairs = [frames[:, :: frames.shape[1] // grid.t] for frames in pairs]
    wanted, made = (values.cpu() for values in pairs)
    title = {"name": name} if name else {}
    return [
        [drawing(wanted[clip, step], made[clip, step], **title) for step in range(grid.t)]
        for clip in range(len(batch))
    ]


def panel_rows(
    clips: Tensor, mask: Tensor, drawings: Sequence[list[list[Drawing]]]
) -> list[list[PanelRow]]:
    """A row for each clip and time step.

    Args:
        clips: (B, C, T, H, W) uint8.
        mask: (B, t, h, w) bool.
        drawings: of each network, from `predicted_drawings`.
    """
    frames = clips[:, :, :: clips.shape[2] // mask.shape[1]].permute(0, 2, 3, 4, 1).cpu()
    return [
        [
            PanelRow(
                frame=frames[clip, step],
                mask=mask[clip, step].cpu(),
                drawings=[of_network[clip][step] for of_network in drawings],
            )
            for step in range(mask.shape[1])
        ]
        for clip in range(len(clips))
    ]
