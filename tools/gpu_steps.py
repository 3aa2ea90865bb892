"""Steps of training, for `gpu_report.py`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from benchmark_steps import PRECISIONS, make_batch, make_state, step_of
from gpu_records import STEPS, Record
from gpu_settings import FORMS, Setting, Training, attempt

from slowfast_maskfeat.backbones import ContrastiveModel
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.engine.utilization import Utilization, matrix_rate
from slowfast_maskfeat.runs.model_info import measure_model
from slowfast_maskfeat.targets.hog import HOGTarget

_HALVINGS = 2  # of a batch that does not fit


def measure_steps(training: Training, forms: Sequence[str], setting: Setting) -> Iterator[Record]:
    """Yield the step of a training in each form; half the batch if it does not fit."""
    cfg = training.read(setting)
    cost = measure_model(cfg).complexity.multiply_adds
    rate = matrix_rate(setting.device, PRECISIONS[setting.precision])
    for form in forms:
        for halving in range(_HALVINGS + 1):
            size = max(1, training.size(setting) >> halving)
            measure = partial(_measure_step, training, form, size, setting, cost, rate)
            record = attempt(STEPS, training.name, form, f"batch {size}", measure)
            yield record
            if "out of memory" not in record.error or size == 1:
                break


def _measure_step(
    training: Training, form: str, size: int, setting: Setting, cost: int, rate: float
) -> dict[str, float]:
    device = setting.device
    kind, pairs = FORMS[form]
    cfg = training.read(setting, pairs)
    batch = make_batch(cfg, size)
    if device.type == "cuda":
        batch = batch.pin_memory()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    state = make_state(cfg, kind, device)
    step = step_of(cfg, state, batch, device, setting.precision, kind)
    start = time.perf_counter()
    step(0)
    setting.synchronize()
    first = time.perf_counter() - start
    seconds = setting.seconds_of(step)
    values = {"batch": size, "seconds": seconds, "clips_per_second": size / seconds}
    values |= {"first_seconds": first, "matrix_tflops": rate / 1e12}
    if not isinstance(state.bare, ContrastiveModel):  # whose cost is counted for one view
        utilization = Utilization(multiply_adds=cost, matrix_rate=rate, num_processes=1)
        values |= utilization.figures(values["clips_per_second"])
    if device.type == "cuda":
        values["memory_gib"] = (torch.cuda.max_memory_allocated(device) - before) / 2**30
    share = _hog_seconds(state, batch, setting)
    if share is not None:
        values["hog_share"] = share / seconds
    return values


def _hog_seconds(state: TrainState, batch: ClipBatch, setting: Setting) -> float | None:
    """Seconds in which the HOG of a batch is computed; None without HOG."""
    targets = [target for target in state.task.modules() if isinstance(target, HOGTarget)]
    if not targets:
        return None
    clips: Any = batch.clips.to(setting.device)
    grids = state.bare.prediction_grids(clips.shape[2:])  # type: ignore[operator]
    together = list(zip(targets, grids, strict=True))
    return setting.seconds_of(
        lambda _: [target.encode(clips, grid) for target, grid in together], window=0.1
    )
