"""Checks and measurements of video files."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.curation.jobs import Failure
from slowfast_maskfeat.videos._container import open_container
from slowfast_maskfeat.videos._frame_table import FrameTable, read_frame_table
from slowfast_maskfeat.videos.decode import (
    available_backends,
    fetch,
    installation,
    open_around,
    open_video,
)
from slowfast_maskfeat.videos.media import MAX_IMAGE_PIXELS, is_image
from slowfast_maskfeat.videos.video import DecodeError, Video

_CHUNK = 32  # frames in memory at a time
# Headers round durations and may count one frame too many; larger differences are damage.
_SHORT_SHARE, _SHORT_FRAMES = 0.02, 1.5
# decord fails close to key frames: this many of them are checked, and this many neighbors.
_NUM_KEYS, _KEY_NEIGHBORS = 6, 3
# Mean difference in gray levels above which two pictures are different frames: above the rounding
# differences of two decoders (below 1.5), below the visible differences of two frames.
_OTHER_FRAME = 3.0


def require_decoder(name: str) -> None:
    """Check that a decoder can be imported.

    Raises:
        ValueError: it cannot; the message contains the reason.
    """
    version = available_backends().get(name, "")
    if version.startswith("absent"):
        raise ValueError(
            f"the decoder must be installed, got {name!r}, which is {version}; {installation(name)}"
        )


def check_video(
    path: str,
    *,
    backend: str = "auto",
    full: bool = False,
    max_image_pixels: int = MAX_IMAGE_PIXELS,
) -> Failure | None:
    """Decode the first, the middle and the last frame of a video.

    A file with clearly fewer frames than in its header fails, although its beginning can be
    decoded. decord may return wrong frames without an error (see docs/decoders.md), so the number
    of frames, their times, and the pictures, also around key frames, are compared with PyAV's.

    Args:
        path: file or address.
        backend: decoder; see `open_video`.
        full: decode all frames, and with decord compare all.
        max_image_pixels: see `open_video`.

    Returns:
        None if the check passes.
    """
    try:
        content = fetch(path)
        with open_video(path, backend, content=content, max_image_pixels=max_image_pixels) as video:
            if is_image(path):
                video.frames([0])
                return None
            table = _whole_table(path, content)
            if backend == "decord":
                with open_video(path, "pyav", content=content) as exact:
                    _compare(video, exact, table, full)
                return None
            if full:
                indices = np.arange(video.num_frames)
            else:
                indices = np.unique([0, video.num_frames // 2, video.num_frames - 1])
            for begin in range(0, len(indices), _CHUNK):
                video.frames(indices[begin : begin + _CHUNK])
    except DecodeError as error:
        return Failure(error.reason)
    except OSError as error:
        return Failure(error.strerror or str(error))
    return None


def measure_video(path: str) -> dict[str, Any] | Failure:
    """Measure a video.

    Returns:
        `num_frames`, `fps` (frames per second), `duration` (seconds), `width` and `height` (pixels,
        upright); or a `Failure`.
    """
    try:
        with open_video(path, "pyav") as video:
            height, width = video.frames([0]).shape[1:3]
            return {
                "num_frames": video.num_frames,
                "fps": video.fps,
                "duration": video.duration,
                "width": width,
                "height": height,
            }
    except DecodeError as error:
        return Failure(error.reason)
    except OSError as error:
        return Failure(error.strerror or str(error))


def measure_length(path: str) -> float | Failure:
    """Duration of a video from its header, if a frame in its middle can be decoded.

    Returns:
        Seconds; or a `Failure`.
    """
    lengths: list[float] = []

    def middle(length: float) -> float:
        lengths.append(length)
        return length / 2

    try:
        video, timestamp = open_around(path, middle, seconds=0.5)
        with video:
            video.frames([int(np.abs(video.timestamps - timestamp).argmin())])
    except DecodeError as error:
        return Failure(error.reason)
    except OSError as error:
        return Failure(error.strerror or str(error))
    return lengths[-1]


def _whole_table(path: str, content: bytes | None) -> FrameTable:
    """Table of the frames in a file.

    Raises:
        DecodeError: there are clearly fewer than in the header.
    """
    container, stream = open_container(path, content=content, num_threads=1, read_timeout=0.0)
    try:
        promised = stream.frames
        unit = stream.time_base
        seconds = float(stream.duration * unit) if stream.duration and unit else 0.0
        if not seconds and container.duration and len(container.streams) == 1:
            seconds = container.duration / 1e6
        table = read_frame_table(path, container, stream)
    finally:
        container.close()
    # Including frames outside of the edit list, as in the header.
    found = len(table.pts)
    if not promised and table.has_trusted_pts and seconds:
        rate = table.times()[1]
        promised = round(seconds * rate)
        # Without a count, the header has the end of the stream, wherever it begins.
        found += round(max(0.0, float(table.pts[0] * table.time_base)) * rate)
    if promised - found > max(_SHORT_FRAMES, _SHORT_SHARE * promised):
        raise DecodeError(
            path, f"ends early: it has {found} frames, and its header says {promised}"
        )
    return table


def _compare(video: Video, exact: Video, table: FrameTable, full: bool) -> None:
    """Compare an open video with the file's frames as PyAV returns them.

    Raises:
        DecodeError: they differ.
    """
    if video.num_frames != exact.num_frames:
        raise DecodeError(
            video.path,
            f"{video.backend} finds {video.num_frames} frames instead of {exact.num_frames}",
        )
    shift = np.abs(
        (video.timestamps - video.timestamps[0]) - (exact.timestamps - exact.timestamps[0])
    )
    worst = int(shift.argmax())
    if shift[worst] > 0.5 / exact.fps:
        raise DecodeError(
            video.path,
            f"{video.backend} shifts frame {worst} by {shift[worst]:.3f} s",
        )
    # One by one, so that each one needs a seek, which is where decord fails.
    for index in _compared_frames(table, exact.num_frames, full).tolist():
        ours, theirs = video.frames([index]), exact.frames([index])
        if ours.shape != theirs.shape:
            raise DecodeError(
                video.path, f"{video.backend} returns frames of {ours.shape[2]}x{ours.shape[1]}"
            )
        difference = np.abs(ours.astype(np.int16) - theirs).mean()
        if difference > _OTHER_FRAME:
            raise DecodeError(
                video.path, f"{video.backend} returns a different picture for frame {index}"
            )


def _compared_frames(table: FrameTable, num_frames: int, full: bool) -> NDArray[np.integer]:
    """Indices of the frames to compare: first, middle, last, and those around key frames."""
    if full:
        return np.arange(num_frames)
    indices = [0, num_frames // 2, num_frames - 1]
    keys = np.flatnonzero(table.is_key[table.shown])
    if len(keys) and len(table.shown) == num_frames:
        for key in keys[np.unique(np.linspace(0, len(keys) - 1, _NUM_KEYS).astype(int))]:
            indices += range(key - _KEY_NEIGHBORS, key + _KEY_NEIGHBORS + 1)
    frames = np.unique(indices)
    return frames[(frames >= 0) & (frames < num_frames)]
