"""The table of a file's frames, read from its packets with PyAV without decoding them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.videos.video import DecodeError, StalledError, reason_of

# Containers that store a presentation timestamp for every frame. For the others the demuxer
# guesses, and its guess depends on where reading began (MPEG program streams) or is wrong (AVI with
# B-frames).
_FORMATS_WITH_PRESENTATION_TIMES = frozenset(
    {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv", "mpegts"}
)
# Of these, the containers with an index, in which a seek finds the key frame before a timestamp.
_SEEKABLE_FORMATS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
_MAX_REORDER_SECONDS = 1  # from decoding a frame to displaying it


# Of a packet: pts, dts, duration, whether it is a key frame, and whether it is shown.
_Row = tuple[int | None, int | None, int, bool, bool]


@dataclass(frozen=True)
class FrameTable:
    """Frames of a video stream in presentation order, one per row.

    Attributes:
        pts: int64 (rows,), presentation timestamps in units of `time_base`, ascending.
        durations: int64 (rows,), in units of `time_base`; 0 where the file has none.
        stored: int64 (rows,), position of each frame's packet in storage order.
        is_key: bool (rows,), True where decoding can start.
        shown: int64 (num_frames,), rows of the displayed frames. The others lie outside the edit
            list and are decoded only because displayed frames refer to them.
        time_base: seconds per unit of `pts`.
        rate: average frames per second from the file header, or None.
        has_trusted_pts: False if timestamps do not identify frames (missing, repeated or guessed):
            then `pts` only counts packets, and frames are found by counting.
    """

    pts: NDArray[np.int64]
    durations: NDArray[np.int64]
    stored: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    shown: NDArray[np.int64]
    time_base: Fraction
    rate: Fraction | None
    has_trusted_pts: bool

    def with_num_frames(self, num_frames: int) -> FrameTable:
        """The table for `num_frames` decoded frames, a number that may differ from the packets'."""
        return self if num_frames == len(self.shown) else _counted_table(num_frames, self.rate)

    def times(self) -> tuple[NDArray[np.float64], float, float]:
        """Timestamps of the displayed frames in seconds, frames per second, duration in seconds."""
        pts = self.pts[self.shown]
        num_frames = len(pts)
        typical = int(np.median(np.diff(pts))) if num_frames > 1 else 0
        last = int(self.durations[self.shown[-1]]) or typical
        unit = float(self.time_base)
        duration = float(pts[-1] - pts[0] + last) * unit
        rate = float(self.rate) if self.rate else 0.0
        if duration <= 0:
            rate = rate or 1.0
            duration = num_frames / rate
        # The header's rate is exact where the rate is constant; a sum of rounded timestamps is not.
        if rate > 0 and abs(rate * duration - num_frames) < 0.5:
            duration = num_frames / rate
        else:
            rate = num_frames / duration
        return pts.astype(np.float64) * unit, rate, duration


def extent_of(container: Any, stream: Any) -> tuple[float, float] | None:
    """Timestamp of a stream's first frame and the stream's duration, from the header alone.

    Returns:
        Both in seconds; None for a format without presentation timestamps or an index, or a file
        without a duration.
    """
    if container.format.name not in _SEEKABLE_FORMATS or not stream.time_base:
        return None
    unit = float(stream.time_base)
    duration = (stream.duration or 0) * unit or (container.duration or 0) / 1e6
    return ((stream.start_time or 0) * unit, duration) if duration > 0 else None


def read_frame_table(
    path: str, container: Any, stream: Any, window: tuple[float, float] | None = None
) -> FrameTable:
    """Read all packets of a newly opened stream and tabulate its frames.

    The table ends at the first damage: the frames before it stay usable.

    Args:
        path: file name for messages.
        container: open PyAV container.
        stream: video stream of the container.
        window: first and last timestamp in seconds: only the frames between them, and those since
            the key frame before them, are read.

    Raises:
        DecodeError: there are no frames.
    """
    rows, last, damage = _read_rows(path, container, stream, window)
    # Packets before the first key frame refer to frames that are not in the file.
    rows = rows[next((i for i, row in enumerate(rows) if row[3]), 0) :]
    if window is not None:
        rows = _hide_outside(rows, last)
    if not any(row[4] for row in rows):
        raise DecodeError(path, f"has no frames{_in_window(window)}{damage}")
    pts, dts, durations, is_key, is_shown = (list(column) for column in zip(*rows, strict=True))
    name = container.format.name
    # AVI timestamps count frames in storage order, which is display order without B-frames.
    is_stored = name in _FORMATS_WITH_PRESENTATION_TIMES or (name == "avi" and pts == dts)
    # In a transport stream of joined parts the clock can start again.
    has_one_clock = name != "mpegts" or _ascend(dts)
    is_trusted = is_stored and has_one_clock and _are_distinct(pts)
    rate = stream.average_rate or stream.guessed_rate
    if not is_trusted and not (has_one_clock and _are_distinct(dts)):
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


def _read_rows(
    path: str, container: Any, stream: Any, window: tuple[float, float] | None
) -> tuple[list[_Row], int | None, str]:
    """Read the packets of a stream up to the first damage.

    Returns:
        The rows in storage order, the last timestamp of the window in the stream's units, and the
        damage in words, or "".
    """
    first, last = (
        (None, None)
        if window is None
        else (math.floor(second / stream.time_base) for second in window)
    )
    rows: list[_Row] = []
    num_intact = 0
    damage = ""
    try:
        if first is not None:
            # The index is sorted by decoding time, which is earlier than presentation time.
            early = first - math.ceil(_MAX_REORDER_SECONDS / stream.time_base)
            container.seek(max(early, stream.start_time or 0), stream=stream)
        for packet in container.demux(stream):
            # A packet of size 0 is the end of the stream, or "repeat the last frame" in AVI.
            if packet.size > 0:
                if last is not None and packet.dts is not None and packet.dts > last:
                    break  # all further frames are displayed after the window
                duration, is_key = packet.duration or 0, packet.is_keyframe
                rows.append((packet.pts, packet.dts, duration, is_key, not packet.is_discard))
                if not packet.is_corrupt:
                    num_intact = len(rows)
    except av.FFmpegError as error:
        raise_if_stalled(path, error)
        damage = f" ({reason_of(error)})"
    # Corrupt packets are the end of a truncated file. Where a transport stream was joined, one has
    # the same mark, but its frame can be decoded.
    del rows[num_intact:]
    return rows, last, damage


def _hide_outside(rows: list[_Row], last: int | None) -> list[_Row]:
    """Mark frames displayed before the first row's or after `last` as not displayed.

    Frames displayed before the first key frame refer to earlier frames, and frames displayed after
    `last` may have neighbors that were not read.
    """
    first = rows[0][0] if rows else None
    return [
        row if row[0] is None or (first or 0) <= row[0] <= (last or 0) else (*row[:4], False)
        for row in rows
    ]


def _in_window(window: tuple[float, float] | None) -> str:
    return "" if window is None else f" from {window[0]:.1f} to {window[1]:.1f} s"


def raise_if_stalled(path: str, error: BaseException) -> None:
    """Distinguish a timeout from damage; only after damage are the frames read so far usable.

    Raises:
        StalledError: `error` is PyAV's timeout.
    """
    if isinstance(error, av.error.ExitError):
        raise StalledError(path) from error


def _are_distinct(stamps: list[int | None]) -> bool:
    return None not in stamps and len(set(stamps)) == len(stamps)


def _ascend(stamps: list[int | None]) -> bool:
    known = [stamp for stamp in stamps if stamp is not None]
    return known == sorted(known)


def _counted_table(num_frames: int, rate: Fraction | None) -> FrameTable:
    """Table of frames at a constant rate, 25 per second if `rate` is None."""
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
