"""Evaluation loop of all tasks: each video once over all processes, none replaced."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from slowfast_maskfeat import distributed
from slowfast_maskfeat.cli import StoppedError
from slowfast_maskfeat.clips.loader import ClipLoader
from slowfast_maskfeat.engine.stop_signals import StopSignals
from slowfast_maskfeat.frozen import evaluating
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.tasks.base import Evaluation, Evaluator, unwrap


@torch.no_grad()
def evaluate(
    model: nn.Module,
    task: Evaluator,
    loader: ClipLoader,
    *,
    signals: StopSignals,
    num_views: int,
    chunk_size: int,
    device: torch.device,
    precision: torch.dtype | None = None,
    description: str = "evaluate",
) -> tuple[dict[str, Any], Evaluation]:
    """Evaluate a model on a split.

    Args:
        model: on `device`; its training mode is restored afterwards.
        task: computes the metrics.
        loader: of this process's share of the split.
        signals: end the evaluation after the current batch.
        num_views: clips per video.
        chunk_size: clips per forward pass.
        device: of the model.
        precision: of autocast; None disables autocast.
        description: label of the progress bar.

    Returns:
        The metrics, with the number of videos listed (`num_expected`), of those whose file exists
        (`num_found`) and of those decoded (`num_decoded`), the lost videos (`lost`) and the
        duration (`seconds`); and the evaluation that they come from.

    Raises:
        ValueError: no video could be decoded; the message names the annotation file and the reason
            for the first video.
        StoppedError: after a signal, in every process.
    """
    start = time.perf_counter()
    bare = unwrap(model)  # without a backward pass there is nothing to synchronize
    evaluation = task.evaluation(loader.dataset.videos, num_views)
    progress = Progress(len(loader), description) if distributed.is_main() else None
    autocast = torch.autocast(device.type, precision, enabled=precision is not None)
    modules = [module for module in (bare, task) if isinstance(module, nn.Module)]
    with autocast, evaluating(*modules):
        for batch in loader.epoch(0):
            evaluation.lost.extend(batch.lost)
            for part in batch.split(chunk_size):
                evaluation.add(bare, part.to(device))
            if progress is not None:
                progress.update(1)
            if signals.caught:
                break
    if progress is not None:
        progress.close()
    signal = signals.agreed()
    if signal:
        raise StoppedError(signal, f"{description!r} is not finished: run the same command again")
    evaluation.merge(distributed.all_reduce)
    everyone = distributed.gather_objects(evaluation.lost)
    lost = sorted({video for mine in everyone for video in mine})
    if lost and len(lost) == len(loader.dataset):
        raise ValueError(
            f"{loader.dataset.videos.source}: none of its {len(lost)} videos could be decoded "
            f"(DATA.PATH_PREFIX, DATA.PATH_TO_DATA_DIR); the first, {lost[0].path}: "
            f"{lost[0].reason}"
        )
    results = evaluation.results()
    results["num_expected"] = len(loader.dataset)
    results["num_found"] = len(loader.dataset) - sum(video.is_missing for video in lost)
    results["num_decoded"] = len(loader.dataset) - len(lost)
    results["lost"] = [{"path": video.path, "reason": video.reason} for video in lost]
    results["seconds"] = round(time.perf_counter() - start, 3)
    return results, evaluation
