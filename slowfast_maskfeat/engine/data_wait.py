"""The reason why a training waits for data, and the key that helps."""

from __future__ import annotations

import os

from slowfast_maskfeat.clips.stage_times import StageTimes

MUCH = 0.2
"""Share of a log period spent waiting for data above which the reason is reported."""

_IDLE = 0.5  # share of the workers' time below which loading itself is not the bound

_ADVICE = {
    "opening": "read shards (DATA.TRAIN_SHARDS) instead of single files",
    "decoding": "make the videos smaller (maskfeat data resize), cut several clips from one "
    "decoding (AUG.NUM_SAMPLE), or compare decoders (DATA.DECODING_BACKEND)",
    "augmentation": "move it to the device (AUG.ON_DEVICE True)",
}


def data_bound(
    times: StageTimes, seconds: float, *, num_workers: int, num_cores: int | None = None
) -> tuple[str, str]:
    """Find what bounds the loading of a log period in which the training waited for data.

    Args:
        times: of all samples of this process in the period.
        seconds: length of the period.
        num_workers: DATA_LOADER.NUM_WORKERS.
        num_cores: cores for the workers; None for those of this process.

    Returns:
        What bounds it, "workers", "disk", "opening", "decoding" or "augmentation", and one line
        that says so and which key helps.
    """
    if num_cores is None:
        has_affinity = hasattr(os, "sched_getaffinity")
        num_cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    total = max(times.total, 1e-9)
    if num_workers == 0:
        return "workers", "the training process loads by itself; set DATA_LOADER.NUM_WORKERS"
    if times.waiting > total / 2:
        return "disk", (
            f"the workers wait for the disk or network {times.waiting / total:.0%} of their time; "
            "copy the data to a local disk, or raise DATA_LOADER.NUM_WORKERS"
        )
    busy = total / (seconds * num_workers)
    if busy < _IDLE:
        return "workers", (
            f"the workers load only {busy:.0%} of the time; raise DATA_LOADER.PREFETCH_FACTOR"
        )
    stage = max(_ADVICE, key=lambda name: getattr(times, name))
    share = f"{stage} takes {getattr(times, stage) / total:.0%} of the workers' time"
    if num_workers < num_cores:
        return "workers", (
            f"{share}; raise DATA_LOADER.NUM_WORKERS, {num_workers} on {num_cores} cores"
        )
    return stage, f"{share}; {_ADVICE[stage]}"
