#!/usr/bin/env python3
"""Measure how fast clips are loaded, per decoder and number of workers, and where the time goes.

The videos are rendered for it: H.264 of 340x256, 10 s, 30 frames/s, a key frame every 250 frames.

- rates: clips per second of the training loader, against bare decoding of the same frames (the same
  loader, which opens and decodes the videos but discards the frames) with as many workers; the
  fraction of time that an accelerator would wait for data, if a step took `--step-seconds`; and the
  same loader with crops on the device (AUG.ON_DEVICE), against bare decoding.
- split: fraction of the time per clip in this process that each stage takes.
- shards (`--shards`): clips per second from tar shards, against the same clips from files.
- crop: clips per second that the device crops, of those that such a loader passes to it.
- views (`--only views`): the cost of 2 large and 4 small views of a sample with their colors,
  against the sum of the costs of its six crops alone, with decoding and from decoded frames.

The compared variants take turns within one run. On a machine with other load, only the ratios are
meaningful. They are printed, without a pass or fail.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from benchmark import CONFIG, QUICK_CONFIG, FrameRecorder, exhaust, loader_of, read_config
from benchmark_report import Row, describe_machine, take_turns
from benchmark_video import write_videos
from benchmark_views import measure_views, views_config, write_images
from fvcore.common.config import CfgNode

from slowfast_maskfeat.augment import transforms as transform
from slowfast_maskfeat.builders.augment import build_device_crops, num_clips_per_row
from slowfast_maskfeat.cli import print_written
from slowfast_maskfeat.clips import ClipLoader, RandomView, Views
from slowfast_maskfeat.clips.batch import collate
from slowfast_maskfeat.clips.dataset import SampleKey
from slowfast_maskfeat.clips.views import Generators, ViewClips
from slowfast_maskfeat.curation.write_shards import (
    PackedRow,
    ShardJob,
    cut_into_shards,
    member_names,
    write_shard,
)
from slowfast_maskfeat.datasets import OpenedRow, read_list
from slowfast_maskfeat.videos.decode import available_backends

# Stages of loading a clip; "seek" and "convert" are measured with PyAV only.
PARTS = ("open", "seek", "decode", "convert", "resize", "augment", "mask", "collate")
# Compared variants: bare decoding, the loader, and the loader with crops on the device.
BARE, LOADER, ON_DEVICE = FORMS = ("bare", "loader", "handed over")
# Keys of a record, in the order of the columns.
RATIOS = (
    "of_bare_cpu_time",
    "handed_over_of_bare_decoding",
    "scaling",
    "scaling_of_bare_scaling",
)


class BareDecoding(FrameRecorder):
    """View that decodes the frames of a clip and returns a single pixel."""

    def load(self, row: OpenedRow, generators: Generators) -> tuple[ViewClips, ...]:
        """(1, 1, 1, 1, C) uint8."""
        super().load(row, generators)
        _, indices = self.requested.pop()
        return (ViewClips(torch.from_numpy(row.video.frames(indices)[None, :1, :1, :1]).clone()),)


class Stopwatch:
    """Sums the seconds spent in functions, by name."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `function` so that its time is added to `name`."""

        def wrapper(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[name] += time.perf_counter() - start

        return wrapper

    @contextmanager
    def watching(self, loader: ClipLoader) -> Iterator[None]:
        """Time the stages of loading in this process while the context is active."""
        dataset = loader.dataset
        open_timed = self.timed("open", dataset.open)

        def open_watched(row: int) -> OpenedRow:
            opened: OpenedRow = open_timed(row)
            video: Any = opened.video
            video.frames = self.timed("frames", video.frames)
            return opened

        with ExitStack() as stack:
            patches = [
                patch.object(dataset, "open", open_watched),
                patch.object(dataset, "views", _TimedViews(dataset.views, self)),
                patch.object(transform, "resize", self.timed("resize", transform.resize)),
            ]
            timed = [sampler and self.timed("mask", sampler) for sampler in dataset.mask_samplers]
            patches.append(patch.object(dataset, "mask_samplers", timed))
            if dataset.decoding.backend == "pyav":
                from slowfast_maskfeat.videos import _pyav_backend as pyav

                decode, put = pyav.decode_packet, pyav._Clip.put
                patches.append(patch.object(pyav, "decode_packet", self.timed("decode", decode)))
                patches.append(patch.object(pyav._Clip, "put", self.timed("convert", put)))
            for part in patches:
                stack.enter_context(part)
            yield

    def split(self) -> dict[str, float]:
        """Fraction of the total time of each of `PARTS`.

        With decoders other than PyAV, "decode" includes seeking and conversion.
        """
        seconds = Counter(self.seconds)
        frames = seconds.pop("frames", 0.0)
        views = seconds.pop("views", 0.0)
        seconds["augment"] = views - frames - seconds["resize"]
        if "convert" in seconds:
            seconds["seek"] = frames - seconds["decode"] - seconds["convert"]
        else:
            seconds["decode"] = frames
        total = sum(seconds.values())
        return {part: seconds[part] / total for part in PARTS if part in seconds}


class _TimedViews:
    """Views whose time is added up."""

    def __init__(self, views: Views, stopwatch: Stopwatch) -> None:
        self.kinds, self.reach = views.kinds, views.reach
        self.load = stopwatch.timed("views", views.load)


def measure_split(cfg: CfgNode, folder: Path, num_videos: int, decoder: str) -> dict[str, float]:
    """Fraction of the time of each stage, for two epochs loaded in this process."""
    loader = loader_of(cfg, folder, num_videos, 0, decoder)
    stopwatch = Stopwatch()
    collate_timed = stopwatch.timed("collate", collate)
    exhaust(loader.epoch(0))
    with stopwatch.watching(loader):
        for epoch in (1, 2):
            keys = [SampleKey(epoch, row) for row in range(num_videos)]
            for start in range(0, num_videos, loader.batch_size):
                batch = keys[start : start + loader.batch_size]
                collate_timed([loader.dataset[key] for key in batch])
    return stopwatch.split()


def measure_rates(
    options: argparse.Namespace, cfg: CfgNode, folder: Path, num_videos: int
) -> dict[tuple[str, int, str], Row]:
    """Seconds per epoch by decoder, number of workers and variant."""
    forms: dict[str, Callable[[int], object]] = {}
    names: dict[str, tuple[str, int, str]] = {}
    for decoder in options.decoders:
        for num_workers in options.workers:
            for form in FORMS:
                loader = loader_of(
                    cfg, folder, num_videos, num_workers, decoder, on_device=form == ON_DEVICE
                )
                if form == BARE:
                    assert isinstance(loader.dataset.views, RandomView)
                    loader.dataset.views = BareDecoding(loader.dataset.views)
                    loader.dataset.mask_samplers = ()
                name = f"{decoder}, {num_workers} workers, {form}"
                names[name] = decoder, num_workers, form

                def load(number: int, loader: ClipLoader = loader) -> None:
                    exhaust(loader.epoch(number))

                forms[name] = load
    rows = take_turns(forms, options.repeats, torch.device("cpu"))
    return {names[name]: row for name, row in rows.items()}


def measure_shards(
    options: argparse.Namespace, cfg: CfgNode, folder: Path, num_videos: int
) -> list[dict[str, Any]]:
    """Speed of loading from shards against files, a record per decoder and number of workers."""
    packed = cfg.clone()
    packed.defrost()
    packed.DATA.TRAIN_SHARDS = str(pack(folder, num_videos))
    forms: dict[str, Callable[[int], object]] = {}
    for decoder in options.decoders:
        for num_workers in options.workers:
            for kind, config in (("files", cfg), ("shards", packed)):
                loader = loader_of(config, folder, num_videos, num_workers, decoder)

                def load(number: int, loader: ClipLoader = loader) -> None:
                    exhaust(loader.epoch(number))

                forms[f"{decoder}, {num_workers} workers, {kind}"] = load
    rows = take_turns(forms, options.repeats, torch.device("cpu"))
    records = []
    for decoder in options.decoders:
        for num_workers in options.workers:
            files, shards = (
                rows[f"{decoder}, {num_workers} workers, {kind}"].values
                for kind in ("files", "shards")
            )
            ratios = [one / other for one, other in zip(files, shards, strict=True)]
            record = {"decoder": decoder, "workers": num_workers}
            record["clips_per_second"] = num_videos / statistics.median(shards)
            records.append({**record, "of_files": statistics.median(ratios)})
    return records


def pack(folder: Path, num_videos: int) -> Path:
    """Write the videos to tar shards in the order of the annotation file; returns the folder."""
    videos = read_list(folder / "train.csv", separator=",")
    paths = [videos.path(row) for row in range(num_videos)]
    rows = [
        PackedRow(path, name, None, Path(path).stat().st_size)
        for path, name in zip(paths, member_names(paths, str(folder)), strict=True)
    ]
    output = folder / "shards"
    output.mkdir()
    shards = cut_into_shards(rows, max_count=max(1, num_videos // 4), max_bytes=1 << 40)
    for number, shard in enumerate(shards):
        failure = write_shard(ShardJob(str(output / f"train-{number:06d}.tar"), shard))
        assert failure is None, failure
    return output


def measure_device_crop(cfg: CfgNode, folder: Path, num_videos: int, repeats: int) -> Row:
    """Seconds that the device takes to crop the clips of a batch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loader = loader_of(cfg, folder, num_videos, 0, on_device=True)
    batch = next(iter(loader.epoch(0))).to(device)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.AUG.ON_DEVICE = True
    (crop,) = build_device_crops(cfg)
    name = f"crop on {device.type}"
    (row,) = take_turns({name: lambda _: crop(batch)}, repeats, device).values()
    row.per = len(batch)
    return row


def tabulate(
    rows: dict[tuple[str, int, str], Row], num_clips: int, batch: int, step_seconds: float
) -> list[dict[str, Any]]:
    """Rates and ratios, one record per decoder and number of workers.

    Args:
        rows: times from `measure_rates`.
        num_clips: clips per epoch.
        batch: clips per training step.
        step_seconds: seconds of an accelerator per step; 0 to leave out the waiting time.
    """
    records = []
    for decoder, num_workers in [(name, workers) for name, workers, form in rows if form == BARE]:
        ours, bare = rows[decoder, num_workers, LOADER], rows[decoder, num_workers, BARE]
        rate = num_clips / statistics.median(ours.values)
        record: dict[str, Any] = {
            "decoder": decoder,
            "workers": num_workers,
            "clips_per_second": rate,
            "of_bare_decoding": _of_bare(ours.values, bare.values),
        }
        if not num_workers:  # else the CPU time is spent in other processes
            record["of_bare_cpu_time"] = _of_bare(ours.cpu, bare.cpu)
        if (decoder, num_workers, ON_DEVICE) in rows:
            on_device = rows[decoder, num_workers, ON_DEVICE]
            record["handed_over_of_bare_decoding"] = _of_bare(on_device.values, bare.values)
        if num_workers > 1 and (decoder, 1, BARE) in rows:
            one, bare_one = rows[decoder, 1, LOADER], rows[decoder, 1, BARE]
            record["scaling"] = statistics.median(one.values) / statistics.median(ours.values)
            bare_scaling = statistics.median(bare_one.values) / statistics.median(bare.values)
            record["scaling_of_bare_scaling"] = record["scaling"] / bare_scaling
        if step_seconds > 0:
            record["wait"] = max(0.0, 1 - step_seconds * rate / batch)
        records.append(record)
    return records


def _of_bare(ours: Sequence[float], bare: Sequence[float]) -> float:
    """Rate divided by that of bare decoding, median over the rounds."""
    return statistics.median(b / a for a, b in zip(ours, bare, strict=True))


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    installed = [name for name, note in available_backends().items() if "absent" not in note]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decoders", nargs="+", choices=installed, default=installed)
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds")
    parser.add_argument(
        "--step-seconds", type=float, default=0.0, help="seconds per training step, to report waits"
    )
    parser.add_argument("--batch", type=int, default=16, help="clips per training step")
    parser.add_argument("--shards", action="store_true", help="also load from tar shards")
    parser.add_argument("--only", choices=("loading", "views"), help="one of the two parts")
    parser.add_argument("--config", type=Path, help=f"YAML file (default: {CONFIG.name})")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, as a smoke test")
    parser.add_argument("--json", type=Path, help="JSON file for all results")
    options = parser.parse_args(arguments)
    options.config = options.config or (QUICK_CONFIG if options.quick else CONFIG)
    if options.quick:
        options.repeats = 1
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurements and print the tables; returns the exit code."""
    options = parse_arguments(arguments)
    machine = describe_machine()
    for name, value in machine.items():
        print(f"{name:<14}{value}")
    cfg = read_config(options.config)
    torch.set_num_threads(1)  # as in a worker
    content: dict[str, Any] = {"machine": machine}
    if options.only != "views":
        content |= report_loading(options, cfg)
    if options.only != "loading":
        content["views"] = report_views(options, cfg)
    if options.json:
        options.json.write_text(json.dumps(content, indent=2) + "\n")
        print_written([options.json])
    return 0


def report_loading(options: argparse.Namespace, cfg: CfgNode) -> dict[str, Any]:
    """Measure how fast clips are loaded, print the tables, and return their values."""
    with tempfile.TemporaryDirectory() as name:
        folder, num_videos = Path(name), 4 if options.quick else 16
        write_benchmark_videos(folder, num_videos, quick=options.quick)
        splits = {
            decoder: measure_split(cfg, folder, num_videos, decoder) for decoder in options.decoders
        }
        rows = measure_rates(options, cfg, folder, num_videos)
        shards = measure_shards(options, cfg, folder, num_videos) if options.shards else []
        crop = measure_device_crop(cfg, folder, num_videos, options.repeats)
    num_clips = num_videos * num_clips_per_row(cfg)
    records = tabulate(rows, num_clips, options.batch, options.step_seconds)
    print_loading(splits, records, shards)
    crop_rate = crop.per / statistics.median(crop.values)
    print(f"\n{crop.name}: {crop_rate:.1f} clips/s")
    return {"split": splits, "rates": records, "shards": shards, crop.name: crop_rate}


def print_loading(
    splits: dict[str, dict[str, float]],
    records: list[dict[str, Any]],
    shards: list[dict[str, Any]],
) -> None:
    """Print the tables of the stages, the rates and the shards."""
    print("\nshare of the time per clip")
    print(f"  {'':<12}" + "".join(f"{part:>10}" for part in PARTS))
    for decoder, split in splits.items():
        cells = (f"{split[part]:.1%}" if part in split else "" for part in PARTS)
        print(f"  {decoder:<12}" + "".join(f"{cell:>10}" for cell in cells))
    heads = ("workers", "clips/s", "of bare", "CPU time", "handed over", "scaling", "of bare's")
    print("\n  " + f"{'decoder':<12}" + "".join(f"{head:>12}" for head in (*heads, "wait")))
    for record in records:
        columns = [f"{record['workers']}", f"{record['clips_per_second']:.1f}"]
        columns.append(f"{record['of_bare_decoding']:.2f}")
        columns += [f"{record[key]:.2f}" if key in record else "" for key in RATIOS]
        columns.append(f"{record['wait']:.0%}" if "wait" in record else "")
        print(f"  {record['decoder']:<12}" + "".join(f"{column:>12}" for column in columns))
    if shards:
        print(f"\n  {'from shards':<12}{'workers':>11}{'clips/s':>11}{'of files':>11}")
    for record in shards:
        columns = [str(record["workers"])]
        columns += [f"{record['clips_per_second']:.1f}", f"{record['of_files']:.2f}"]
        print(f"  {record['decoder']:<12}" + "".join(f"{column:>11}" for column in columns))


def report_views(options: argparse.Namespace, cfg: CfgNode) -> list[dict[str, Any]]:
    """Measure the cost of 2 + 4 views, print the table, and return its records."""
    num_rows = 2 if options.quick else 8
    records = []
    for images in (True, False):
        with tempfile.TemporaryDirectory() as name:
            if images:
                size = (48, 64) if options.quick else (375, 500)
                write_images(Path(name), num_images=num_rows, size=size)
            else:
                write_benchmark_videos(Path(name), num_rows, quick=options.quick)
            config = views_config(cfg, images=images)
            records += measure_views(config, Path(name), num_rows, options.repeats, images=images)
    print("\ncost of 2 + 4 views, of the sum of their crops alone")
    heads = ("samples/s", "of crops", "CPU time")
    print(f"  {'':<28}" + "".join(f"{head:>12}" for head in heads))
    for record in records:
        name = f"{record['clips']}{', decoded before' if record['decoded_before'] else ''}"
        columns = [f"{record['samples_per_second']:.1f}", f"{record['of_crops']:.2f}"]
        columns.append(f"{record['of_crops_cpu_time']:.2f}")
        print(f"  {name:<28}" + "".join(f"{column:>12}" for column in columns))
    return records


def write_benchmark_videos(folder: Path, num_videos: int, *, quick: bool) -> None:
    """Render the videos of all measurements, tiny ones with `quick`."""
    write_videos(
        folder,
        num_videos=num_videos,
        num_frames=30 if quick else 300,
        size=(48, 64) if quick else (256, 340),
    )


if __name__ == "__main__":
    raise SystemExit(main())
