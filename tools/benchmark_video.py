"""Videos for `benchmark.py`, and a minimal decoder for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

FPS = 30
KEY_FRAME_DISTANCE = 250
_NUM_OBJECTS = 6


def write_videos(
    folder: Path, *, num_videos: int, num_frames: int, size: tuple[int, int]
) -> list[Path]:
    """Render H.264 files and write their annotation file `train.csv`.

    Args:
        folder: output folder.
        num_videos: number of videos.
        num_frames: frames per video, at 30 frames/s, with a key frame every 250.
        size: (height, width) in pixels.

    Returns:
        Paths of the videos.
    """
    paths = [folder / f"{number}.mp4" for number in range(num_videos)]

    def render(seed: int) -> None:
        _encode(paths[seed], _moving_textures(seed, num_frames, size), size)

    with ThreadPoolExecutor(min(num_videos, os.cpu_count() or 1)) as pool:
        list(pool.map(render, range(num_videos)))
    (folder / "train.csv").write_text("".join(f"{path},0\n" for path in paths))
    return paths


def decode_by_hand(path: str, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Decode with PyAV alone: all frames since the key frame, of which the requested are kept.

    Args:
        path: file written by `write_videos`.
        indices: ascending frame indices.

    Returns:
        (T, H, W, 3) uint8 RGB.
    """
    requested = set(indices.tolist())
    kept = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        ticks = 1 / (FPS * stream.time_base)  # duration of a frame
        container.seek(int(indices[0] * ticks), stream=stream)
        for frame in container.decode(stream):
            number = round(frame.pts / ticks)
            if number in requested:
                kept.append(frame.to_ndarray(format="rgb24"))
            if number >= indices[-1]:
                break
    return np.stack(kept)


def _moving_textures(
    seed: int, num_frames: int, size: tuple[int, int]
) -> Iterator[NDArray[np.uint8]]:
    """Yield frames of textured objects moving over a drifting textured background, with noise."""
    generator = np.random.default_rng(seed)
    height, width = size
    background = _texture(generator, 2 * height, 2 * width)
    objects = [_texture(generator, height // 3, width // 4) for _ in range(_NUM_OBJECTS)]
    starts = generator.uniform((0, 0), (height, width), (_NUM_OBJECTS, 2))
    speeds = generator.uniform(-4, 4, (_NUM_OBJECTS, 2))
    drift = generator.uniform(-1.5, 1.5, 2)
    grain = generator.normal(0, 2, (4, height, width, 1))
    for number in range(num_frames):
        top, left = (drift * number).astype(int)
        rows, columns = np.arange(height) + top, np.arange(width) + left
        frame = background.take(rows, 0, mode="wrap").take(columns, 1, mode="wrap")
        for pixels, start, speed in zip(objects, starts, speeds, strict=True):
            rows, columns = (
                (int(position) + np.arange(length)) % extent
                for position, length, extent in zip(
                    start + speed * number, pixels.shape[:2], size, strict=True
                )
            )
            frame[np.ix_(rows, columns)] = pixels
        yield (frame + grain[number % len(grain)]).clip(0, 255).astype(np.uint8)


def _texture(generator: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """Noise at several scales: (height, width, 3), about 0 to 255."""
    total = np.full((height, width, 3), 128.0)
    for scale, strength in ((64, 45.0), (16, 25.0), (4, 12.0)):
        coarse = generator.normal(0, strength, (height // scale + 2, width // scale + 2, 3))
        rows, columns = np.arange(height) / scale, np.arange(width) / scale
        top, left = rows.astype(int), columns.astype(int)
        down, right = (rows - top)[:, None, None], (columns - left)[None, :, None]
        upper, lower = coarse[top], coarse[top + 1]
        upper = upper[:, left] * (1 - right) + upper[:, left + 1] * right
        lower = lower[:, left] * (1 - right) + lower[:, left + 1] * right
        total += upper * (1 - down) + lower * down
    return total


def _encode(path: Path, frames: Iterator[NDArray[np.uint8]], size: tuple[int, int]) -> None:
    distance = str(KEY_FRAME_DISTANCE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = KEY_FRAME_DISTANCE
        # No key frames at scene changes; otherwise libx264's defaults, with 3 B-frames.
        stream.options = {"crf": "23", "keyint_min": distance, "sc_threshold": "0"}
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
