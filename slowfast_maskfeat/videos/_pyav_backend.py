"""Decode with PyAV: exact frames by presentation time, decoding no more than is needed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from slowfast_maskfeat.videos._frame_table import (
    FrameTable,
    extent_of,
    open_container,
    read_frame_table,
    refuse_stall,
)
from slowfast_maskfeat.videos.video import DecodeError, Video

# Opens the file once more: (container, its main video stream).
_Open = Callable[[], tuple[Any, Any]]

# Decoding this many frames to reach the next wanted one costs less than a seek.
_NEAR = 4


def open_file(path: str, *, content: bytes | None, num_threads: int, read_timeout: float) -> Video:
    """Open a file; see `open_video`."""
    reopen = partial(
        open_container,
        path,
        content=content,
        num_threads=num_threads,
        read_timeout=read_timeout,
    )
    container, stream = reopen()
    try:
        table = read_frame_table(path, container, stream)
        if not table.has_trusted_pts:
            with closing(decode_all(reopen)) as shown:
                num_frames = sum(1 for _ in shown)
            if num_frames == 0:
                raise DecodeError(path, "no frame of it can be decoded")
            table = table.recounted(num_frames)
        return _PyAVVideo(path, container, stream, table, reopen)
    except BaseException:
        container.close()
        raise


def open_window(
    path: str,
    place: Callable[[float], float],
    *,
    seconds: float,
    num_threads: int,
    read_timeout: float,
) -> tuple[Video, float] | None:
    """Open what a file shows about one moment, without reading the rest of it.

    Args:
        path: The file or address.
        place: Says of the length of the file in seconds where the moment is, from its first frame.
        seconds: What is needed before and after it.
        num_threads: Of the decoder.
        read_timeout: Seconds without data.

    Returns:
        The video, of which only frames about the moment are known, and where the moment is on the
        clock of their time stamps; None for a file that can't be read from its middle.

    Raises:
        DecodeError: See `open_file`; or what `place` raises.
    """
    reopen = partial(open_container, path, num_threads=num_threads, read_timeout=read_timeout)
    container, stream = reopen()
    try:
        extent = extent_of(container, stream)
        if extent is None:
            container.close()
            return None
        origin, duration = extent
        moment = origin + place(duration)
        table = read_frame_table(path, container, stream, (moment - seconds, moment + seconds))
        if not table.has_trusted_pts:
            container.close()
            return None
        return _PyAVVideo(path, container, stream, table, reopen), moment
    except BaseException:
        container.close()
        raise


class _PyAVVideo(Video):
    backend = "pyav"

    def __init__(
        self, path: str, container: Any, stream: Any, table: FrameTable, reopen: _Open
    ) -> None:
        timestamps, fps, duration = table.times()
        super().__init__(path, timestamps=timestamps, fps=fps, duration=duration)
        self._container = container
        self._stream = stream
        self._reopen = reopen
        self._table = table
        self._reformatter: Any = VideoReformatter()

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        # They refer to each other: dropping them frees the decoder now, not at some later
        # garbage collection.
        self._container = self._stream = self._reformatter = None

    def _decode(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        if self._container is None:
            raise ValueError(f"{self.path}: the video is closed")
        clip = _Clip(self._reformatter, len(indices))
        rows = self._table.shown[indices]
        names = self._table.pts[rows] if self._table.has_trusted_pts else indices
        places = dict(zip(names.tolist(), range(len(indices)), strict=True))
        if self._table.has_trusted_pts:
            for key, last in self._runs(rows.tolist()):
                self._decode_run(clip, places, key=key, last=last)
        if clip.num_missing:
            # Frames that can only be counted, a seek that went astray, a key frame that was none.
            self._decode_from_start(clip, places)
        if clip.num_missing:
            lost = indices[~clip.is_filled]
            raise DecodeError(
                self.path,
                f"frame {lost[0]} of {self.num_frames} (at {self.timestamps[lost[0]]:.3f} s) "
                f"cannot be decoded ({len(lost)} of the {len(indices)} asked for are missing)",
            )
        return clip.upright()

    def _runs(self, rows: list[int]) -> Iterator[tuple[int, int]]:
        """Stretches to decode: (row of the key frame to begin at, row that is stored last)."""
        keys = np.flatnonzero(self._table.is_key)
        if not len(keys):
            return
        stored = self._table.stored
        # The last key frame shown not later: with an open GOP the frames that are stored after a
        # key frame but shown before it belong to the one before.
        of_row = keys[np.maximum(np.searchsorted(keys, rows, side="right") - 1, 0)].tolist()
        key, last = of_row[0], rows[0]
        for row, next_key in zip(rows[1:], of_row[1:], strict=True):
            if next_key != key and stored[next_key] > stored[last] + _NEAR:
                yield key, last
                key, last = next_key, row
            elif stored[row] > stored[last]:
                last = row
        yield key, last

    def _decode_run(self, clip: _Clip, places: dict[int, int], *, key: int, last: int) -> None:
        """Decode from row `key` up to what row `last` needs; what fails stays missing."""
        decoder = self._stream.codec_context
        key_pts, last_pts = int(self._table.pts[key]), int(self._table.pts[last])
        is_skipping = has_begun = False
        try:
            self._container.seek(key_pts, stream=self._stream)
            for packet in self._container.demux(self._stream):
                if packet.size == 0:
                    continue
                if not has_begun and (packet.pts is None or packet.pts > key_pts):
                    return  # behind the key frame
                has_begun = True
                # A frame that no other one needs is decoded only if it is wanted itself.
                if (packet.pts not in places) != is_skipping:
                    is_skipping = not is_skipping
                    decoder.skip_frame = "NONREF" if is_skipping else "DEFAULT"
                _put_wanted(clip, places, _decode_packet(decoder, packet), first_pts=key_pts)
                if packet.pts == last_pts:
                    break
            _put_wanted(clip, places, _decode_packet(decoder, None), first_pts=key_pts)
        except av.FFmpegError as error:
            refuse_stall(self.path, error)
        finally:
            decoder.skip_frame = "DEFAULT"

    def _decode_from_start(self, clip: _Clip, places: dict[int, int]) -> None:
        """Decode all up to the last wanted frame; `places` goes by time stamp or by count."""
        with closing(decode_all(self._reopen)) as shown:
            for count, frame in enumerate(shown):
                name = frame.pts if self._table.has_trusted_pts else count
                if name in places:
                    clip.put(places[name], frame)
                    if not clip.num_missing:
                        return


class _Clip:
    """The array that a clip's frames are converted into."""

    def __init__(self, reformatter: Any, num_frames: int) -> None:
        self.is_filled = np.zeros(num_frames, np.bool_)
        self.num_missing = num_frames
        self._reformatter = reformatter
        self._pixels: NDArray[np.uint8] | None = None
        self._matrix: tuple[int, ...] | None = None

    def put(self, place: int, frame: Any) -> None:
        """Convert a decoded frame to RGB, unless this place has been filled."""
        if self.is_filled[place]:
            return
        if self._pixels is None:
            self._pixels = np.empty((len(self.is_filled), frame.height, frame.width, 3), np.uint8)
            self._matrix = display_matrix(frame)
        height, width = self._pixels.shape[1:3]
        # A stream may change its size: all frames of a clip get that of the first one decoded.
        plane = self._reformatter.reformat(frame, width, height, "rgb24").planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
        self._pixels[place] = rows[:, : width * 3].reshape(height, width, 3)
        self.is_filled[place] = True
        self.num_missing -= 1

    def upright(self) -> NDArray[np.uint8]:
        """The clip (T, H, W, 3) as a player shows it."""
        assert self._pixels is not None
        if self._matrix is None:
            return self._pixels
        return np.ascontiguousarray(orient(self._pixels, self._matrix))


def orient(pixels: NDArray[np.uint8], matrix: tuple[int, ...]) -> NDArray[np.uint8]:
    """Turn and mirror frames (T, H, W, 3) by quarter turns as a display matrix says.

    The matrix (row vectors, ISO/IEC 14496-12, 6.2.2) maps the pixel (x, y) to
    (a x + c y, b x + d y); other angles than quarter turns are not applied.
    """
    a, b, _, c, d = matrix[:5]
    x_sign, y_sign = a, d
    if abs(b) + abs(c) > abs(a) + abs(d):
        x_sign, y_sign = c, b
        pixels = pixels.transpose(0, 2, 1, 3)
    return pixels[:, :: -1 if y_sign < 0 else 1, :: -1 if x_sign < 0 else 1]


def display_matrix(frame: Any) -> tuple[int, ...] | None:
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else tuple(np.frombuffer(data, np.int32).tolist())


def _put_wanted(clip: _Clip, places: dict[int, int], frames: list[Any], *, first_pts: int) -> None:
    for frame in frames:
        # What is shown before the key frame may lean on frames that were not decoded.
        if frame.pts in places and frame.pts >= first_pts and not frame.is_corrupt:
            clip.put(places[frame.pts], frame)


def _decode_packet(decoder: Any, packet: Any) -> list[Any]:
    try:
        return decoder.decode(packet)
    except av.error.InvalidDataError:
        return []  # a damaged packet: its frame is missing, the next ones may be there


def decode_all(open_again: _Open) -> Generator[Any, None, None]:
    """All frames that can be decoded, in the order in which they are shown."""
    container, stream = open_again()
    try:
        for packet in container.demux(stream):
            # A packet of size 0 in the middle (AVI: "the same again") would end the decoder.
            if packet.size > 0:
                yield from _decode_packet(stream.codec_context, packet)
        yield from _decode_packet(stream.codec_context, None)
    except av.FFmpegError as error:
        refuse_stall(container.name, error)  # otherwise the file is torn here
    finally:
        container.close()
