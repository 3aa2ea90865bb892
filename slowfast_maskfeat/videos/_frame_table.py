"""The table of a file's frames, read from its packets with PyAV without decoding them."""

from __future__ import annotations

import io
import math
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.videos.video import DecodeError, StalledError

# Containers that keep the presentation time of every frame. Others leave the demuxer to guess, and
# its guess depends on where reading began (MPEG program streams) or is wrong (AVI with B-frames).
_FORMATS_WITH_PRESENTATION_TIMES = frozenset(
    {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv", "mpegts"}
)
# Those among them in which a seek finds the key frame before a time, by an index.
_SEEKABLE_FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
_LONGEST_DELAY = 1  # seconds from decoding a frame to showing it


@dataclass(frozen=True)
class FrameTable:
    """Frames of a video stream, one a row, in the order of their presentation times.

    Attributes:
        pts: int64 (rows,), presentation time stamps in units of `time_base`, ascending.
        durations: int64 (rows,), how long each is shown; 0 where the file does not tell.
        stored: int64 (rows,), position of each among the packets, in storage order.
        is_key: bool (rows,), whether decoding can start there.
        shown: int64 (num_frames,), rows of the frames that are shown; the others lie outside of
            the edit list and are only decoded because shown ones lean on them.
        time_base: Seconds a unit of `pts` lasts.
        rate: Average frames per second by the file's header, or None.
        has_trusted_pts: False if a frame cannot be known by its time stamp (missing, repeated or
            guessed ones): then `pts` only counts packets and frames must be counted.
    """

    pts: NDArray[np.int64]
    durations: NDArray[np.int64]
    stored: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    shown: NDArray[np.int64]
    time_base: Fraction
    rate: Fraction | None
    has_trusted_pts: bool

    def recounted(self, num_frames: int) -> FrameTable:
        """This table where the decoder shows `num_frames` frames, whatever the packets promise."""
        return self if num_frames == len(self.shown) else _counted_table(num_frames, self.rate)

    def times(self) -> tuple[NDArray[np.float64], float, float]:
        """Seconds of each frame, frames per second, and the duration in seconds."""
        pts = self.pts[self.shown]
        num_frames = len(pts)
        usual = int(np.median(np.diff(pts))) if num_frames > 1 else 0
        last = int(self.durations[self.shown[-1]]) or usual
        unit = float(self.time_base)
        duration = float(pts[-1] - pts[0] + last) * unit
        rate = float(self.rate) if self.rate else 0.0
        if duration <= 0:
            rate = rate or 1.0
            duration = num_frames / rate
        # The header's rate is exact where the rate is constant, the sum of rounded stamps is not.
        if rate > 0 and abs(rate * duration - num_frames) < 0.5:
            duration = num_frames / rate
        else:
            rate = num_frames / duration
        return pts.astype(np.float64) * unit, rate, duration


class _NamedBytes(io.BytesIO):
    """Bytes with a name, whose ending helps FFmpeg to tell what they are."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def open_container(
    path: str, *, num_threads: int, read_timeout: float, content: bytes | None = None
) -> tuple[Any, Any]:
    """Open a file with PyAV: (container, its main video stream).

    Args:
        path: The file or address.
        content: Its bytes, where it can't be opened by its path.
        num_threads: Of the decoder.
        read_timeout: Seconds that an address may take to be opened, and then to give a packet; 0
            for no limit. Files have none.

    Raises:
        StalledError: It is an address, and took longer.
        DecodeError: It is no video, or damaged beyond use.
    """
    # PyAV looks at the clock before it reads, so it would also give up a file in a run that was
    # stopped meanwhile.
    is_bounded = read_timeout > 0 and content is None and "://" in path
    limit = read_timeout if is_bounded else None
    # The limit is PyAV's on opening and on each packet, FFmpeg's (microseconds) on the reads of a
    # seek, for which PyAV has none.
    options = {} if limit is None else {"rw_timeout": f"{limit * 1e6:.0f}"}
    start = time.monotonic()
    try:
        source = path if content is None else _NamedBytes(content, path)
        container = av.open(source, timeout=limit, options=options)
    except (av.FFmpegError, ValueError, OSError) as error:
        # FFmpeg reports an index that did not come as invalid data.
        if limit is not None and time.monotonic() - start >= limit:
            raise StalledError(path) from error
        raise DecodeError(path, f"cannot be opened as a video: {reason_of(error)}") from error
    try:
        stream = container.streams.best("video")
        if stream is None:
            if limit is not None and time.monotonic() - start >= limit:
                raise StalledError(path)  # its header came in part
            raise DecodeError(path, "has no video stream")
        if stream.codec_context is None:
            raise DecodeError(path, "its video codec is unknown to this FFmpeg")
        stream.thread_type = "AUTO"
        stream.thread_count = num_threads
    except BaseException:
        container.close()
        raise
    return container, stream


def extent_of(container: Any, stream: Any) -> tuple[float, float] | None:
    """When a stream's first frame is shown, and how long it lasts, by the header alone.

    Returns:
        Both in seconds; None for a file that has no presentation times of its own, or no length.
    """
    if container.format.name not in _SEEKABLE_FORMATS or not stream.time_base:
        return None
    unit = float(stream.time_base)
    duration = (stream.duration or 0) * unit or (container.duration or 0) / 1e6
    return ((stream.start_time or 0) * unit, duration) if duration > 0 else None


def read_frame_table(
    path: str, container: Any, stream: Any, window: tuple[float, float] | None = None
) -> FrameTable:
    """Read all packets of a stream that was just opened and tabulate its frames.

    Damage ends the table where it begins: the frames before it stay usable.

    Args:
        path: For messages.
        container: Opened.
        stream: Of it.
        window: First and last second on the clock of the time stamps: only the frames in it, and
            from the key frame before it, are read.

    Raises:
        DecodeError: There is no frame.
    """
    first, last = (
        (None, None)
        if window is None
        else (math.floor(second / stream.time_base) for second in window)
    )
    rows: list[tuple[int | None, int | None, int, bool, bool]] = []
    damage = ""
    try:
        if first is not None:
            # An index goes by the times of decoding, which are earlier than those of showing.
            early = first - math.ceil(_LONGEST_DELAY / stream.time_base)
            container.seek(max(early, stream.start_time or 0), stream=stream)
        for packet in container.demux(stream):
            # Size 0: end of the stream, or "show the last frame again" in AVI. A corrupt one is
            # the torn end of a truncated file.
            if packet.size > 0 and not packet.is_corrupt:
                if last is not None and packet.dts is not None and packet.dts > last:
                    break  # what comes now is shown later still
                duration, is_key = packet.duration or 0, packet.is_keyframe
                rows.append((packet.pts, packet.dts, duration, is_key, not packet.is_discard))
    except av.FFmpegError as error:
        refuse_stall(path, error)
        damage = f" ({reason_of(error)})"
    # What is stored before the first key frame leans on frames that were cut off.
    rows = rows[next((i for i, row in enumerate(rows) if row[3]), 0) :]
    if window is not None:
        rows = _inside(rows, last)
    if not any(row[4] for row in rows):
        raise DecodeError(path, f"has no frames{_in_window(window)}{damage}")
    pts, dts, durations, is_key, is_shown = (list(column) for column in zip(*rows, strict=True))
    name = container.format.name
    # In AVI stamps count frames as they are stored: as they are shown, if there are no B-frames.
    is_kept = name in _FORMATS_WITH_PRESENTATION_TIMES or (name == "avi" and pts == dts)
    is_trusted = is_kept and _are_distinct(pts)
    rate = stream.average_rate or stream.guessed_rate
    if not is_trusted and not _are_distinct(dts):
        return _counted_table(sum(is_shown), rate)
    stamps = np.array(pts if is_trusted else dts, np.int64)
    order = np.argsort(stamps, kind="stable")
    return FrameTable(
        pts=stamps[order],
        durations=np.array(durations, np.int64)[order],
        stored=order,
        is_key=np.array(is_key, np.bool_)[order],
        shown=np.flatnonzero(np.array(is_shown, np.bool_)[order]),
        time_base=stream.time_base,
        rate=rate,
        has_trusted_pts=is_trusted,
    )


def _inside(
    rows: list[tuple[int | None, int | None, int, bool, bool]], last: int | None
) -> list[tuple[int | None, int | None, int, bool, bool]]:
    """The rows of which everything is known that is shown between the first one and `last`.

    What is shown before the first key frame leans on frames in front of it, and what is shown after
    `last` may have neighbors that were not read.
    """
    first = rows[0][0] if rows else None
    return [
        row if row[0] is None or (first or 0) <= row[0] <= (last or 0) else (*row[:4], False)
        for row in rows
    ]


def _in_window(window: tuple[float, float] | None) -> str:
    return "" if window is None else f" from {window[0]:.1f} to {window[1]:.1f} s"


def refuse_stall(path: str, error: BaseException) -> None:
    """Tell a time limit that was passed from damage: what was read so far is no file then.

    Raises:
        StalledError: `error` is that of PyAV's time limit.
    """
    if isinstance(error, av.error.ExitError):
        raise StalledError(path) from error


def reason_of(error: BaseException) -> str:
    """What a decoder's error says, in one line without the path."""
    return getattr(error, "strerror", None) or first_line(error)


def _are_distinct(stamps: list[int | None]) -> bool:
    return None not in stamps and len(set(stamps)) == len(stamps)


def _counted_table(num_frames: int, rate: Fraction | None) -> FrameTable:
    """Frames at a constant rate (25 a second where none is known)."""
    rate = rate or Fraction(25)
    return FrameTable(
        pts=np.arange(num_frames, dtype=np.int64),
        durations=np.ones(num_frames, np.int64),
        stored=np.arange(num_frames, dtype=np.int64),
        is_key=np.zeros(num_frames, np.bool_),
        shown=np.arange(num_frames, dtype=np.int64),
        time_base=1 / rate,
        rate=rate,
        has_trusted_pts=False,
    )
