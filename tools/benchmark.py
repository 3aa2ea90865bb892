#!/usr/bin/env python3
"""Measure the fast implementations against plain ones, and clip loading against bare decoding.

There are seven comparisons, and a count. The compared variants take turns within one run, so that
other load on the machine affects them equally:

- step: a full pre-training step (normalize, forward, HOG target, loss, backward, AdamW) against the
  same step with explicit attention and textbook HOG (`plain_forms`, `plain_hog`), and the peak
  memory of both, each measured in its own process.
- hog: HOG of uint8 images, against its textbook form.
- loader: clips per second of the pre-training loader, against bare decoding of the same frames.
- mae: a step of a masked autoencoder, whose encoder processes the visible quarter of the tokens,
  against the same model whose encoder processes all tokens; and the peak memory of both.
- targets: pre-training steps that differ in the target alone, against HOG; and the peak memory of
  each. The frozen networks have random weights.
- precision: a pre-training step with TRAIN.PRECISION bf16, against the same step with float32.
- latency: a classifier of one clip by torch, compiled by torch, and as ONNX in onnxruntime.
- traffic: no comparison, but launches and bytes of a training step in bfloat16 on a GPU, counted by
  kind of operator; no GPU is needed.

They run on the CPU, and on the GPU too if there is one. Ratios and counts are printed, without a
pass or fail.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from benchmark_latency import CONFIGS as LATENCY_CONFIGS
from benchmark_latency import QUICK_CONFIGS as QUICK_LATENCY_CONFIGS
from benchmark_latency import measure_latency
from benchmark_report import (
    Counts,
    Row,
    Table,
    as_json,
    describe_machine,
    print_counts,
    print_table,
    take_turns,
)
from benchmark_steps import (
    ALL,
    FAST,
    PLAIN,
    PRECISIONS,
    VISIBLE,
    count_traffic,
    make_batch,
    make_step,
)
from benchmark_targets import TARGETS, Pairs, target_pairs
from benchmark_video import KEY_FRAME_DISTANCE, decode_by_hand, write_videos
from fvcore.common.config import CfgNode
from plain_hog import plain_hog

from slowfast_maskfeat.builders.data import build_loader
from slowfast_maskfeat.builders.precision import autocast_precision
from slowfast_maskfeat.cli import print_written
from slowfast_maskfeat.clips import ClipLoader, RandomView
from slowfast_maskfeat.clips.dataset import ClipDataset, SampleKey
from slowfast_maskfeat.clips.views import Generators, ViewClips, ViewKind
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.datasets import OpenedRow
from slowfast_maskfeat.targets.hog import hog
from slowfast_maskfeat.videos.decode import open_file

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs/masked_ssl/k400_MVITv2_S_16x4_MaskFeat_PT.yaml"
QUICK_CONFIG = ROOT / "configs/demo/pretrain.yaml"
MAE_CONFIG = ROOT / "configs/masked_ssl/in1k_VIT_B_MAE_PT.yaml"
QUICK_MAE_CONFIG = ROOT / "configs/demo/image_mae.yaml"
TARGETS_CONFIG = ROOT / "configs/masked_ssl/in1k_VIT_B_MaskFeat_PT.yaml"
QUICK_TARGETS_CONFIG = ROOT / "configs/demo/image_hog.yaml"
SECTIONS = ("step", "hog", "loader", "mae", "targets", "precision", "latency", "traffic")
# Compared variants of a step, and clips per clip of --batch: images have few tokens.
FORMS = {"step": (FAST, PLAIN), "mae": (VISIBLE, ALL), "targets": TARGETS}
CLIPS = {"step": 1, "mae": 8, "targets": 4}
MIB = 2**20


# --- the pre-training step ----------------------------------------------------------------------


def measure_step(
    options: argparse.Namespace, section: str, device: torch.device, precision: str
) -> list[Table]:
    """Time and peak memory of the step in all forms of a section."""
    with tempfile.TemporaryDirectory() as folder:
        is_of_targets = section == "targets"
        pairs = target_pairs(Path(folder), quick=options.quick) if is_of_targets else {}
        return _measure_forms(options, section, device, precision, pairs)


def _measure_forms(
    options: argparse.Namespace,
    section: str,
    device: torch.device,
    precision: str,
    pairs: Mapping[str, Pairs],
) -> list[Table]:
    """As `measure_step`, with the keys and values that a form has for itself."""
    file = config_of(options, section)
    size = options.batch if device.type == "cpu" else options.gpu_batch
    size *= CLIPS[section]
    setting = f"{file.stem}, one step, batch {size}, {precision}, {device.type}"
    memory = [
        Row(form, "MiB", [memory_of_child(file, form, device, precision, size, pairs.get(form))])
        for form in FORMS[section]
    ]
    batch = make_batch(read_config(file), size)
    forms = {
        form: make_step(read_config(file, pairs.get(form)), form, batch, device, precision)
        for form in FORMS[section]
    }
    rows = take_turns(forms, options.repeats or 5, device)
    is_cost = section == "targets"
    return [
        Table(section, f"{setting}: time", list(rows.values()), is_cost),
        Table(section, f"{setting}: peak memory of model, optimizer and step", memory, is_cost),
    ]


def measure_precision(options: argparse.Namespace, device: torch.device) -> Table:
    """Time of the step with TRAIN.PRECISION bf16 and float32, as a run computes them there."""
    file = config_of(options, "precision")
    batch = make_batch(read_config(file), options.batch)
    steps = {}
    title = f"{file.stem}, one step, batch {options.batch}, {device.type}: time by TRAIN.PRECISION"
    for name in ("bf16", "float32"):  # the baseline is last
        cfg = read_config(file, ["TRAIN.PRECISION", name])
        is_narrow = autocast_precision(cfg, device) is not None
        steps[name] = make_step(cfg, FAST, batch, device, "bfloat16" if is_narrow else "float32")
        if name == "bf16" and not is_narrow:
            title += "; bf16 computes in float32 on this CPU"
    rows = take_turns(steps, options.repeats or 5, device)
    return Table("precision", title, list(rows.values()), is_cost=True)


def memory_of_child(
    config: Path,
    form: str,
    device: torch.device,
    precision: str,
    size: int,
    pairs: Pairs | None = None,
) -> float:
    """Peak memory in MiB of a separate process that only runs two steps."""
    request = json.dumps([form, device.type, precision, size, pairs])
    command = [sys.executable, __file__, "--config", str(config), "--child", request]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(result.stdout.splitlines()[-1])


def print_memory(options: argparse.Namespace) -> None:
    """Print the peak memory of two steps; the first one allocates the optimizer state."""
    form, kind, precision, size, pairs = json.loads(options.child)
    device = torch.device(kind)
    cfg = read_config(options.config, pairs)
    batch = make_batch(cfg, size)
    before = 0 if kind == "cuda" else _resident("VmRSS")
    step = make_step(cfg, form, batch, device, precision)
    for number in range(2):
        step(number)
    peak = torch.cuda.max_memory_allocated(device) if kind == "cuda" else _resident("VmHWM")
    print((peak - before) / MIB)


def _resident(name: str) -> int:
    """Resident memory of this process in bytes: current ("VmRSS") or peak ("VmHWM").

    `getrusage` would include the memory of the parent process before the exec.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {name}: memory is measured on Linux only")


# --- HOG ----------------------------------------------------------------------------------------


def measure_hog(options: argparse.Namespace, device: torch.device) -> Table:
    """Time of HOG of uint8 images in both forms."""
    shape = (2, 3, 32, 32) if options.quick else (16, 3, 224, 224)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    on_device = torch.from_numpy(images).to(device)
    rows = take_turns(
        {FAST: lambda _: hog(on_device), PLAIN: lambda _: plain_hog(on_device)},
        options.repeats or 21,
        device,
    )
    size = "x".join(map(str, shape))
    return Table("hog", f"HOG of {size} uint8, {device.type}", list(rows.values()))


# --- the loader ---------------------------------------------------------------------------------


@dataclass
class FrameRecorder:
    """View that records which frames are sampled, without decoding them.

    Attributes:
        view: view whose sampling is used.
        requested: (path, indices) of each clip.
    """

    view: RandomView
    requested: list[tuple[str, np.ndarray]] = field(default_factory=list)
    reach: ClassVar[float] = 0.0

    @property
    def kinds(self) -> tuple[ViewKind, ...]:
        """As `RandomView.kinds`."""
        return self.view.kinds

    def load(self, row: OpenedRow, generators: Generators) -> tuple[ViewClips, ...]:
        """One empty clip."""
        indices = self.view.temporal.draw(row.video, self.view.num_frames, generators(0))
        self.requested.append((row.video.path, indices))
        (kind,) = self.kinds
        return (ViewClips(torch.empty((1, *kind.clip_shape, 3), dtype=torch.uint8)),)


def frames_of_epoch(loader: ClipLoader, epoch: int) -> list[tuple[str, np.ndarray]]:
    """Paths and frame indices of all clips of an epoch."""
    dataset = loader.dataset
    assert isinstance(dataset.views, RandomView)
    recorder = FrameRecorder(dataset.views)
    recorded = ClipDataset(dataset.videos, recorder, seed=dataset.seed, decoding=dataset.decoding)
    for row in range(len(recorded)):
        recorded[SampleKey(epoch, row)]
    return recorder.requested


def measure_loader(options: argparse.Namespace, cfg: CfgNode, folder: Path) -> Table:
    """Time of the loader, in this process and in a worker, and of decoding the same frames."""
    videos = write_videos(
        folder,
        num_videos=2 if options.quick else 8,
        num_frames=30 if options.quick else 300,
        size=(48, 64) if options.quick else (256, 340),
    )
    sizes = statistics.mean(path.stat().st_size for path in videos) / 1024
    loaders = [loader_of(cfg, folder, len(videos), workers) for workers in (0, 1)]
    repeats = options.repeats or 9
    # Each round has its own frames, the same ones for all variants.
    plans = [frames_of_epoch(loaders[0], epoch) for epoch in range(repeats + 1)]
    dataset = loaders[0].dataset

    def decode(number: int) -> None:
        for path, indices in plans[number]:
            with open_file(path, dataset.decoding) as video:
                video.frames(indices)

    rows = take_turns(
        {
            "loader, one worker process": lambda number: exhaust(loaders[1].epoch(number)),
            "loader, in this process": lambda number: exhaust(loaders[0].epoch(number)),
            "PyAV by hand": lambda number: exhaust(
                decode_by_hand(path, indices) for path, indices in plans[number]
            ),
            "bare decoding": decode,
        },
        repeats,
        torch.device("cpu"),
    )
    rows["loader, one worker process"].cpu.clear()  # excludes the CPU time of the worker
    for row in rows.values():
        row.per = len(videos)
    with open_file(str(videos[0]), dataset.decoding) as video:
        time_, height, width = dataset.views.kinds[0].clip_shape
        stored_height, stored_width = video.frames([0]).shape[1:3]
        title = (
            f"loader, clips of {time_}x{height}x{width} at every {cfg.DATA.SAMPLING_RATE}th frame, "
            f"{len(videos)} a round, from H.264 of {stored_width}x{stored_height}, "
            f"{video.duration:.0f} s, {video.fps:.0f} frames/s, {sizes:.0f} KiB, a key frame "
            f"every {KEY_FRAME_DISTANCE}; decoder {video.backend}, "
            f"{dataset.decoding.num_threads} thread"
        )
    return Table("loader", title, list(rows.values()))


def loader_of(
    cfg: CfgNode,
    folder: Path,
    batch_size: int,
    num_workers: int,
    decoder: str = "",
    *,
    on_device: bool = False,
) -> ClipLoader:
    """Training loader of a configuration for the videos of `write_videos`.

    Args:
        cfg: configuration; it is not changed.
        folder: folder of the videos.
        batch_size: number of videos; a batch is a quarter of them.
        num_workers: number of worker processes.
        decoder: decoder; empty for that of the configuration.
        on_device: whether RandAugment and resizing are done on the device (AUG.ON_DEVICE).
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATA.DECODING_BACKEND = decoder or cfg.DATA.DECODING_BACKEND
    cfg.DATA.PATH_TO_DATA_DIR = str(folder)
    cfg.DATA.PATH_LABEL_SEPARATOR = ","
    cfg.DATA.PATH_PREFIX = ""
    cfg.TRAIN.BATCH_SIZE = max(batch_size // 4, 1)
    cfg.DATA_LOADER.NUM_WORKERS = num_workers
    cfg.AUG.ON_DEVICE = on_device
    return build_loader(cfg, "train")


def exhaust(items: Iterable[object]) -> None:
    """Iterate to the end."""
    for _ in items:
        pass


# --- the command -------------------------------------------------------------------------------


def read_config(file: Path, pairs: Pairs | None = None) -> CfgNode:
    """Load a configuration, with NUM_GPUS 0 because this program chooses the device."""
    return load_config([str(file)], ["NUM_GPUS", "0", *(pairs or [])])


def config_of(options: argparse.Namespace, section: str) -> Path:
    """YAML file whose training step a section measures."""
    if section == "mae":
        return QUICK_MAE_CONFIG if options.quick else MAE_CONFIG
    if section == "targets":
        return QUICK_TARGETS_CONFIG if options.quick else TARGETS_CONFIG
    return Path(options.config)


def measure(options: argparse.Namespace, cfg: CfgNode) -> Iterable[Table]:
    """Yield the tables of the selected comparisons, on every device."""
    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices.append(torch.device("cuda"))
    if "hog" in options.only:
        for device in devices:
            yield measure_hog(options, device)
    if "loader" in options.only:
        with tempfile.TemporaryDirectory() as folder:
            yield measure_loader(options, cfg, Path(folder))
    if "precision" in options.only:
        yield measure_precision(options, devices[0])
    if "latency" in options.only:
        for file in QUICK_LATENCY_CONFIGS if options.quick else LATENCY_CONFIGS:
            backend = "eager" if options.quick else "inductor"
            repeats = options.repeats or 11
            yield measure_latency(file, read_config(file), repeats, backend=backend)
    for section in FORMS:
        if section in options.only:
            yield from measure_step(options, section, devices[0], "float32")
            for device in devices[1:]:
                for precision in PRECISIONS:
                    yield from measure_step(options, section, device, precision)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--repeats", type=int, default=0, help="timed rounds per comparison")
    parser.add_argument("--batch", type=int, default=2, help="clips per step on the CPU")
    parser.add_argument("--gpu-batch", type=int, default=16, help="clips per step on the GPU")
    parser.add_argument("--config", "--cfg", type=Path, help=f"YAML file (default: {CONFIG.name})")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, as a smoke test")
    parser.add_argument("--json", type=Path, help="JSON file for all measured values")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.config = options.config or (QUICK_CONFIG if options.quick else CONFIG)
    if options.quick:
        options.repeats = options.repeats or 1
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparisons and print the tables; returns the exit code."""
    options = parse_arguments(arguments)
    if options.child:
        print_memory(options)
        return 0
    cfg = read_config(options.config)
    if "traffic" in options.only and not cfg.MASK.ENABLE:
        print(
            "benchmark.py: error: --config must be of masked pre-training (MASK.ENABLE True) with "
            f"--only traffic, got {options.config}",
            file=sys.stderr,
        )
        return 2
    machine = describe_machine()
    for name, value in machine.items():
        print(f"{name:<14}{value}")
    tables = []
    for table in measure(options, cfg):
        print_table(table)
        tables.append(table)
    counts: Counts = {}
    if "traffic" in options.only:
        counts = count_traffic(cfg, options.gpu_batch)
        title = f"traffic of a step of {options.config.name} in bfloat16, {options.gpu_batch} clips"
        print_counts(title, counts, options.gpu_batch)
    print(
        "\nx: time or memory of the last row of a table divided by that of this row; of targets "
        "and precisions, this row divided by the last; ratio: median over the rounds."
    )
    if options.json:
        options.json.write_text(as_json(machine, tables, counts))
        print_written([options.json])
    return 0


if __name__ == "__main__":
    sys.exit(main())
