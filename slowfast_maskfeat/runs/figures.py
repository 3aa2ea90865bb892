"""Figures drawn at the end of a training."""

from __future__ import annotations

from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from slowfast_maskfeat.builders.augment import build_device_crop
from slowfast_maskfeat.builders.datasets import reverses_channels
from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.clips import ClipBatch, ClipLoader
from slowfast_maskfeat.figures import PanelRow, prediction_panel, training_curves
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.log import read_events, without_repeated
from slowfast_maskfeat.tasks import Task

_NUM_CLIPS = 4
# Highest mask ratio of a time step to draw: almost nothing is visible of a frame above it.
_MAX_MASK_RATIO = 0.9


def draw_curves(cfg: CfgNode) -> Path:
    """Draw the metrics of a run and its learning rate from its stats.jsonl.

    Returns:
        The file.
    """
    folder = Path(cfg.OUTPUT_DIR)
    path = folder / "curves.png"
    events = without_repeated(read_events(folder / "stats.jsonl"))
    training_curves(path, events, find_method(cfg).figures, title=cfg.TASK or "training")
    return path


def draw_predictions(
    cfg: CfgNode, model: nn.Module, task: Task, loader: ClipLoader, device: torch.device
) -> Path | None:
    """Draw frame, masked frame, target and prediction of the first clips of a split.

    Args:
        cfg: configuration; not changed.
        model: the bare model, on the device.
        task: of the model.
        loader: of the split.
        device: of the model.

    Returns:
        The file; None if the method or its target has no such figure.
    """
    draw = find_method(cfg).draw
    if draw is None:
        return None
    batch = _first_clips(cfg, loader, device)
    is_reversed = reverses_channels(cfg, "train")
    drawings = draw(model, task, batch, is_reversed)
    if drawings is None:
        return None
    pixels = batch.clips.flip(1) if is_reversed else batch.clips
    rows = []
    for clip, steps in enumerate(drawings):
        ratios = [float(drawing.mask.float().mean()) for drawing in steps]
        step = max(
            range(len(steps)), key=lambda t: ratios[t] if ratios[t] < _MAX_MASK_RATIO else -1.0
        )
        frame = frame_of_step(pixels[clip], step, len(steps))
        rows.append(PanelRow(frame, [steps[step]], name=f"clip {clip + 1}"))
    path = Path(cfg.OUTPUT_DIR) / "predictions.png"
    with atomic_write(path) as part:
        prediction_panel(part, rows, title="predictions of masked tokens")
    return path


def _first_clips(cfg: CfgNode, loader: ClipLoader, device: torch.device) -> ClipBatch:
    batch = next(iter(loader.epoch(0))).to(device)
    if batch.plans is not None:  # from the training loader, if there is no validation split
        crop = build_device_crop(cfg)
        assert crop is not None
        batch = crop(batch)
    return batch.split(_NUM_CLIPS)[0]


def frame_of_step(clip: Tensor, step: int, num_steps: int) -> Tensor:
    """Return the first frame of a time step's tokens: (C, T, H, W) -> (H, W, C)."""
    return clip[:, step * (clip.shape[1] // num_steps)].permute(1, 2, 0).cpu()
