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

import argparse
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.files import atomic_write

# By the angle of the velocity, in eighths of a turn; rows run downwards.
CLASS_NAMES = (
    "move_right",
    "move_down_right",
    "move_down",
    "move_down_left",
    "move_left",
    "move_up_left",
    "move_up",
    "move_up_right",
)
# The coordinates of a state, each counted in periods, so that all four live on [0, 1).
COORDINATES = ("x", "y", "angle", "log_radius")
# Random streams: a clip of one stream does not depend on the number of clips in another.
STREAMS = ("train", "val", "test")

# Radii as fractions of the frame's side; with the contour's bumps (at most 35 %) the blob is
# narrower than the frame, so that it never overlaps itself across the border.
RADIUS_RANGE = (0.13, 0.34)
_SPEED_RANGE = (0.025, 0.05)  # frame sides per frame: 1.2 to 2.4 pixels of 48
_WOBBLE_AMPLITUDE = (0.010, 0.010, 0.010, 0.020)
_WOBBLE_FREQUENCY_RANGE = (0.03, 0.10)  # cycles per frame
_NUM_HARMONICS = 3  # of the contour: 2, 3 and 4 bumps per turn
CONTOUR_BUMPS = 0.35
# Background and blob are shaded, steeply enough that neighboring pixels differ by at least two of
# 255 levels: on flat surfaces HOG would only contain compression artifacts.
_BACKGROUND_TONE_RANGE = (0.4, 0.6)
_BACKGROUND_SLOPE_RANGE = (0.5, 0.8)  # change of a color across the frame
_BACKGROUND_BEND = 0.6  # how much steeper the bright end is
_BLOB_SHADE_RANGE = (0.12, 0.2)  # change of brightness per radius
_LUMA = np.array([0.299, 0.587, 0.114])
_BLOB_LUMA_LEVELS = (0.2, 0.8)
_EDGE_PIXELS = 1.5  # width of the antialiased edge

FloatArray = NDArray[np.float32]


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


@dataclasses.dataclass(frozen=True)
class Look:
    """Static appearance of a clip, drawn independently of the class.

    Args:
        contour: (K,) complex, Fourier coefficients of the contour from harmonic 2 on.
        split: offset and bend of the line between the two tones, in radii.
        tones: (3, 3) mean colors (R, G, B) of the background and of the blob's two tones.
        heading: (2,) unit vector (y, x) of increasing brightness of the background.
        slopes: (3,) change of each color channel across the frame.
        shade: complex, direction and strength per radius of the blob's shading, which moves and
            turns with the blob.
    """

    contour: NDArray[np.complex128]
    split: NDArray[np.float64]
    tones: NDArray[np.float64]
    heading: NDArray[np.float64]
    slopes: NDArray[np.float64]
    shade: complex


@dataclasses.dataclass(frozen=True)
class Motion:
    """Motion of the blob's state, in periods (of the frame side, a turn, the size range).

    Args:
        start: (4,) state at frame 0, uniform on the torus; the order of COORDINATES.
        velocity: (4,) periods per frame; the direction of its first two entries is the class.
        wobble: (4,) amplitude of a small sinusoid on each coordinate.
        wobble_frequency: (4,) its frequency in cycles per frame.
        wobble_phase: (4,) its phase at frame 0 in cycles.
    """

    start: NDArray[np.float64]
    velocity: NDArray[np.float64]
    wobble: NDArray[np.float64]
    wobble_frequency: NDArray[np.float64]
    wobble_phase: NDArray[np.float64]

    def states(self, num_frames: int) -> NDArray[np.float64]:
        """State in each frame: (T, 4), in [0, 1)."""
        frame = np.arange(num_frames)[:, None]
        cycles = self.wobble_phase + self.wobble_frequency * frame
        moved = self.velocity * frame + self.wobble * np.sin(2 * math.pi * cycles)
        return np.mod(self.start + moved, 1.0)

    def reversed(self, num_frames: int) -> Motion:
        """Motion in a clip of `num_frames` frames when played backwards."""
        last = num_frames - 1
        return Motion(
            start=np.mod(self.start + self.velocity * last, 1.0),
            velocity=-self.velocity,
            wobble=self.wobble,
            wobble_frequency=self.wobble_frequency,
            # sin(a - b) = sin(b + pi - a): half a cycle ahead, from the other end.
            wobble_phase=np.mod(0.5 - self.wobble_phase - self.wobble_frequency * last, 1.0),
        )

    @property
    def label(self) -> int:
        """The class: the direction of the velocity, in eighths of a turn."""
        turns = math.atan2(self.velocity[1], self.velocity[0]) / (2 * math.pi)
        return round(turns * len(CLASS_NAMES)) % len(CLASS_NAMES)


def sample_motion(label: int, generator: np.random.Generator) -> Motion:
    """Draw the motion of one clip; the class determines only the direction of the velocity."""
    start = generator.random(4)
    speed = generator.uniform(*_SPEED_RANGE)
    angle = 2 * math.pi * label / len(CLASS_NAMES)
    velocity = speed * np.array([math.cos(angle), math.sin(angle), 0.0, 0.0])
    return Motion(
        start=start,
        velocity=velocity,
        wobble=np.array(_WOBBLE_AMPLITUDE) * generator.random(4),
        wobble_frequency=generator.uniform(*_WOBBLE_FREQUENCY_RANGE, size=4),
        wobble_phase=generator.random(4),
    )


def hue(color: NDArray[np.float64]) -> NDArray[np.float64]:
    """Color (..., 3) without its brightness."""
    return np.asarray(color - (color @ _LUMA)[..., None])


def sample_look(generator: np.random.Generator) -> Look:
    """Draw shape, colors and background of one clip, independently of the class."""
    weight = generator.dirichlet(np.ones(_NUM_HARMONICS))  # bumps sum to at most CONTOUR_BUMPS
    phase = np.exp(2j * math.pi * generator.random(_NUM_HARMONICS))
    contour = CONTOUR_BUMPS * generator.uniform(0.5, 1.0) * weight * phase
    # The blob's tones differ in brightness (in random order), so that their edge survives chroma
    # subsampling.
    luma = generator.permutation(_BLOB_LUMA_LEVELS) + generator.uniform(-0.06, 0.06, size=2)
    blob_tones = luma[:, None] + 0.5 * hue(generator.random((2, 3)))
    background_tone = generator.uniform(*_BACKGROUND_TONE_RANGE, size=(1, 3))
    tones = np.concatenate([background_tone, np.clip(blob_tones, 0.03, 0.97)])
    angle, light = 2 * math.pi * generator.random(2)
    return Look(
        contour=contour,
        split=generator.uniform(-0.25, 0.25, size=2),
        tones=tones,
        heading=np.array([np.sin(angle), np.cos(angle)]),
        slopes=generator.uniform(*_BACKGROUND_SLOPE_RANGE, size=3),
        shade=complex(np.exp(1j * light) * generator.uniform(*_BLOB_SHADE_RANGE)),
    )


def sample_clip(seed: int, stream: str, index: int) -> tuple[Motion, Look]:
    """Draw the parameters of clip `index` of a stream; its class is `index` modulo 8."""
    generator = np.random.default_rng([seed, STREAMS.index(stream), index])
    look = sample_look(generator)
    return sample_motion(index % len(CLASS_NAMES), generator), look


def radius_of(log_radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map the state's last coordinate in [0, 1) to a radius in frame sides."""
    low, high = RADIUS_RANGE
    return low * (high / low) ** log_radius


def _smoothstep(distance: FloatArray) -> FloatArray:
    """Convert a signed distance in pixels, negative inside, to a coverage in [0, 1]."""
    x = np.clip(0.5 - distance / np.float32(_EDGE_PIXELS), 0.0, 1.0)
    return x * x * (3 - 2 * x)


def render_blob(
    states: NDArray[np.float64], look: Look, size: int
) -> tuple[FloatArray, FloatArray]:
    """Render the blob: its coverage (T, H, W) in [0, 1] and color (T, 3, H, W)."""
    pixel = (np.arange(size) + 0.5) / size
    # Offsets to the nearest copy of the blob on the torus, in [-0.5, 0.5) frame sides.
    dx = np.mod(pixel[None] - states[:, :1] + 0.5, 1.0) - 0.5  # (T, W)
    dy = np.mod(pixel[None] - states[:, 1:2] + 0.5, 1.0) - 0.5  # (T, H)
    offset = (dx[:, None, :] + 1j * dy[:, :, None]).astype(np.complex64)  # (T, H, W)
    turn = np.exp(-2j * math.pi * states[:, 2])
    radius = radius_of(states[:, 3])
    local = offset * (turn / radius).astype(np.complex64)[:, None, None]  # the blob's own frame
    distance = np.abs(local)
    direction = local / np.maximum(distance, np.float32(1e-6))

    # Contour r(phi) = 1 + Re sum c_k e^(i k phi) and its derivative, by powers of e^(i phi).
    contour = np.ones_like(distance)
    slope = np.zeros_like(distance)
    power = direction
    for order, coefficient in enumerate(look.contour, start=2):
        power = power * direction
        term = power * np.complex64(coefficient)
        contour += term.real
        slope -= np.float32(order) * term.imag
    # First-order distance to the curve distance = r(phi), in pixels.
    pixels_per_radius = (radius * size).astype(np.float32)[:, None, None]
    steepness = np.sqrt(1 + (slope / np.maximum(distance, np.float32(0.3))) ** 2)
    coverage = _smoothstep((distance - contour) / steepness * pixels_per_radius)

    shift, bend = (np.float32(value) for value in look.split)
    second = _smoothstep((local.real - shift - bend * local.imag**2) * pixels_per_radius)
    first_tone, second_tone = look.tones[1:].astype(np.float32)[:, :, None, None]  # (3, 1, 1)
    shade = (local * np.complex64(look.shade.conjugate())).real
    return coverage, first_tone + second[:, None] * (second_tone - first_tone) + shade[:, None]


def render_background(look: Look, size: int) -> FloatArray:
    """Render the shaded background: (3, H, W)."""
    pixel = (np.arange(size) + 0.5) / size - 0.5
    along = look.heading[0] * pixel[:, None] + look.heading[1] * pixel  # (H, W)
    along = along + _BACKGROUND_BEND * along**2
    field = look.tones[0][:, None, None] + look.slopes[:, None, None] * along
    return np.asarray(field, dtype=np.float32)


def render_frames(motion: Motion, look: Look, num_frames: int, size: int) -> NDArray[np.uint8]:
    """Render one clip.

    Returns:
        (T, H, W, 3) uint8, RGB.
    """
    coverage, blob = render_blob(motion.states(num_frames), look, size)
    background = render_background(look, size)
    picture = background + coverage[:, None] * (blob - background)
    pixels = np.clip(picture * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def write_video(path: Path, frames: NDArray[np.uint8], fps: int, crf: int) -> None:
    """Encode RGB frames (T, H, W, 3) as H.264 in MP4, atomically."""
    options = {"fflags": "+bitexact"}
    with (
        atomic_write(path, shared=True) as part,
        av.open(str(part), mode="w", format="mp4", options=options) as file,
    ):
        stream = file.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # x264's macroblock tree encodes the same frames differently on some processors.
        stream.options = {"crf": str(crf), "preset": "veryfast", "x264-params": "mbtree=0"}
        stream.codec_context.thread_count = 1  # processes run in parallel instead
        for picture in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode(None))


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
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
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
) -> int:
    """Make all missing clips, with a progress line every two seconds.

    Args:
        output: folder of the data set.
        settings: settings of all clips.
        num_clips: number of clips per stream.
        processes: number of processes.

    Returns:
        Number of clips made in this call.
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
    return total


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
) -> None:
    """Write the list files and the class names.

    Lines are paths in `pretrain/{train,val}.csv`, paths and labels in
    `finetune/{train,val,test}.csv`; paths are relative to `output`. The fine-tuning clips are the
    first `num_train` pre-training clips, so pre-training sees them too, without labels.
    """
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
        write_text(output / f"{part}.csv", "".join(f"{line}\n" for line in lines))
    for folder in ("pretrain", "finetune"):
        write_text(output / folder / "classes.txt", names)


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
) -> int:
    """Make the missing part of the data set.

    Returns:
        Number of clips made in this call.

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
    num_made = make_videos(output, settings, num_clips, processes)
    # Last, so that lists name only existing clips.
    write_lists(output, num_clips, num_train)
    return num_made


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


def run_script(output: Path, make: Callable[[], object]) -> int:
    """Make a data set, print its folder and return the exit code."""

    def work() -> None:
        started = time.monotonic()
        make()
        print(f"{output}: ready after {time.monotonic() - started:.1f} s")

    return exit_code(work, output=output, resumable=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = parse_arguments(arguments)

    def make() -> None:
        make_data_set(
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
