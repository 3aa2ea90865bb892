#!/usr/bin/env python3
"""Render a labeled data set of moving blobs as H.264 files, with list files in the Kinetics format.

A clip shows one two-colored blob over a smooth background. Its state is a point on a
four-dimensional torus: horizontal and vertical position (the frame wraps around), orientation (a
full turn is one period) and logarithm of the size (the largest is followed by the smallest). The
class is the direction in which the blob moves, one of eight:

    move_right, move_down_right, move_down, ... (CLASS_NAMES, in steps of 45 degrees)

The state of the first frame is drawn uniformly from the torus, independently of the class, and a
uniform distribution on a torus remains uniform under any constant velocity. Hence the state in any
single frame is uniform for every class, and shape, colors, background, speed and a small wobble of
all four coordinates have the same distributions for every class: a single frame has no information
about the label, two frames do. Played backwards, a clip of one class is a clip of its opposite.

Each clip depends only on (seed, stream, index), so a data set can be made with any number of
processes, resumed after an interruption, and enlarged without changing existing clips.
"""

from __future__ import annotations

if __name__ == "__main__":
    from slowfast_maskfeat.cli import end_on_interrupt

    end_on_interrupt()  # during the imports, which take seconds

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from motion_rendering import CLASS_NAMES, STREAMS, render_frames, sample_clip, write_video

from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.workers import become_worker, parent_of_workers, starting_workers


@dataclasses.dataclass(frozen=True)
class VideoSettings:
    """Settings of all clips of a data set.

    Args:
        seed: seed of the data set.
        size: height and width in pixels, even, at least 16.
        frames: number of frames of a clip, at least 2.
        fps: frames per second.
        crf: constant rate factor of x264; lower is better, 18 is visually lossless.
    """

    seed: int = 0
    size: int = 48
    frames: int = 24
    fps: int = 30
    crf: int = 18

    def __post_init__(self) -> None:
        for name, value, valid, condition in (
            ("seed", self.seed, self.seed >= 0, ">= 0"),
            ("size", self.size, self.size >= 16 and self.size % 2 == 0, "even and >= 16"),
            ("frames", self.frames, self.frames >= 2, ">= 2"),
            ("fps", self.fps, self.fps >= 1, ">= 1"),
            ("crf", self.crf, 0 <= self.crf <= 51, "in 0..51"),
        ):
            if not valid:
                raise ValueError(f"{name} must be {condition}, got {value}")


def video_name(stream: str, index: int) -> str:
    """Path of a clip relative to the output folder, with forward slashes."""
    return f"videos/{stream}_{index:05d}.mp4"


def _make_clips(output: Path, settings: VideoSettings, clips: Sequence[tuple[str, int]]) -> int:
    """Render and encode several clips, the unit of work of one process."""
    for stream, index in clips:
        motion, look = sample_clip(settings.seed, stream, index)
        frames = render_frames(motion, look, settings.frames, settings.size)
        write_video(output / video_name(stream, index), frames, settings.fps, settings.crf)
    return len(clips)


def worker_pool(processes: int) -> ProcessPoolExecutor:
    """Pool of processes that leave signals to this one; submit inside of `starting_workers`."""
    return ProcessPoolExecutor(
        processes,
        mp_context=get_context("spawn"),
        initializer=become_worker,
        initargs=(parent_of_workers(),),
    )


def _finished_batches(
    output: Path,
    settings: VideoSettings,
    batches: Sequence[Sequence[tuple[str, int]]],
    processes: int,
) -> Iterator[int]:
    """Make batches of clips, and yield the number of clips of each finished batch."""
    if processes == 1:
        for batch in batches:
            yield _make_clips(output, settings, batch)
        return
    with worker_pool(processes) as pool:
        with starting_workers():
            pending = {pool.submit(_make_clips, output, settings, batch) for batch in batches}
        try:
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        finally:
            for future in pending:
                future.cancel()


def make_videos(
    output: Path, settings: VideoSettings, num_clips: dict[str, int], processes: int
) -> list[Path]:
    """Make all missing clips, with a progress line every two seconds.

    Args:
        output: folder of the data set.
        settings: settings of all clips.
        num_clips: number of clips per stream.
        processes: number of processes.

    Returns:
        The clips made in this call.
    """
    (output / "videos").mkdir(parents=True, exist_ok=True)
    missing = [
        (stream, index)
        for stream, count in num_clips.items()
        for index in range(count)
        if not (output / video_name(stream, index)).exists()
    ]
    total, kept = len(missing), sum(num_clips.values()) - len(missing)
    print(f"{total} clips to make, {kept} exist, {processes} processes", flush=True)
    batches = [missing[first : first + 16] for first in range(0, total, 16)]
    started = last_shown = time.monotonic()
    num_done = 0
    for count in _finished_batches(output, settings, batches, min(processes, len(batches) or 1)):
        num_done += count
        now = time.monotonic()
        if num_done == total or now - last_shown > 2:
            last_shown = now
            rate = num_done / (now - started)
            left = (total - num_done) / rate
            print(f"{num_done}/{total} clips, {rate:.0f} clips/s, {left:.0f} s left", flush=True)
    return [output / video_name(stream, index) for stream, index in missing]


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def write_lists(
    output: Path,
    num_clips: dict[str, int],
    num_train: int,
    class_names: Sequence[str] = CLASS_NAMES,
    name_of: Callable[[str, int], str] = video_name,
) -> list[Path]:
    """Write the list files and the class names.

    Lines are paths in `pretrain/{train,val}.csv`, paths and labels in
    `finetune/{train,val,test}.csv`; paths are relative to `output`. The fine-tuning clips are the
    first `num_train` pre-training clips, so pre-training sees them too, without labels.

    Returns:
        The files.
    """
    written: list[Path] = []
    names = "".join(f"{name}\n" for name in class_names)
    for part, stream, count, labeled in (
        ("pretrain/train", "train", num_clips["train"], False),
        ("pretrain/val", "val", num_clips["val"], False),
        ("finetune/train", "train", num_train, True),
        ("finetune/val", "val", num_clips["val"], True),
        ("finetune/test", "test", num_clips["test"], True),
    ):
        lines = (
            name_of(stream, index) + (f" {index % len(class_names)}" if labeled else "")
            for index in range(count)
        )
        written.append(output / f"{part}.csv")
        write_text(written[-1], "".join(f"{line}\n" for line in lines))
    for folder in ("pretrain", "finetune"):
        written.append(output / folder / "classes.txt")
        write_text(written[-1], names)
    return written


def check_settings(output: Path, settings: Any) -> None:
    """Store the settings, a dataclass, in the folder, or compare them with the stored ones.

    Raises:
        ValueError: the folder has clips with other settings.
    """
    path = output / "settings.json"
    current = dataclasses.asdict(settings)
    if not path.exists():
        write_text(path, json.dumps(current, indent=2) + "\n")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    if found != current:
        raise ValueError(
            f"the settings must be {found} as in {output}, got {current}; choose another --output, "
            "or remove that folder"
        )


def make_data_set(
    output: Path,
    settings: VideoSettings,
    *,
    num_pretrain: int,
    num_train: int,
    num_val: int,
    num_test: int,
    processes: int = 1,
) -> list[Path]:
    """Make the missing part of the data set.

    Returns:
        The files written in this call.

    Raises:
        ValueError: a count is out of range, or the folder has other settings.
    """
    if not 0 < num_train <= num_pretrain:
        raise ValueError(
            f"num_train must be in 1..{num_pretrain} (num_pretrain), since labeled clips are among "
            f"the unlabeled ones, got {num_train}"
        )
    if num_val < 1 or num_test < 1 or processes < 1:
        given = f"{num_val}, {num_test} and {processes}"
        raise ValueError(f"num_val, num_test and processes must be >= 1, got {given}")
    check_settings(output, settings)
    num_clips = dict(zip(STREAMS, (num_pretrain, num_val, num_test), strict=True))
    made = make_videos(output, settings, num_clips, processes)
    # Last, so that lists name only existing clips.
    return [*made, *write_lists(output, num_clips, num_train)]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Render a labeled motion data set as H.264 files with Kinetics-style lists.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = VideoSettings()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of the data set")
    add(
        "--num-pretrain", type=int, default=1000, help="unlabeled clips, including the labeled ones"
    )
    add("--num-train", type=int, default=320, help="labeled clips for fine-tuning")
    add("--num-val", type=int, default=200, help="validation clips")
    add("--num-test", type=int, default=400, help="test clips")
    add("--seed", type=int, default=defaults.seed, help="seed of the data set")
    add("--size", type=int, default=defaults.size, help="height and width in pixels")
    add("--frames", type=int, default=defaults.frames, help="frames per clip")
    add("--fps", type=int, default=defaults.fps, help="frames per second")
    add("--crf", type=int, default=defaults.crf, help="x264 quality, lower is better")
    add("--processes", type=int, default=cores or 1, help="number of processes")
    return parser.parse_args(arguments)


def run_script(output: Path, make: Callable[[], Sequence[Path]]) -> int:
    """Make a data set, print its files and return the exit code."""

    def work() -> None:
        started = time.monotonic()
        written = make()
        print(f"{output}: ready after {time.monotonic() - started:.1f} s")
        print_written(written)

    return exit_code(work, output=output, resumable=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = parse_arguments(arguments)

    def make() -> list[Path]:
        return make_data_set(
            options.output,
            VideoSettings(options.seed, options.size, options.frames, options.fps, options.crf),
            num_pretrain=options.num_pretrain,
            num_train=options.num_train,
            num_val=options.num_val,
            num_test=options.num_test,
            processes=options.processes,
        )

    return run_script(options.output, make)


if __name__ == "__main__":
    sys.exit(main())
