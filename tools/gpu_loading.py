"""Loading, alone and in a training from end to end, for `gpu_report.py`."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from benchmark_steps import FAST, make_batch, make_step
from benchmark_video import write_videos
from fvcore.common.config import CfgNode
from gpu_records import EAGER, END_TO_END, LOADING, NUM_CORES, Record
from gpu_settings import S, Setting, attempt

from slowfast_maskfeat.builders.data import build_loader
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.log import event_log_path, read_events
from slowfast_maskfeat.runs.run import run


@dataclass(frozen=True)
class Loading:
    """A way of loading.

    Attributes:
        form: its name.
        clips: of each decoded video (AUG.NUM_SAMPLE).
        on_device: whether the device crops (AUG.ON_DEVICE).
        decoder: DATA.DECODING_BACKEND.
    """

    form: str
    clips: int = 1
    on_device: bool = False
    decoder: str = "auto"


COMPUTE, LOADER = "compute alone", "loader alone"
LOADINGS = (
    Loading("one clip of a video"),
    Loading("four clips of a video", 4),
    Loading("four clips of a video, cropped on the device", 4, True),
    Loading("four clips of a video, decoded on the device", 4, True, "torchcodec_cuda"),
)


ROWS = (
    (COMPUTE, EAGER),
    *((row, loading.form) for loading in LOADINGS for row in (LOADER, END_TO_END)),
)


def measure_loading(setting: Setting) -> Iterator[Record]:
    """Yield the loader alone, and trainings from end to end with their wait for data."""
    size = 4 if setting.quick else S.batch
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = write_videos(
            folder,
            num_videos=2 if setting.quick else 8,
            num_frames=30 if setting.quick else 300,
            size=(48, 64) if setting.quick else (256, 340),
        )
        workers = 0 if setting.quick else min(NUM_CORES, _num_cores())
        compute: list[float] = []

        def of_compute_alone() -> dict[str, float]:
            batch = make_batch(S.read(setting), size)
            step = make_step(S.read(setting), FAST, batch, setting.device, setting.precision)
            compute.append(size / setting.seconds_of(step))
            return {"clips_per_second": compute[0]}

        yield attempt(LOADING, COMPUTE, EAGER, f"batch {size}", of_compute_alone)
        for loading in LOADINGS:
            num_steps = 4 if setting.quick else 100
            rows = num_steps * size // loading.clips
            listed = islice(cycle(videos), rows)
            (folder / "train.csv").write_text("".join(f"{path},0\n" for path in listed))
            num_workers = 0 if loading.decoder == "torchcodec_cuda" else workers
            text = f"{num_workers} workers, batch {size}"
            cfg = _config_of_run(setting, loading, folder, size, num_workers)
            yield attempt(LOADING, LOADER, loading.form, text, partial(_load, cfg, setting))
            end = partial(_train, cfg, loading, compute)
            yield attempt(LOADING, END_TO_END, loading.form, text, end)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _config_of_run(
    setting: Setting, loading: Loading, folder: Path, size: int, workers: int
) -> CfgNode:
    keys = {
        "DATA.PATH_TO_DATA_DIR": folder,
        "DATA.PATH_LABEL_SEPARATOR": ",",
        "DATA.DECODING_BACKEND": loading.decoder,
        "DATA_LOADER.NUM_WORKERS": workers,
        "AUG.NUM_SAMPLE": loading.clips,
        "AUG.ON_DEVICE": loading.on_device,
        "TRAIN.BATCH_SIZE": size // loading.clips,
        "SOLVER.MAX_EPOCH": 1,
        "SOLVER.WARMUP_EPOCHS": 0,
        "LOG_PERIOD": 1 if setting.quick else 10,
        "LOG_MODEL_INFO": False,
        "TRAIN.MONITOR": [],
        "NUM_GPUS": int(setting.device.type == "cuda"),
        "OUTPUT_DIR": folder / f"run {loading.form}",
    }
    file, tiny = (S.quick_config, S.quick_pairs) if setting.quick else (S.config, ())
    pairs = [str(word) for pair in keys.items() for word in pair]
    return load_config([str(file)], [*tiny, *setting.pairs, *pairs])


def _load(cfg: CfgNode, setting: Setting) -> dict[str, float]:
    """Clips per second of the loader, once its workers have started."""
    num_clips, start = 0, 0.0
    for number, batch in enumerate(build_loader(cfg, "train").epoch(0)):
        if number == 0:
            start = time.perf_counter()
            continue
        num_clips += len(batch)
        if not setting.quick and time.perf_counter() - start > 8:
            break
    return {"clips_per_second": num_clips / (time.perf_counter() - start)}


def _train(cfg: CfgNode, loading: Loading, compute: Sequence[float]) -> dict[str, float]:
    """Clips per second and wait of the training command, by its log, without its first third."""
    run(cfg)
    events = read_events(event_log_path(cfg.OUTPUT_DIR))
    periods = [event for event in events if event["event"] == "train"]
    periods = periods[len(periods) // 3 :]
    seconds = sum(period["seconds"] for period in periods)

    def mean(name: str) -> float:
        return sum(period[name] * period["seconds"] for period in periods) / seconds

    values = {"clips_per_second": mean("clips_per_second"), "data_wait": mean("data_wait")}
    values["clips_per_video"] = loading.clips
    if compute:
        values["of_compute"] = values["clips_per_second"] / compute[0]
    return values
