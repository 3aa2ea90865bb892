"""Measurements of `gpu_report.py`: steps of training, operators side by side, and loading."""

from __future__ import annotations

import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from benchmark import QUICK_CONFIG, QUICK_MAE_CONFIG, ROOT, read_config
from benchmark_steps import FAST, PRECISIONS, make_batch, make_state, make_step, step_of
from benchmark_steps import PLAIN as PLAIN_STEP
from benchmark_video import write_videos
from fvcore.common.config import CfgNode
from gpu_operators import measure_operator, operators
from gpu_records import (
    B_IBOT,
    COMPILED,
    COMPILED_KERNELS,
    EAGER,
    END_TO_END,
    KERNELS,
    L_AUTOENCODER,
    L_PRETRAINING,
    LOADING,
    NUM_CORES,
    OPERATORS,
    PLAIN,
    S_FINETUNING,
    S_PRETRAINING,
    STEPS,
    Record,
)

from slowfast_maskfeat.backbones import ContrastiveModel
from slowfast_maskfeat.builders.backbones import configured_clip_size
from slowfast_maskfeat.builders.data import build_loader
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.engine.utilization import Utilization, matrix_rate
from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.runs.model_info import measure_model
from slowfast_maskfeat.runs.run import run
from slowfast_maskfeat.targets.hog import HOGTarget

COMPILE = ("TRAIN.COMPILE", "True")
_TRITON = ("MODEL.KERNELS", "triton")
# Form -> that of `benchmark_steps`, and its keys.
FORMS: dict[str, tuple[str, tuple[str, ...]]] = {
    EAGER: (FAST, ()),
    PLAIN: (PLAIN_STEP, ()),
    KERNELS: (FAST, _TRITON),
    COMPILED: (FAST, COMPILE),
    COMPILED_KERNELS: (FAST, (*COMPILE, *_TRITON)),
}
_HALVINGS = 2  # of a batch that does not fit
_MASKED_SSL = ROOT / "configs/masked_ssl"
_TINY_MVIT = (  # kernels that are interpreted on a CPU take a minute for a larger one
    *("DATA.NUM_FRAMES", "2", "DATA.TRAIN_CROP_SIZE", "16", "MVIT.DEPTH", "1"),
    *("MVIT.EMBED_DIM", "8", "MVIT.POOL_Q_STRIDE", "[[0, 1, 1, 1]]"),
)
_TINY_MASKFEAT = (*_TINY_MVIT, "MASK.PRETRAIN_DEPTH", "[0]")
_TINY_IBOT = (
    *("DATA.TRAIN_CROP_SIZE", "32", "DATA.SSL_LOCAL_CROP_SIZE", "16", "DATA.SSL_LOCAL_VIEWS", "2"),
    *("MVIT.DEPTH", "1", "MVIT.EMBED_DIM", "24", "MVIT.NUM_HEADS", "2", "CONTRASTIVE.DIM", "16"),
    *("MVIT.PATCH_KERNEL", "[8, 8]", "MVIT.PATCH_STRIDE", "[8, 8]"),
)


@dataclass(frozen=True)
class Setting:
    """Where and how long to measure.

    Attributes:
        device: Device of the steps.
        quick: Tiny sizes, as a smoke test.
    """

    device: torch.device
    quick: bool = False

    @property
    def precision(self) -> str:
        """bfloat16; on a CPU, where few have fast products in it, float32."""
        return "float32" if self.device.type == "cpu" else "bfloat16"

    @property
    def pairs(self) -> list[str]:
        """Keys of all configurations."""
        return ["TRAIN.PRECISION", "float32" if self.precision == "float32" else "bf16"]

    @property
    def synchronize(self) -> Callable[[], None]:
        """Waits for the device."""
        if self.device.type == "cpu":
            return lambda: None
        return partial(torch.cuda.synchronize, self.device)

    def seconds_of(self, call: Callable[[int], object], *, window: float = 0.4) -> float:
        """Seconds of a call: the median of windows of calls that are not waited for one by one.

        Args:
            call: Function of the number of the call.
            window: Seconds of a window, about.
        """
        if self.quick:
            return self._window(call, 1)
        for _ in range(2):  # the first round warms up
            lasted = self._window(call, 3)
        num_calls = max(1, round(window / max(lasted, 1e-7)))
        return statistics.median(self._window(call, num_calls) for _ in range(5))

    def _window(self, call: Callable[[int], object], num_calls: int) -> float:
        self.synchronize()
        start = time.perf_counter()
        for number in range(num_calls):
            call(number)
        self.synchronize()
        return (time.perf_counter() - start) / num_calls


@dataclass(frozen=True)
class Training:
    """A training whose step is measured.

    Attributes:
        name: Row of the table.
        config: YAML file.
        batch: Samples of a step.
        quick_config: YAML file of tiny sizes.
        quick_pairs: Keys that make it tiny.
    """

    name: str
    config: Path
    batch: int
    quick_config: Path
    quick_pairs: tuple[str, ...] = ()

    def read(self, setting: Setting, pairs: Sequence[str] = ()) -> CfgNode:
        """Configuration with further keys."""
        file, tiny = (
            (self.config, ()) if not setting.quick else (self.quick_config, self.quick_pairs)
        )
        return read_config(file, [*tiny, *setting.pairs, *pairs])

    def size(self, setting: Setting) -> int:
        """Samples of a step."""
        return 2 if setting.quick else self.batch


def _published(name: str) -> Path:
    return _MASKED_SSL / f"{name}.yaml"


_S = Training(
    S_PRETRAINING, _published("k400_MVITv2_S_16x4_MaskFeat_PT"), 32, QUICK_CONFIG, _TINY_MASKFEAT
)
_L = Training(
    L_PRETRAINING, _published("k400_MVITv2_L_16x4_MaskFeat_PT"), 8, QUICK_CONFIG, _TINY_MASKFEAT
)
_FINETUNING = Training(
    S_FINETUNING,
    _published("k400_MVITv2_S_16x4_FT"),
    32,
    QUICK_CONFIG.with_name("finetune.yaml"),
    ("MODEL.NUM_CLASSES", "3", *_TINY_MVIT),
)
_MAE = Training(L_AUTOENCODER, _published("k400_VIT_L_16x4_MAE_PT"), 64, QUICK_MAE_CONFIG)
_IBOT = Training(
    B_IBOT, _published("in1k_VIT_B_iBOT_PT"), 32, _published("in1k_VIT_S_iBOT_PT"), _TINY_IBOT
)


# --- steps of training --------------------------------------------------------------------------


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


def attempt(
    table: str, row: str, form: str, setting: str, measure: Callable[[], Mapping[str, float]]
) -> Record:
    """Record of a measurement, or of the reason why it failed: that costs this row alone."""
    try:
        return Record(table, row, form, setting, measure())
    except torch.OutOfMemoryError:
        error = "out of memory"
    except Exception as failure:  # whatever torch, its compiler or the driver raises
        error = f"{type(failure).__name__}: {first_line(failure)}"
        if "out of memory" in str(failure):
            error = f"out of memory ({error})"
    finally:
        torch.compiler.reset()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return Record(table, row, form, setting, error=error)


# --- operators ----------------------------------------------------------------------------------


def measure_operators(setting: Setting) -> Iterator[Record]:
    """Yield pooling, attention and HOG of MViTv2-S in the plain, the fast and the kernels' form."""
    size = 2 if setting.quick else 16
    for form in (PLAIN, EAGER, KERNELS):
        kind, pairs = FORMS[form]
        cfg = _S.read(setting, pairs)
        try:
            state = make_state(cfg, kind, setting.device)
        except ValueError as error:  # the kernels do not run here
            for name in OPERATOR_NAMES:
                yield Record(OPERATORS, name, form, error=first_line(error))
            continue
        for operator in operators(state, size, configured_clip_size(cfg)):
            measure = partial(measure_operator, operator, kind, setting)
            yield attempt(OPERATORS, operator.name, form, operator.setting, measure)


# --- loading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loading:
    """A way of loading.

    Attributes:
        form: Its name.
        clips: Of each decoded video (AUG.NUM_SAMPLE).
        on_device: Whether the device crops (AUG.ON_DEVICE).
        decoder: DATA.DECODING_BACKEND.
    """

    form: str
    clips: int = 1
    on_device: bool = False
    decoder: str = "auto"


LOADER = "loader alone"
LOADINGS = (
    Loading("one clip of a video"),
    Loading("four clips of a video", 4),
    Loading("four clips of a video, cropped on the device", 4, True),
    Loading("four clips of a video, decoded on the device", 4, True, "torchcodec_cuda"),
)


def measure_loading(setting: Setting) -> Iterator[Record]:
    """Yield the loader alone, and trainings from end to end with their wait for data."""
    size = 4 if setting.quick else _S.batch
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
            batch = make_batch(_S.read(setting), size)
            step = make_step(_S.read(setting), FAST, batch, setting.device, setting.precision)
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


COMPUTE = "compute alone"


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
    file, tiny = (_S.quick_config, _S.quick_pairs) if setting.quick else (_S.config, ())
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
    lines = (Path(cfg.OUTPUT_DIR) / "stats.jsonl").read_text().splitlines()
    periods = [event for event in map(json.loads, lines) if event["event"] == "train"]
    periods = periods[len(periods) // 3 :]
    seconds = sum(period["seconds"] for period in periods)

    def mean(name: str) -> float:
        return sum(period[name] * period["seconds"] for period in periods) / seconds

    values = {"clips_per_second": mean("clips_per_second"), "data_wait": mean("data_wait")}
    values["clips_per_video"] = loading.clips
    if compute:
        values["of_compute"] = values["clips_per_second"] / compute[0]
    return values


# --- all of them --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """Measurements that a process of their own makes.

    Attributes:
        rows: (row, form) of the records, in their order.
        measure: Yields the records.
    """

    rows: Sequence[tuple[str, str]]
    measure: Callable[[Setting], Iterator[Record]]


def _section(training: Training, *forms: str) -> Section:
    rows = [(training.name, form) for form in forms]
    return Section(rows, partial(measure_steps, training, forms))


OPERATOR_NAMES = (
    "pooling of queries, first block",
    "pooling of keys, first block",
    "attention, first block",
    "attention, last block",
    "HOG",
)
SECTIONS: dict[str, Section] = {
    "s": _section(_S, EAGER, PLAIN, KERNELS),
    "operators": Section(
        [(name, form) for form in (PLAIN, EAGER, KERNELS) for name in OPERATOR_NAMES],
        measure_operators,
    ),
    "loading": Section(
        [
            (COMPUTE, EAGER),
            *((row, loading.form) for loading in LOADINGS for row in (LOADER, END_TO_END)),
        ],
        measure_loading,
    ),
    "mae": _section(_MAE, EAGER, PLAIN),
    "finetuning": _section(_FINETUNING, EAGER, PLAIN, KERNELS),
    "l": _section(_L, EAGER, PLAIN, KERNELS),
    "ibot": _section(_IBOT, EAGER, PLAIN),
    "s-compiled": _section(_S, COMPILED, COMPILED_KERNELS),
    "mae-compiled": _section(_MAE, COMPILED),
    "finetuning-compiled": _section(_FINETUNING, COMPILED),
    "ibot-compiled": _section(_IBOT, COMPILED),
    "l-compiled": _section(_L, COMPILED),
}
"""By name, the most important ones first: time may not suffice for all."""
