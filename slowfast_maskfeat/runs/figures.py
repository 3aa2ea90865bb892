"""Configuration -> the pictures at the end of a training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.backbones import MaskedModel, resize_mask
from slowfast_maskfeat.builders.augment import build_device_crop
from slowfast_maskfeat.builders.datasets import reverses_channels
from slowfast_maskfeat.clips import ClipBatch, ClipLoader
from slowfast_maskfeat.figures import (
    Drawing,
    HOGDrawing,
    PanelRow,
    PixelDrawing,
    class_bars,
    prediction_panel,
    training_curves,
)
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.metrics.average_precision import IOU_THRESHOLD
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets import HOGTarget, PixelTarget
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
        crop = build_device_crop(cfg)
        assert crop is not None
        batch = crop(batch)
    batch = batch.split(_NUM_CLIPS)[0]
    name = drawn_target(task)
    if name is None:
        return None
    is_reversed = reverses_channels(cfg, "train")
    drawings = predicted_drawings(model, task, batch, name, is_reversed=is_reversed)
    pixels = batch.clips.flip(1) if is_reversed else batch.clips
    rows = []
    for clip, steps in enumerate(drawings):
        # The time step with the most masked tokens that are not all of the frame.
        hidden = [drawing.mask.float().mean() for drawing in steps]
        step = max(range(len(steps)), key=lambda t: hidden[t] if hidden[t] < 0.9 else -1.0)
        frame = frame_of_step(pixels[clip], step, len(steps))
        rows.append(PanelRow(frame, [steps[step]], name=f"clip {clip + 1}"))
    path = Path(cfg.OUTPUT_DIR) / "predictions.png"
    with atomic_write(path) as part:
        prediction_panel(part, rows, title="predictions of masked tokens")
    return path


def drawn_target(task: PretrainTask) -> str | None:
    """What a task predicts last, by the name that stands above it; None if it can't be drawn."""
    target = task.targets[-1]
    names = {HOGTarget: "HOG", PixelTarget: "pixels"}
    return next((name for kind, name in names.items() if isinstance(target, kind)), None)


def frame_of_step(clip: Tensor, step: int, num_steps: int) -> Tensor:
    """The first frame that a token of a time step stands for: (C, T, H, W) -> (H, W, C)."""
    return clip[:, step * (clip.shape[1] // num_steps)].permute(1, 2, 0).cpu()


@torch.no_grad()
def predicted_drawings(
    model: MaskedModel,
    task: PretrainTask,
    batch: ClipBatch,
    name: str,
    *,
    is_reversed: bool = False,
) -> list[list[Drawing]]:
    """What a network predicts at its last predicting depth of masked clips.

    Args:
        model: on the device of the batch; its training mode is put back afterwards.
        task: with a target that `drawn_target` knows.
        batch: clips (uint8) with masks.
        name: of the method, above its columns.
        is_reversed: the clips are blue, green, red; drawings are red, green, blue.

    Returns:
        A drawing for each clip and time step of the predictions.

    Raises:
        ValueError: a cell of a mask is finer than a predicted token, so that no picture is true.
    """
    target = task.targets[-1]
    assert isinstance(target, (HOGTarget, PixelTarget))
    assert batch.mask is not None
    grid = model.prediction_grids(batch.clips.shape[2:])[-1]
    mask_grid = Grid(*batch.mask.shape[1:])
    if not mask_grid.divides(grid):
        raise ValueError(f"a mask of {mask_grid} cells can't be drawn on {grid} predicted tokens")
    was_training = model.training
    model.eval()
    predicted = model(normalize(batch.clips, task.mean, task.std), batch.mask)[-1].float()
    model.train(was_training)
    described = target.encode(batch.clips, grid)  # (B, N, dim)
    filled = described.clone()
    mask = resize_mask(batch.mask, grid)  # (B, t, h, w)
    filled[mask.flatten(1)] = predicted
    drawing: type[HOGDrawing] | type[PixelDrawing]
    if isinstance(target, HOGTarget):
        drawing = HOGDrawing
        wanted, made = (target.to_cells(tokens, grid).cpu() for tokens in (described, filled))
    else:
        drawing = PixelDrawing
        wanted, made = (
            _first_frames(target.to_frames(tokens, batch.clips, grid), grid.t, is_reversed)
            for tokens in (described, filled)
        )
    mask = mask.cpu()
    return [
        [
            drawing(wanted[clip, step], made[clip, step], mask[clip, step], name)
            for step in range(grid.t)
        ]
        for clip in range(len(batch))
    ]


def _first_frames(frames: Tensor, num_steps: int, is_reversed: bool) -> Tensor:
    """(B, C, T, H, W) -> (B, t, H, W, C), red first, the first frame of each token."""
    frames = frames[:, :, :: frames.shape[2] // num_steps].cpu()
    return (frames.flip(1) if is_reversed else frames).permute(0, 2, 3, 4, 1)
