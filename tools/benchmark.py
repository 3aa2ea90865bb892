#!/usr/bin/env python3
"""Measures what the fast forms gain over the plain ones, and how near the loader is to decoding.

Four comparisons, each between things that take turns in one run, so that whatever else the machine
does meets both alike:

- step: a whole pre-training step (normalize, forward, HOG target, loss, backward, AdamW) against
  the same with explicit attention and textbook HOG (`plain_forms`, `plain_hog`), and the memory of
  both, each in a process of its own.
- hog: HOG of uint8 images alone, against its textbook form.
- loader: clips a second out of the pre-training loader, against bare decoding of the same frames.
- mae: a step of a masked autoencoder, whose encoder sees the visible quarter of the tokens, against
  the same model whose encoder is given all of them; and the memory of both.

Runs on the CPU, and on the GPU too where there is one. Prints ratios and judges nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from benchmark_report import Row, Table, as_json, describe_machine, print_table, take_turns
from benchmark_video import KEY_FRAME_DISTANCE, decode_by_hand, write_videos
from fvcore.common.config import CfgNode
from plain_forms import encode_all, make_plain
from plain_hog import plain_hog
from torch import Tensor

from slowfast_maskfeat.builders.data import build_loader
from slowfast_maskfeat.builders.masks import build_mask_sampler
from slowfast_maskfeat.builders.model import build_model
from slowfast_maskfeat.builders.optimizer import build_optimizer
from slowfast_maskfeat.builders.task import build_task
from slowfast_maskfeat.clips import ClipLoader, RandomView
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.clips.dataset import ClipDataset, SampleKey
from slowfast_maskfeat.clips.views import Generators, ViewClips, ViewKind
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.datasets import OpenedRow
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.engine.train import TrainSettings, train_step
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets.hog import HOGTarget, hog
from slowfast_maskfeat.tasks import PretrainTask
from slowfast_maskfeat.videos.decode import open_video

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs/masked_ssl/k400_MVITv2_S_16x4_MaskFeat_PT.yaml"
QUICK_CONFIG = ROOT / "configs/demo/pretrain.yaml"
MAE_CONFIG = ROOT / "configs/masked_ssl/in1k_VIT_B_MAE_PT.yaml"
QUICK_MAE_CONFIG = ROOT / "configs/demo/image_mae.yaml"
SECTIONS = ("step", "hog", "loader", "mae")
FAST, PLAIN = "fast", "plain"
VISIBLE, ALL = "visible tokens", "all tokens"  # that the encoder of an autoencoder is given
# What is compared in the sections of steps, and clips to one of --batch: images have few tokens.
FORMS = {"step": (FAST, PLAIN), "mae": (VISIBLE, ALL)}
CLIPS = {"step": 1, "mae": 8}
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
MIB = 2**20


# --- the pre-training step ----------------------------------------------------------------------


class PlainHOGTarget(HOGTarget):
    """The same target by the textbook form."""

    @torch.no_grad()
    def encode(self, clips: Tensor, grid: Grid) -> Tensor:
        """As `HOGTarget.encode`."""
        frames = clips[:, :, :: self.token_size[0]].transpose(1, 2).flatten(0, 1)
        cells = plain_hog(frames, bins=self.bins, cell=self.cell, window=self.window)
        rows, columns = cells.shape[3] // grid.h, cells.shape[4] // grid.w
        cells = cells.view(*cells.shape[:3], grid.h, rows, grid.w, columns)
        tokens = cells.permute(0, 3, 5, 1, 2, 4, 6)
        return tokens.reshape(len(clips), grid.num_tokens, self.dim)


def make_state(cfg: CfgNode, form: str, device: torch.device) -> TrainState:
    """Model, task and optimizer as a run has them, in one of the `FORMS`."""
    torch.manual_seed(0)
    model = build_model(cfg).to(device).train()
    task = build_task(cfg)
    assert isinstance(task, PretrainTask), "a configuration of pre-training is wanted"
    if form == ALL:
        encode_all(model)
    if form == PLAIN:
        make_plain(model, attention=True)
        for target in task.targets:
            target.__class__ = PlainHOGTarget
    task.to(device)
    stepper = GradientStep(build_optimizer(cfg, model), clip_l2norm=cfg.SOLVER.CLIP_GRAD_L2NORM)
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    return TrainState(model=model, task=task, stepper=stepper, scaler=scaler)


def make_batch(cfg: CfgNode, size: int) -> ClipBatch:
    """Random clips as the loader gives them, with masks."""
    generator = np.random.default_rng(0)
    side = cfg.DATA.TRAIN_CROP_SIZE
    shape = (size, cfg.DATA.NUM_FRAMES, side, side, 3)
    clips = torch.from_numpy(generator.integers(0, 256, shape, dtype=np.uint8))
    sampler = build_mask_sampler(cfg)
    mask = torch.stack([sampler(generator) for _ in range(size)])
    return ClipBatch(clips.permute(0, 4, 1, 2, 3), mask=mask)


def make_step(
    cfg: CfgNode, form: str, batch: ClipBatch, device: torch.device, precision: str
) -> Callable[[int], object]:
    """A function that makes one step of training."""
    state = make_state(cfg, form, device)
    settings = TrainSettings(
        max_epoch=1,
        learning_rate=lambda _: cfg.SOLVER.BASE_LR,
        precision=PRECISIONS[precision],
        folder=Path(),
    )
    return lambda _: train_step(state, batch, settings, device)


def measure_step(
    options: argparse.Namespace, section: str, device: torch.device, precision: str
) -> list[Table]:
    """Time and memory of the step in both forms of a section."""
    file = config_of(options, section)
    size = options.batch if device.type == "cpu" else options.gpu_batch
    size *= CLIPS[section]
    what = f"{file.stem}, one step, batch {size}, {precision}, {device.type}"
    memory = [
        Row(form, "MiB", [memory_in_a_child(file, form, device, precision, size)])
        for form in FORMS[section]
    ]
    cfg = read_config(file)
    batch = make_batch(cfg, size)
    forms = {form: make_step(cfg, form, batch, device, precision) for form in FORMS[section]}
    rows = take_turns(forms, options.repeats or 5, device)
    return [
        Table(section, f"{what}: time", list(rows.values())),
        Table(section, f"{what}: peak memory of model, optimizer and step", memory),
    ]


def memory_in_a_child(
    config: Path, form: str, device: torch.device, precision: str, size: int
) -> float:
    """Peak memory in MiB of a process that does nothing but two steps."""
    request = json.dumps([form, device.type, precision, size])
    command = [sys.executable, __file__, "--config", str(config), "--child", request]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(result.stdout.splitlines()[-1])


def print_memory(options: argparse.Namespace) -> None:
    """What the child process does: the second step finds the optimizer's moments in place."""
    form, kind, precision, size = json.loads(options.child)
    device = torch.device(kind)
    cfg = read_config(options.config)
    batch = make_batch(cfg, size)
    before = 0 if kind == "cuda" else _resident("VmRSS")
    step = make_step(cfg, form, batch, device, precision)
    for number in range(2):
        step(number)
    peak = torch.cuda.max_memory_allocated(device) if kind == "cuda" else _resident("VmHWM")
    print((peak - before) / MIB)


def _resident(name: str) -> int:
    """Resident memory of this process in bytes, "VmRSS" for now or "VmHWM" for its peak.

    (`getrusage` would count what the parent had before it became this program.)
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {name}: memory is measured on Linux only")


# --- HOG ----------------------------------------------------------------------------------------


def measure_hog(options: argparse.Namespace, device: torch.device) -> Table:
    """HOG of uint8 images in both forms."""
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
    """Views that note which frames are asked for.

    Attributes:
        view: what draws them.
        wanted: (path, indices) of each clip.
    """

    view: RandomView
    wanted: list[tuple[str, np.ndarray]] = field(default_factory=list)
    reach: ClassVar[float] = 0.0

    @property
    def kinds(self) -> tuple[ViewKind, ...]:
        """As `RandomView.kinds`."""
        return self.view.kinds

    def load(self, row: OpenedRow, generators: Generators) -> tuple[ViewClips, ...]:
        """One empty clip."""
        indices = self.view.temporal.draw(row.video, self.view.num_frames, generators(0))
        self.wanted.append((row.video.path, indices))
        (kind,) = self.kinds
        return (ViewClips(torch.empty((1, *kind.clip_shape, 3), dtype=torch.uint8)),)


def frames_of_epoch(loader: ClipLoader, epoch: int) -> list[tuple[str, np.ndarray]]:
    """(path, indices) of every clip of an epoch."""
    dataset = loader.dataset
    assert isinstance(dataset.views, RandomView)
    recorder = FrameRecorder(dataset.views)
    spy = ClipDataset(dataset.videos, recorder, seed=dataset.seed, backend=dataset.backend)
    for row in range(len(spy)):
        spy[SampleKey(epoch, row)]
    return recorder.wanted


def measure_loader(options: argparse.Namespace, cfg: CfgNode, folder: Path) -> Table:
    """The loader, in this process and in a worker, against bare decoding of the same frames."""
    videos = write_videos(
        folder,
        num_videos=2 if options.quick else 8,
        num_frames=30 if options.quick else 300,
        size=(48, 64) if options.quick else (256, 340),
    )
    sizes = statistics.mean(path.stat().st_size for path in videos) / 1024
    loaders = [loader_of(cfg, folder, len(videos), workers) for workers in (0, 1)]
    repeats = options.repeats or 9
    # Every round has frames of its own, the same for all forms.
    plans = [frames_of_epoch(loaders[0], epoch) for epoch in range(repeats + 1)]
    dataset = loaders[0].dataset

    def decode(number: int) -> None:
        for path, indices in plans[number]:
            with open_video(path, dataset.backend, num_threads=dataset.num_threads) as video:
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
    rows["loader, one worker process"].cpu.clear()  # the worker's time is not this process's
    for row in rows.values():
        row.per = len(videos)
    with open_video(videos[0], dataset.backend) as video:
        time_, height, width = dataset.views.kinds[0].clip_shape
        stored_height, stored_width = video.frames([0]).shape[1:3]
        title = (
            f"loader, clips of {time_}x{height}x{width} at every {cfg.DATA.SAMPLING_RATE}th frame, "
            f"{len(videos)} a round, from H.264 of {stored_width}x{stored_height}, "
            f"{video.duration:.0f} s, {video.fps:.0f} frames/s, {sizes:.0f} KiB, a key frame "
            f"every {KEY_FRAME_DISTANCE}; decoder {video.backend}, {dataset.num_threads} thread"
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
    """The training loader of a configuration, on the videos of `write_videos`.

    Args:
        cfg: configuration; it is only read.
        folder: of the videos.
        batch_size: how many there are; a batch is a quarter of them.
        num_workers: loading processes.
        decoder: instead of the configuration's.
        on_device: RandAugment and resize are left to the device (AUG.ON_DEVICE).
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
    """Take all items."""
    for _ in items:
        pass


# --- the command -------------------------------------------------------------------------------


def read_config(file: Path) -> CfgNode:
    """The configuration, whose NUM_GPUS is left to this program."""
    return load_config([str(file)], ["NUM_GPUS", "0"])


def config_of(options: argparse.Namespace, section: str) -> Path:
    """The file whose steps a section takes."""
    if section == "mae":
        return QUICK_MAE_CONFIG if options.quick else MAE_CONFIG
    return Path(options.config)


def measure(options: argparse.Namespace, cfg: CfgNode) -> Iterable[Table]:
    """Every comparison that was asked for, on every device."""
    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices.append(torch.device("cuda"))
    if "hog" in options.only:
        for device in devices:
            yield measure_hog(options, device)
    if "loader" in options.only:
        with tempfile.TemporaryDirectory() as folder:
            yield measure_loader(options, cfg, Path(folder))
    for section in FORMS:
        if section in options.only:
            yield from measure_step(options, section, devices[0], "float32")
            for device in devices[1:]:
                for precision in PRECISIONS:
                    yield from measure_step(options, section, device, precision)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--repeats", type=int, default=0, help="timed rounds of each comparison")
    parser.add_argument("--batch", type=int, default=2, help="clips of a step on the CPU")
    parser.add_argument("--gpu-batch", type=int, default=16, help="clips of a step on the GPU")
    parser.add_argument("--config", type=Path, help=f"YAML file (default: {CONFIG.name})")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--json", type=Path, help="file that gets all measured values")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.config = options.config or (QUICK_CONFIG if options.quick else CONFIG)
    if options.quick:
        options.repeats = options.repeats or 1
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit code."""
    options = parse_arguments(arguments)
    if options.child:
        print_memory(options)
        return 0
    machine = describe_machine()
    for name, value in machine.items():
        print(f"{name:<14}{value}")
    cfg = read_config(options.config)
    tables = []
    for table in measure(options, cfg):
        print_table(table)
        tables.append(table)
    print(
        "\nx: how many times as long, or as much, the last row of a table takes; "
        "ratio: median of the rounds' ratios."
    )
    if options.json:
        options.json.write_text(as_json(machine, tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
