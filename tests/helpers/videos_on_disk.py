"""Small videos that tests encode themselves, with the frame number drawn in the pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange

NUM_BITS = 8
# Two rows of blocks, the number's bits from the top left, so that each orientation differs.
_BLOCK_ROWS, _BLOCK_COLUMNS = 2, 4
_CLOCK = 90_000


def numbered_frames(num_frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 that show their own number (0..255) as black and white blocks."""
    numbers = np.arange(num_frames)
    assert num_frames <= 1 << NUM_BITS
    bits = (numbers[:, None] >> np.arange(NUM_BITS)) & 1
    blocks = (16 + bits * 220).astype(np.uint8).reshape(num_frames, _BLOCK_ROWS, _BLOCK_COLUMNS)
    rows = np.arange(height) * _BLOCK_ROWS // height
    columns = np.arange(width) * _BLOCK_COLUMNS // width
    gray = blocks[:, rows][:, :, columns]
    return np.repeat(gray[..., None], 3, axis=3)


def read_numbers(frames: np.ndarray) -> list[int]:
    """The numbers that upright frames (T, H, W, 3) show, -1 for one that shows none clearly."""
    height, width = frames.shape[1:3]
    numbers = []
    for frame in frames.astype(np.float32).mean(-1):
        number = 0
        for bit in range(NUM_BITS):
            row, column = divmod(bit, _BLOCK_COLUMNS)
            top, left = (row + 0.5) * height / _BLOCK_ROWS, (column + 0.5) * width / _BLOCK_COLUMNS
            level = frame[int(top) - 3 : int(top) + 4, int(left) - 3 : int(left) + 4].mean()
            if 80 < level < 170:
                number = -(1 << NUM_BITS)
            number += int(level > 128) << bit
        numbers.append(max(number, -1))
    return numbers


@contextmanager
def ordinary_scheduling() -> Iterator[None]:
    """Undo what SVT-AV1 does: as root it makes its caller a real-time thread for good.

    Tests in such a thread would leave no time of the processor to any other process.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def write_video(
    path: str | Path,
    frames: np.ndarray,
    *,
    fps: float = 30,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    gop: int = 12,
    bframes: int = 0,
    options: dict[str, str] | None = None,
    times: Sequence[float] | None = None,
    container_format: str | None = None,
    with_audio: bool = False,
    rotation: float | None = None,
    mirrored: bool = False,
    container_options: dict[str, str] | None = None,
    full_range: bool = False,
) -> Path:
    """Encode frames.

    Args:
        path: File to write; its ending chooses the container unless `container_format` does.
        frames: uint8 (T, H, W, 3) RGB.
        fps: Frame rate, constant unless `times` are given.
        codec: FFmpeg's name of the encoder.
        pixel_format: What the encoder gets; odd sizes need one without subsampling or an encoder
            that pads.
        gop: Frames from a key frame to the next.
        bframes: B-frames in a row, at most.
        options: Of the encoder; those that fix B-frames are added for libx264 and libx265.
        times: Seconds at which the frames appear (T,), for a variable rate.
        container_format: FFmpeg's name of the container.
        with_audio: Put a tone into stream 0, in front of the video stream.
        rotation: Degrees, counter-clockwise, by which a player is told to turn the picture.
        mirrored: Tell players to mirror the picture left to right as well.
        container_options: Of the muxer.
        full_range: Store values of 0 to 255 instead of 16 to 235, and say so.

    Returns:
        The path.
    """
    all_options = dict(options or {})
    if codec == "libx264":
        all_options = {"preset": "veryfast", "crf": "18", "b-adapt": "0", **all_options}
        all_options = {"sc_threshold": "0", "keyint_min": str(gop), **all_options}
    if codec == "libx265":
        fixed = f"log-level=none:b-adapt=0:scenecut=0:keyint={gop}:min-keyint={gop}"
        fixed += f":bframes={bframes}:pools=1:frame-threads=1"
        extra = all_options.pop("x265-params", "")
        all_options = {"preset": "ultrafast", **all_options, "x265-params": f"{fixed}:{extra}"}
    with (
        ordinary_scheduling(),
        av.open(
            str(path), "w", format=container_format, options=container_options or {}
        ) as container,
    ):
        audio = container.add_stream("aac", rate=16_000, layout="mono") if with_audio else None
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.options = all_options
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = bframes
        values = {"dst_color_range": "JPEG"} if full_range else {}
        if full_range:
            stream.codec_context.color_range = ColorRange.JPEG
        if times is not None:
            stream.codec_context.time_base = Fraction(1, _CLOCK)
        if rotation is not None or mirrored:
            stream.set_display_rotation(rotation or 0.0, hflip=mirrored)
        if audio is not None:
            write_tone(container, audio, seconds=len(frames) / fps)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(format=pixel_format, **values)
            if times is not None:
                frame.pts, frame.time_base = round(times[number] * _CLOCK), Fraction(1, _CLOCK)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return Path(path)


def write_tone(container, stream, *, seconds: float) -> None:
    """Encode a tone into an audio stream of a container."""
    samples = np.sin(np.arange(int(16_000 * seconds)) * 0.2).astype(np.float32)
    for begin in range(0, len(samples) - 1024, 1024):
        piece = np.ascontiguousarray(samples[None, begin : begin + 1024])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16_000, begin
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
