"""The one evaluation loop: any task, each video once over all processes, nothing replaced."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import torch
from torch import nn

from slowfast_maskfeat import distributed
from slowfast_maskfeat.clips.loader import ClipLoader
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.tasks.base import Evaluation, Evaluator, unwrap


@torch.no_grad()
def evaluate(
    model: nn.Module,
    task: Evaluator,
    loader: ClipLoader,
    *,
    num_views: int,
    chunk_size: int,
    device: torch.device,
    precision: torch.dtype | None = None,
    description: str = "evaluate",
    stream: TextIO | None = None,
) -> tuple[dict[str, Any], Evaluation]:
    """Run a model over a list.

    Args:
        model: on `device`; its training mode is put back afterwards.
        task: says how to judge.
        loader: of this process's share of the list.
        num_views: clips that each video gives.
        chunk_size: clips in one forward pass.
        device: of the model.
        precision: of autocast; None for none.
        description: for the progress bar.
        stream: that it is drawn on; None for stderr.

    Returns:
        The figures, with how many videos the list promises (`num_expected`), how many files there
        were (`num_found`) and how many could be decoded (`num_decoded`), those lost and the seconds
        taken; and the evaluation that they come from.

    Raises:
        ValueError: not one video could be decoded; it names the list, and why the first was lost.
    """
    start = time.perf_counter()
    bare = unwrap(model)  # nothing to synchronize without a backward pass
    evaluation = task.evaluation(loader.dataset.videos, num_views)
    progress = Progress(len(loader), description, stream) if distributed.is_main() else None
    autocast = torch.autocast(device.type, precision, enabled=precision is not None)
    modules = [module for module in (bare, task) if isinstance(module, nn.Module)]
    with autocast, _evaluating(modules):
        for batch in loader.epoch(0):
            evaluation.lost.extend(batch.lost)
            for part in batch.split(chunk_size):
                evaluation.add(bare, part.to(device))
            if progress is not None:
                progress.update(1)
    if progress is not None:
        progress.close()
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


@contextmanager
def _evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Put modules into evaluation mode, and into the mode that each had before after it."""
    before = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, mode in zip(modules, before, strict=True):
            module.train(mode)
