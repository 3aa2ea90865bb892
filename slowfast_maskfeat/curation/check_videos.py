"""Tell whether a video file is whole, and measure it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.curation.jobs import Failure
from slowfast_maskfeat.videos._frame_table import FrameTable, open_container, read_frame_table
from slowfast_maskfeat.videos.decode import available_backends, open_around, open_video
from slowfast_maskfeat.videos.media import is_image
from slowfast_maskfeat.videos.video import DecodeError, Video

_CHUNK = 32  # frames in memory at a time
# Headers round durations and count a frame too many; so much less than promised is damage.
_SHORT_SHARE, _SHORT_FRAMES = 0.02, 1.5
# decord errs close to key frames: so many of them are looked at, and their neighbors.
_NUM_KEYS, _KEY_NEIGHBORS = 6, 3
# Mean difference in gray levels above which two pictures are not the same frame: between the
# rounding of two decoders (below 1.5) and that of frames which a person can tell apart.
_OTHER_FRAME = 3.0


def require_decoder(name: str) -> None:
    """Refuse a decoder that does not load.

    Raises:
        ValueError: It is absent; the message says why.
    """
    version = available_backends().get(name, "")
    if version.startswith("absent"):
        raise ValueError(f"the decoder {name} is {version}")


def check_video(path: str, *, backend: str = "auto", full: bool = False) -> Failure | None:
    """Decode the first, the middle and the last frame of a video.

    A file that holds clearly less than its header promises is refused, although its front part can
    be decoded. With decord, which gives other frames than asked for without an error (see
    docs/decoders.md), the number of frames, their times, and the pictures also around key frames
    are compared with those of PyAV.

    Args:
        path: The file or address.
        backend: The decoder; see `open_video`.
        full: Decode all frames (and compare all, with decord).

    Returns:
        None if nothing is wrong, or what is.
    """
    try:
        with open_video(path, backend) as video:
            if is_image(path):
                video.frames([0])
                return None
            table = _whole_table(path)
            if backend == "decord":
                _compare_with_pyav(video, table, full)
                return None
            if full:
                wanted = np.arange(video.num_frames)
            else:
                wanted = np.unique([0, video.num_frames // 2, video.num_frames - 1])
            for begin in range(0, len(wanted), _CHUNK):
                video.frames(wanted[begin : begin + _CHUNK])
    except DecodeError as error:
        return Failure(error.reason)
    except OSError as error:
        return Failure(error.strerror or str(error))
    return None


def measure_video(path: str) -> dict[str, Any] | Failure:
    """Frames, frames per second, seconds, width and height (upright) of a video.

    Returns:
        `num_frames`, `fps`, `duration`, `width`, `height`; or why it cannot be measured.
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
    """Seconds that a video lasts, by its header, if a frame of its middle can be decoded.

    Returns:
        The seconds; or why it can't be read.
    """
    lengths: list[float] = []

    def middle(length: float) -> float:
        lengths.append(length)
        return length / 2

    try:
        video, moment = open_around(path, middle, seconds=0.5)
        with video:
            video.frames([int(np.abs(video.timestamps - moment).argmin())])
    except DecodeError as error:
        return Failure(error.reason)
    except OSError as error:
        return Failure(error.strerror or str(error))
    return lengths[-1]


def _whole_table(path: str) -> FrameTable:
    """The frames that a file holds.

    Raises:
        DecodeError: They are clearly less than its header promises.
    """
    container, stream = open_container(path, num_threads=1, read_timeout=0.0)
    try:
        promised = stream.frames
        unit = stream.time_base
        seconds = float(stream.duration * unit) if stream.duration and unit else 0.0
        if not seconds and container.duration and len(container.streams) == 1:
            seconds = container.duration / 1e6
        table = read_frame_table(path, container, stream)
    finally:
        container.close()
    # Also those outside of the edit list, which the header counts.
    found = len(table.pts)
    if not promised and table.has_trusted_pts and seconds:
        rate = table.times()[1]
        promised = round(seconds * rate)
        # Without a count the header says when the stream ends, wherever it begins.
        found += round(max(0.0, float(table.pts[0] * table.time_base)) * rate)
    if promised - found > max(_SHORT_FRAMES, _SHORT_SHARE * promised):
        raise DecodeError(
            path, f"ends early: it holds {found} of the {promised} frames that its header promises"
        )
    return table


def _compare_with_pyav(video: Video, table: FrameTable, full: bool) -> None:
    """Compare an open video with what PyAV makes of the file.

    Raises:
        DecodeError: They differ.
    """
    with open_video(video.path, "pyav") as exact:
        if video.num_frames != exact.num_frames:
            raise DecodeError(
                video.path,
                f"{video.backend} finds {video.num_frames} frames where there are "
                f"{exact.num_frames}",
            )
        shift = np.abs(
            (video.timestamps - video.timestamps[0]) - (exact.timestamps - exact.timestamps[0])
        )
        worst = int(shift.argmax())
        if shift[worst] > 0.5 / exact.fps:
            raise DecodeError(
                video.path,
                f"{video.backend} puts frame {worst} {shift[worst]:.3f} s from where it is",
            )
        # Singly, so that each one is a seek: that is where it errs.
        for index in _telling_frames(table, exact.num_frames, full).tolist():
            ours, theirs = video.frames([index]), exact.frames([index])
            if ours.shape != theirs.shape:
                raise DecodeError(
                    video.path, f"{video.backend} gives frames of {ours.shape[2]}x{ours.shape[1]}"
                )
            difference = np.abs(ours.astype(np.int16) - theirs).mean()
            if difference > _OTHER_FRAME:
                raise DecodeError(
                    video.path, f"{video.backend} gives another picture for frame {index}"
                )


def _telling_frames(table: FrameTable, num_frames: int, full: bool) -> NDArray[np.integer]:
    """Numbers of the frames to compare: first, middle, last and those around key frames."""
    if full:
        return np.arange(num_frames)
    wanted = [0, num_frames // 2, num_frames - 1]
    keys = np.flatnonzero(table.is_key[table.shown])
    if len(keys) and len(table.shown) == num_frames:
        for key in keys[np.unique(np.linspace(0, len(keys) - 1, _NUM_KEYS).astype(int))]:
            wanted += range(key - _KEY_NEIGHBORS, key + _KEY_NEIGHBORS + 1)
    frames = np.unique(wanted)
    return frames[(frames >= 0) & (frames < num_frames)]
