"""Figures drawn at the end of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode
from numpy.typing import NDArray
from torch import Tensor

from slowfast_maskfeat.builders.augment import build_device_crops
from slowfast_maskfeat.builders.datasets import reverses_channels
from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.clips import ClipBatch, ClipLoader, crop_views
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.figures import (
    MONITOR_PANELS,
    PanelRow,
    draw_or_warn,
    file_names,
    prediction_panel,
    training_curves,
)
from slowfast_maskfeat.log import event_log_path, read_events

_NUM_CLIPS = 4


def draw_figures(
    cfg: CfgNode, state: TrainState, loader: ClipLoader, device: torch.device
) -> list[Path]:
    """Draw curves.png and, if the method has such a figure, predictions.png in OUTPUT_DIR.

    A figure that can't be drawn is a warning: the run goes on to its test.

    Args:
        cfg: configuration; not modified.
        state: of the training, on the device.
        loader: of the split whose clips are drawn.
        device: of the model.

    Returns:
        The files that were written.
    """
    folder = Path(cfg.OUTPUT_DIR)
    curves, predictions = folder / "curves.png", folder / "predictions.png"
    events: list[Mapping[str, Any]] = []

    def draw_curves() -> None:
        events.extend(read_events(event_log_path(folder)))
        if not any(event["event"] in ("train", "epoch", "validation") for event in events):
            raise ValueError("stats.jsonl begins after the last epoch")
        method = find_method(cfg)
        panels = (*method.figures, *(MONITOR_PANELS if method.is_monitored else ()))
        training_curves(curves, events, panels, title=cfg.TASK or "training")

    def draw_clips() -> bool:
        title = predictions_title(events, state.epoch)
        return draw_predictions(cfg, state, loader, device, predictions, title)

    figures = {curves: draw_curves, predictions: draw_clips}
    return [path for path, draw in figures.items() if draw_or_warn(path, draw)]


def draw_predictions(
    cfg: CfgNode,
    state: TrainState,
    loader: ClipLoader,
    device: torch.device,
    path: Path,
    title: str,
) -> bool:
    """Draw frame, masked frame, target and prediction of clips from the whole split.

    The weights are those that a validation measures. Only the drawn clips are decoded.

    Args:
        cfg: configuration; not modified.
        state: of the training, on the device.
        loader: of the split.
        device: of the model.
        path: PNG file to write.
        title: of the panel.

    Returns:
        False if the method or its target has no such figure.

    Raises:
        ValueError: no clip can be decoded.
    """
    draw = find_method(cfg).draw
    if draw is None:
        return False
    batch = _spread_clips(cfg, loader, device)
    is_reversed = reverses_channels(cfg, "train")
    with state.averaged():
        drawings = draw(state.bare, state.task, batch, is_reversed)
    if drawings is None:
        return False
    pixels = batch.clips.flip(1) if is_reversed else batch.clips
    assert batch.index is not None
    names = file_names([loader.dataset.videos.path(row) for row in batch.index.tolist()])
    rows = []
    for clip, steps in enumerate(drawings):
        ratios = [float(drawing.mask.float().mean()) for drawing in steps]
        step = min(select_steps(ratios), key=lambda number: abs(ratios[number] - 0.5))
        frame = frame_of_step(pixels[clip], step, len(steps))
        name = names[clip] + _frame_text(pixels.shape[2], step, len(steps))
        rows.append(PanelRow(frame, [steps[step]], name=name))
    prediction_panel(path, rows, title=title)
    return True


def _frame_text(num_frames: int, step: int, num_steps: int) -> str:
    """Line that states with which frame of a clip a time step begins; empty for an image."""
    number = step * (num_frames // num_steps) + 1
    return f"\nframe {number} of {num_frames}" if num_frames > 1 else ""


def predictions_title(events: Sequence[Mapping[str, Any]], epoch: int) -> str:
    """Title with the epoch and the loss after it, that of the validation if there was one."""
    title = f"predictions of masked tokens after epoch {epoch}"
    losses = {e["event"]: e.get("loss") for e in events if e.get("epoch") == epoch}
    for kind, name in (("validation", "validation loss"), ("epoch", "training loss")):
        if isinstance(losses.get(kind), float):
            return f"{title}, {name} {losses[kind]:.4g}"
    return title


def _spread_clips(cfg: CfgNode, loader: ClipLoader, device: torch.device) -> ClipBatch:
    """Load a few clips from all over the list."""
    videos = loader.dataset.videos
    rows = spread_rows(len(videos), min(_NUM_CLIPS, len(videos)), videos.labels)
    batch = next(iter(loader.of_rows(rows).epoch(0))).to(device)
    if not len(batch):
        lost = batch.lost[0]
        raise ValueError(f"no drawn clip can be decoded, such as {lost.path}: {lost.reason}")
    if batch.plans is not None:  # from the training loader, if there is no validation split
        batch = crop_views(batch, build_device_crops(cfg))
    return batch


def spread_rows(
    num_rows: int, count: int, labels: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Select rows that are evenly spread over a list, of different classes as far as possible.

    Args:
        num_rows: of the list.
        count: rows to select, at most `num_rows`.
        labels: (num_rows,) class of each row; None if unknown.

    Returns:
        (count,) sorted; always the same for the same list.
    """
    rows = np.arange(num_rows)
    is_chosen = np.zeros(num_rows, bool)
    used: list[int] = []  # classes of the current round
    for number in range(count):
        place = (2 * number + 1) * num_rows // (2 * count)
        is_free = ~is_chosen
        if labels is not None:
            is_new = is_free & ~np.isin(labels, used)
            if is_new.any():
                is_free = is_new
            else:  # each class has had its turn
                used = []
        row = int(np.where(is_free, np.abs(rows - place), num_rows).argmin())
        is_chosen[row] = True
        if labels is not None:
            used.append(int(labels[row]))
    return is_chosen.nonzero()[0]


def select_steps(ratios: Sequence[float]) -> list[int]:
    """Select the time steps that show most of a mask.

    Args:
        ratios: share of each step that is masked.

    Returns:
        The steps of which a part is masked; if there are none, those that are masked as a whole;
        if nothing is masked, all.
    """
    numbers = range(len(ratios))
    for selected in (
        [number for number in numbers if 0 < ratios[number] < 1],
        [number for number in numbers if ratios[number] > 0],
    ):
        if selected:
            return selected
    return list(numbers)


def frame_of_step(clip: Tensor, step: int, num_steps: int) -> Tensor:
    """Return the first frame of a time step's tokens: (C, T, H, W) -> (H, W, C)."""
    return clip[:, step * (clip.shape[1] // num_steps)].permute(1, 2, 0).cpu()
