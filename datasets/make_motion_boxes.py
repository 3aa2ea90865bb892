#!/usr/bin/env python3
"""Render videos of several moving shapes, with boxes and actions in AVA's format.

A video shows two to four blobs of `make_motion_clips.py` for some seconds. Every whole second but
the first is a key frame, around which each blob moves straight in one of eight directions for the
duration of a clip. So a box has two actions, one of

    move_right, move_down_right, ... and one of be_small, be_large

drawn independently and uniformly: one frame shows the size, but not the movement. Between key
frames the blobs glide to their next place; they never leave the frame.

Besides the annotated boxes there are boxes as from a detector: slightly shifted, with scores, some
missing, and some without a blob. A video depends only on (seed, split, index).
"""

from __future__ import annotations

if __name__ == "__main__":
    from slowfast_maskfeat.cli import end_on_interrupt

    end_on_interrupt()  # during the imports, which take seconds

import argparse
import dataclasses
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import make_motion_clips as clips
import motion_rendering as rendering
import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.workers import starting_workers

SIZES = ("be_small", "be_large")
ACTION_NAMES = (*rendering.CLASS_NAMES, *SIZES)  # the number of an action is its position, from 1
SPLITS = ("train", "val")
HEIGHT, WIDTH = 72, 96
FPS = 30

_NUM_BLOBS = (2, 4)
_RADIUS_RANGES = ((5.5, 7.0), (8.5, 10.0))  # pixels, of each size
_SPEED_RANGE = (0.8, 1.6)  # pixels per frame
_STRAIGHT = 9  # frames of straight motion before and after a key frame
_NUM_TRIES = 100  # to place a blob apart from the others
# The detector: standard deviation of a side as a fraction of the box, misses, false positives.
_JITTER = 0.05
_MISSED = 0.03
_INVENTED = 0.15  # false positives per key frame


@dataclasses.dataclass(frozen=True)
class BoxSettings:
    """Settings of all videos of a data set.

    Args:
        seed: seed of the data set.
        seconds: length of a video, at least 3.
        crf: constant rate factor of x264.
    """

    seed: int = 0
    seconds: int = 5
    crf: int = 18

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")
        if self.seconds < 3:
            raise ValueError(
                f"seconds must be >= 3, so that a key frame is inside, got {self.seconds}"
            )
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must be in 0..51, got {self.crf}")

    @property
    def key_seconds(self) -> range:
        """Times of the key frames in seconds."""
        return range(1, self.seconds)


@dataclasses.dataclass(frozen=True)
class Shape:
    """A blob of one video.

    Args:
        look: its appearance.
        size: index in SIZES.
        path: (T, 2) center (x, y) in pixels in each frame.
        angle: (T,) orientation in turns.
        radius: radius in pixels.
        directions: (S,) direction at each key frame, as an index in CLASS_NAMES.
    """

    look: rendering.Look
    size: int
    path: NDArray[np.float64]
    angle: NDArray[np.float64]
    radius: float
    directions: NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class KeyFrameBoxes:
    """Boxes of one key frame.

    Args:
        second: time in the video.
        boxes: (n, 4) x1, y1, x2, y2 as fractions of width and height.
        actions: (n, 2) numbers of the direction and of the size, from 1.
        detected: (m, 5) boxes of the detector, with scores.
    """

    second: int
    boxes: NDArray[np.float64]
    actions: NDArray[np.int64]
    detected: NDArray[np.float64]


def sample_shapes(settings: BoxSettings, generator: np.random.Generator) -> list[Shape]:
    """Draw the blobs of one video, apart from each other at the key frames."""
    num_blobs = int(generator.integers(*_NUM_BLOBS, endpoint=True))
    shapes: list[Shape] = []
    for _ in range(num_blobs):
        # Size and directions are drawn once; only the place depends on the other blobs.
        size = int(generator.integers(len(SIZES)))
        directions = generator.integers(len(rendering.CLASS_NAMES), size=len(settings.key_seconds))
        for _ in range(_NUM_TRIES):
            shape = _sample_shape(size, directions, settings, generator)
            if all(_are_apart(shape, other, settings) for other in shapes):
                shapes.append(shape)
                break
    return shapes


def _sample_shape(
    size: int,
    directions: NDArray[np.int64],
    settings: BoxSettings,
    generator: np.random.Generator,
) -> Shape:
    radius = float(generator.uniform(*_RADIUS_RANGES[size]))
    turn = 2 * math.pi * directions / len(rendering.CLASS_NAMES)
    speed = generator.uniform(*_SPEED_RANGE, size=len(directions))
    velocity = speed[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)  # (S, 2)
    margin = radius * (1 + rendering.CONTOUR_BUMPS) + 1 + _STRAIGHT * np.abs(velocity)
    centers = generator.uniform(margin, np.array([WIDTH, HEIGHT]) - margin)
    num_frames = settings.seconds * FPS
    spin = generator.uniform(-0.004, 0.004)
    return Shape(
        look=rendering.sample_look(generator),
        size=size,
        path=_glide(centers, velocity, np.array(settings.key_seconds) * FPS, num_frames),
        angle=generator.random() + spin * np.arange(num_frames),
        radius=radius,
        directions=directions,
    )


def _glide(
    centers: NDArray[np.float64],
    velocity: NDArray[np.float64],
    key_frames: NDArray[np.int64],
    num_frames: int,
) -> NDArray[np.float64]:
    """Path (T, 2) that is straight around each key frame, and smooth in between."""
    frame = np.arange(num_frames)
    key = np.abs(frame[:, None] - key_frames).argmin(1)  # nearest key frame
    away = frame - key_frames[key]
    straight = centers[key] + velocity[key] * away[:, None]
    path = straight.copy()
    ends = centers + velocity * _STRAIGHT  # of the straight segments
    starts = centers - velocity * _STRAIGHT
    for before in range(len(key_frames) - 1):
        first, last = key_frames[before] + _STRAIGHT, key_frames[before + 1] - _STRAIGHT
        inside = slice(first, last + 1)
        share = (frame[inside] - first) / (last - first)
        eased = share * share * (3 - 2 * share)
        path[inside] = ends[before] + eased[:, None] * (starts[before + 1] - ends[before])
    for edge, rest in (
        (frame < key_frames[0] - _STRAIGHT, starts[0]),
        (frame > key_frames[-1] + _STRAIGHT, ends[-1]),
    ):
        path[edge] = rest
    return path


def _are_apart(shape: Shape, other: Shape, settings: BoxSettings) -> bool:
    keys = np.array(settings.key_seconds) * FPS
    distance = np.linalg.norm(shape.path[keys] - other.path[keys], axis=1)
    return bool((distance > 1.2 * (shape.radius + other.radius)).all())


def render_video(
    shapes: Sequence[Shape], background: rendering.Look
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Render all frames.

    Returns:
        (T, H, W, 3) uint8, RGB, and the coverage of each blob (n, T, H, W) in [0, 1].
    """
    top = (WIDTH - HEIGHT) // 2  # blobs are rendered in a square and cropped to its middle rows
    rows = slice(top, top + HEIGHT)
    low, high = rendering.RADIUS_RANGE
    picture = rendering.render_background(background, WIDTH)[None, :, rows]
    coverages = []
    for shape in shapes:
        log_radius = math.log(shape.radius / WIDTH / low) / math.log(high / low)
        states = np.column_stack(
            [
                shape.path[:, 0] / WIDTH,
                (shape.path[:, 1] + top) / WIDTH,
                shape.angle,
                np.full(len(shape.path), log_radius),
            ]
        )
        coverage, color = rendering.render_blob(states, shape.look, WIDTH)
        coverage, color = coverage[:, rows], color[:, :, rows]
        picture = picture + coverage[:, None] * (color - picture)
        coverages.append(coverage)
    pixels = np.clip(picture * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), np.stack(coverages)


def boxes_of(
    shapes: Sequence[Shape],
    coverages: NDArray[np.float32],
    settings: BoxSettings,
    generator: np.random.Generator,
) -> list[KeyFrameBoxes]:
    """Annotated and detected boxes of all key frames."""
    found = []
    for number, second in enumerate(settings.key_seconds):
        inside = coverages[:, second * FPS] > 0.5  # (n, H, W)
        boxes = np.array([_box_of(mask) for mask in inside])
        actions = np.array(
            [
                (shape.directions[number] + 1, len(rendering.CLASS_NAMES) + shape.size + 1)
                for shape in shapes
            ]
        )
        found.append(KeyFrameBoxes(second, boxes, actions, _detect(boxes, generator)))
    return found


def _box_of(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, right = columns[0] / WIDTH, (columns[-1] + 1) / WIDTH
    return left, rows[0] / HEIGHT, right, (rows[-1] + 1) / HEIGHT


def _detect(boxes: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Boxes with scores (m, 5), as from a detector."""
    sizes = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    seen = boxes + _JITTER * sizes * generator.standard_normal(boxes.shape)
    scores = generator.uniform(0.9, 1.0, size=len(boxes))
    kept = generator.random(len(boxes)) >= _MISSED
    num_invented = int(generator.poisson(_INVENTED))
    corner = generator.uniform(0, 0.75, size=(num_invented, 2))
    invented = np.hstack([corner, corner + generator.uniform(0.12, 0.25, size=corner.shape)])
    doubt = generator.uniform(0.5, 0.97, size=num_invented)
    both = np.vstack([seen[kept], invented]).clip(0, 1)
    return np.column_stack([both, np.append(scores[kept], doubt)])


def video_name(split: str, index: int) -> str:
    """Name of a video in the lists; its file is `<name>.mp4`."""
    return f"{split}_{index:04d}"


def make_video(output: Path, settings: BoxSettings, split: str, index: int) -> list[KeyFrameBoxes]:
    """Render one video, unless its file exists, and return its boxes."""
    generator = np.random.default_rng([settings.seed, SPLITS.index(split), index])
    shapes = sample_shapes(settings, generator)
    frames, coverages = render_video(shapes, rendering.sample_look(generator))
    path = output / "videos" / f"{video_name(split, index)}.mp4"
    if not path.exists():
        rendering.write_video(path, frames, FPS, settings.crf)
    return boxes_of(shapes, coverages, settings, generator)


def _make_videos(
    output: Path, settings: BoxSettings, videos: Sequence[tuple[str, int]], processes: int
) -> Iterator[list[KeyFrameBoxes]]:
    """Render videos in parallel, and yield their boxes in order."""
    arguments = [(output, settings, split, index) for split, index in videos]
    if processes == 1:
        yield from (make_video(*each) for each in arguments)
        return
    with clips.worker_pool(processes) as pool:
        with starting_workers():
            videos = pool.map(make_video, *zip(*arguments, strict=True), chunksize=4)
        yield from videos


def write_annotations(
    output: Path, split: str, boxes: dict[str, list[KeyFrameBoxes]]
) -> list[Path]:
    """Write the CSV files of one split: `motion_<split>.csv` and `..._predicted_boxes.csv`."""
    drawn, detected = [], []
    for name, key_frames in boxes.items():
        for key_frame in key_frames:
            head = f"{name},{key_frame.second:04d}"
            for person, (box, actions) in enumerate(
                zip(key_frame.boxes, key_frame.actions, strict=True)
            ):
                sides = ",".join(f"{side:.4f}" for side in box)
                drawn += [f"{head},{sides},{action},{person}" for action in actions]
            for *box, score in key_frame.detected:
                sides = ",".join(f"{side:.4f}" for side in box)
                detected.append(f"{head},{sides},,{score:.4f}")
    folder = output / "annotations"
    rows = {f"motion_{split}.csv": drawn, f"motion_{split}_predicted_boxes.csv": detected}
    for name, lines in rows.items():
        clips.write_text(folder / name, "".join(f"{line}\n" for line in lines))
    return [folder / name for name in rows]


def write_names(output: Path) -> list[Path]:
    """Write the label map, and an empty list of excluded key frames."""
    items = "".join(
        f'item {{\n  name: "{name}"\n  id: {number}\n}}\n'
        for number, name in enumerate(ACTION_NAMES, start=1)
    )
    names = output / "annotations" / "motion_actions.pbtxt"
    excluded = output / "annotations" / "motion_val_excluded_timestamps.csv"
    clips.write_text(names, items)
    clips.write_text(excluded, "")
    return [names, excluded]


def make_data_set(
    output: Path, settings: BoxSettings, *, num_train: int, num_val: int, processes: int = 1
) -> list[Path]:
    """Make the missing part of the data set, with a progress line.

    Returns:
        The files written in this call.

    Raises:
        ValueError: a count is out of range, or the folder has other settings.
    """
    if min(num_train, num_val, processes) < 1:
        given = f"{num_train}, {num_val} and {processes}"
        raise ValueError(f"num_train, num_val and processes must be >= 1, got {given}")
    clips.check_settings(output, settings)
    (output / "videos").mkdir(parents=True, exist_ok=True)
    counts = dict(zip(SPLITS, (num_train, num_val), strict=True))
    videos = [(split, index) for split, count in counts.items() for index in range(count)]
    paths = [output / "videos" / f"{video_name(*video)}.mp4" for video in videos]
    written = [path for path in paths if not path.exists()]
    boxes: dict[str, dict[str, list[KeyFrameBoxes]]] = {split: {} for split in SPLITS}
    started = last_shown = time.monotonic()
    made = _make_videos(output, settings, videos, processes)
    for done, ((split, index), found) in enumerate(zip(videos, made, strict=True), start=1):
        boxes[split][video_name(split, index)] = found
        now = time.monotonic()
        if done == len(videos) or now - last_shown > 2:
            last_shown = now
            rate = done / (now - started)
            left = (len(videos) - done) / rate
            print(
                f"{done}/{len(videos)} videos, {rate:.1f} videos/s, {left:.0f} s left", flush=True
            )
    written += write_names(output)
    for split in SPLITS:
        written += write_annotations(output, split, boxes[split])
    return written


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Render moving shapes with boxes and actions in AVA's format.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = BoxSettings()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of the data set")
    add("--num-train", type=int, default=100, help="training videos")
    add("--num-val", type=int, default=80, help="videos for validation and test")
    add("--seed", type=int, default=defaults.seed, help="seed of the data set")
    add("--seconds", type=int, default=defaults.seconds, help="duration of a video")
    add("--crf", type=int, default=defaults.crf, help="x264 quality, lower is better")
    add("--processes", type=int, default=cores or 1, help="number of processes")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = parse_arguments(arguments)

    def make() -> list[Path]:
        return make_data_set(
            options.output,
            BoxSettings(options.seed, options.seconds, options.crf),
            num_train=options.num_train,
            num_val=options.num_val,
            processes=options.processes,
        )

    return clips.run_script(options.output, make)


if __name__ == "__main__":
    sys.exit(main())
