"""Decode with PyAV: exact frames by presentation timestamp, decoding no more than needed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from fractions import Fraction
from functools import partial
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from slowfast_maskfeat.videos._container import open_container
from slowfast_maskfeat.videos._frame_table import (
    FrameTable,
    extent_of,
    raise_if_stalled,
    read_frame_table,
)
from slowfast_maskfeat.videos._remote_file import RemoteFile
from slowfast_maskfeat.videos.video import DecodeError, Video, decoding

# Opens the file again and returns (container, its best video stream).
_Open = Callable[[], tuple[Any, Any]]

# Codecs whose frames FFmpeg does not look into while it reads them from an MP4 file.
_UNPARSED_CODECS = frozenset({"h264", "hevc", "libdav1d", "av1", "vp9", "libvpx-vp9"})
# Decoding up to this many frames to reach the next requested one costs less than a seek.
_MAX_FRAMES_WITHOUT_SEEK = 4
# Above the number of FFmpeg's types of side data, 35 in release 8.
_NUM_SIDE_DATA_TYPES = 48


def open_file(
    path: str, *, content: bytes | RemoteFile | None, num_threads: int, read_timeout: float
) -> Video:
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
        container, stream, table = _read_table(path, container, stream, content, reopen)
        if not table.has_trusted_pts:
            with closing(decode_all(reopen)) as shown:
                num_frames = sum(1 for _ in shown)
            if num_frames == 0:
                raise DecodeError(path, "no frame can be decoded")
            table = table.with_num_frames(num_frames)
        return _PyAVVideo(path, container, stream, table, reopen)
    except BaseException:
        container.close()
        raise


def _read_table(
    path: str, container: Any, stream: Any, content: bytes | RemoteFile | None, reopen: _Open
) -> tuple[Any, Any, FrameTable]:
    """Read the table of all frames; return it with a container and stream to decode from."""
    if not isinstance(content, RemoteFile) or stream.codec_context.name not in _UNPARSED_CODECS:
        return container, stream, read_frame_table(path, container, stream)
    with content.skipping_media() as skips:
        table = read_frame_table(path, container, stream)
    if skips:  # the buffers of this container hold zeros
        container.close()
        container, stream = reopen()
    return container, stream, table


def open_window(
    path: str,
    locate: Callable[[float], float],
    *,
    seconds: float,
    num_threads: int,
    read_timeout: float,
    content: RemoteFile | None = None,
) -> tuple[Video, float] | None:
    """Open the part of a file around one timestamp, without reading the rest.

    Args:
        path: file or address.
        locate: maps the duration of the file to the timestamp, both in seconds, the timestamp
            counted from the first frame.
        seconds: seconds needed before and after the timestamp.
        num_threads: decoder threads.
        read_timeout: seconds allowed for opening an address and for each packet; 0 for no limit.
        content: the file, if it is in a store.

    Returns:
        The video, which has only the frames around the timestamp, and the timestamp on the clock
        of its `timestamps`; None for a file that can't be read from the middle.

    Raises:
        DecodeError: see `open_file`. Errors of `locate` are passed on.
    """
    reopen = partial(
        open_container,
        path,
        content=content,
        num_threads=num_threads,
        read_timeout=read_timeout,
    )
    container, stream = reopen()
    try:
        extent = extent_of(container, stream)
        if extent is None:
            container.close()
            return None
        start, duration = extent
        center = start + locate(duration)
        table = read_frame_table(path, container, stream, (center - seconds, center + seconds))
        if not table.has_trusted_pts:
            container.close()
            return None
        return _PyAVVideo(path, container, stream, table, reopen), center
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
        # These objects form a reference cycle: dropping them frees the decoder now instead of at a
        # later garbage collection.
        self._container = self._stream = self._reformatter = None

    def _decode(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        if self._container is None:
            raise ValueError(f"{self.path}: the video is closed")
        problem = f"frames {indices[0]}..{indices[-1]} of {self.num_frames} cannot be decoded"
        with decoding(self.path, problem):
            return self._decode_clip(indices)

    def _decode_clip(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        clip = _Clip(self._reformatter, len(indices))
        rows = self._table.shown[indices]
        ids = self._table.pts[rows] if self._table.has_trusted_pts else indices
        positions = dict(zip(ids.tolist(), range(len(indices)), strict=True))
        if self._table.has_trusted_pts:
            for key, last in self._runs(rows.tolist()):
                self._decode_run(clip, positions, key=key, last=last)
        if clip.num_missing:
            # Frames are found by counting only, a seek ended elsewhere, or a key frame was false.
            self._decode_from_start(clip, positions)
        if clip.num_missing:
            lost = indices[~clip.is_filled]
            raise DecodeError(
                self.path,
                f"frame {lost[0]} of {self.num_frames} (at {self.timestamps[lost[0]]:.3f} s) "
                f"cannot be decoded ({len(lost)} of {len(indices)} requested frames are missing)",
            )
        return clip.upright()

    def _runs(self, rows: list[int]) -> Iterator[tuple[int, int]]:
        """Split rows into runs to decode: (row of the key frame to start at, row stored last)."""
        keys = np.flatnonzero(self._table.is_key)
        if not len(keys):
            return
        stored = self._table.stored
        # For each row, the last key frame that is displayed no later: with an open GOP, frames
        # stored after a key frame but displayed before it depend on the previous key frame.
        key_of_row = keys[np.maximum(np.searchsorted(keys, rows, side="right") - 1, 0)].tolist()
        key, last = key_of_row[0], rows[0]
        for row, next_key in zip(rows[1:], key_of_row[1:], strict=True):
            if next_key != key and stored[next_key] > stored[last] + _MAX_FRAMES_WITHOUT_SEEK:
                yield key, last
                key, last = next_key, row
            elif stored[row] > stored[last]:
                last = row
        yield key, last

    def _decode_run(self, clip: _Clip, positions: dict[int, int], *, key: int, last: int) -> None:
        """Decode from row `key` up to row `last`; frames that fail stay missing."""
        decoder = self._stream.codec_context
        key_pts, last_pts = int(self._table.pts[key]), int(self._table.pts[last])
        is_skipping = has_begun = False
        try:
            self._container.seek(key_pts, stream=self._stream)
            for packet in self._container.demux(self._stream):
                if packet.size == 0:
                    continue
                if not has_begun and (packet.pts is None or packet.pts > key_pts):
                    return  # the seek ended after the key frame
                has_begun = True
                # Frames that no other frame refers to are decoded only if requested.
                if (packet.pts not in positions) != is_skipping:
                    is_skipping = not is_skipping
                    decoder.skip_frame = "NONREF" if is_skipping else "DEFAULT"
                _put_requested(clip, positions, decode_packet(decoder, packet), first_pts=key_pts)
                if packet.pts == last_pts:
                    break
            _put_requested(clip, positions, decode_packet(decoder, None), first_pts=key_pts)
        except av.FFmpegError as error:
            raise_if_stalled(self.path, error)
        finally:
            decoder.skip_frame = "DEFAULT"

    def _decode_from_start(self, clip: _Clip, positions: dict[int, int]) -> None:
        """Decode from the start to the last requested frame; keys are timestamps or counts."""
        with closing(decode_all(self._reopen)) as shown:
            for count, frame in enumerate(shown):
                frame_id = frame.pts if self._table.has_trusted_pts else count
                if frame_id in positions:
                    clip.put(positions[frame_id], frame)
                    if not clip.num_missing:
                        return


class _Clip:
    """Array that the frames of a clip are converted into."""

    def __init__(self, reformatter: Any, num_frames: int) -> None:
        self.is_filled = np.zeros(num_frames, np.bool_)
        self.num_missing = num_frames
        self._reformatter = reformatter
        self._pixels: NDArray[np.uint8] | None = None
        self._matrix: tuple[int, ...] | None = None

    def put(self, position: int, frame: Any) -> None:
        """Convert a decoded frame to RGB, unless the position is already filled."""
        if self.is_filled[position]:
            return
        if self._pixels is None:
            self._pixels = np.empty((len(self.is_filled), frame.height, frame.width, 3), np.uint8)
            self._matrix = display_matrix(frame)
        height, width = self._pixels.shape[1:3]
        # The size may change within a stream: all frames are resized to the first decoded one.
        plane = self._reformatter.reformat(frame, width, height, "rgb24").planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
        self._pixels[position] = rows[:, : width * 3].reshape(height, width, 3)
        self.is_filled[position] = True
        self.num_missing -= 1

    def upright(self) -> NDArray[np.uint8]:
        """The clip (T, H, W, 3), rotated by its display matrix."""
        assert self._pixels is not None
        if self._matrix is None:
            return self._pixels
        return np.ascontiguousarray(orient(self._pixels, self._matrix))


def orient(pixels: NDArray[np.uint8], matrix: tuple[int, ...]) -> NDArray[np.uint8]:
    """Rotate and mirror frames (T, H, W, 3) by a display matrix, in quarter turns.

    The matrix (row vectors, ISO/IEC 14496-12, 6.2.2) maps the pixel (x, y) to
    (a x + c y, b x + d y); angles other than quarter turns are not applied.
    """
    a, b, _, c, d = matrix[:5]
    x_sign, y_sign = a, d
    if abs(b) + abs(c) > abs(a) + abs(d):
        x_sign, y_sign = c, b
        pixels = pixels.transpose(0, 2, 1, 3)
    return pixels[:, :: -1 if y_sign < 0 else 1, :: -1 if x_sign < 0 else 1]


def is_mirrored(matrix: tuple[int, ...] | None) -> bool:
    """Whether a display matrix mirrors frames, rotated or not."""
    if matrix is None:
        return False
    a, b, _, c, d = matrix[:5]
    return a * d - b * c < 0


def display_matrix(frame: Any) -> tuple[int, ...] | None:
    """Display matrix of a decoded frame, 9 fixed-point numbers row by row; None if it has none."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV reads either all side data or none
        data = _without_unnamed_side_data(frame).side_data.get("DISPLAYMATRIX")
    return None if data is None else tuple(np.frombuffer(data, np.int32).tolist())


def _without_unnamed_side_data(frame: Any) -> Any:
    """The frame without the side data that PyAV has no names for, such as EXIF."""
    named: set[Any] = {kind.value for kind in SideDataType}
    graph = Graph()
    size = (frame.width, frame.height, frame.format.name)
    filters = [graph.add_buffer(None, *size, time_base=Fraction(1))]
    for kind in range(_NUM_SIDE_DATA_TYPES):
        if kind not in named:
            filters.append(graph.add("sidedata", f"mode=delete:type={kind}"))
    graph.link_nodes(*filters, graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull()


def _put_requested(
    clip: _Clip, positions: dict[int, int], frames: list[Any], *, first_pts: int
) -> None:
    for frame in frames:
        # Frames displayed before the key frame may refer to frames that were not decoded.
        if frame.pts in positions and frame.pts >= first_pts and not frame.is_corrupt:
            clip.put(positions[frame.pts], frame)


def decode_packet(decoder: Any, packet: Any) -> list[Any]:
    """Decode a packet; a damaged one returns no frames."""
    try:
        return decoder.decode(packet)
    except av.error.InvalidDataError:
        return []  # a damaged packet: its frame is lost, but the next ones may be intact


def decode_all(reopen: _Open) -> Generator[Any, None, None]:
    """Decode all frames that can be decoded, in presentation order."""
    container, stream = reopen()
    try:
        for packet in container.demux(stream):
            # A packet of size 0 in the middle (AVI: "repeat the last frame") would flush the
            # decoder, which then accepts no further packets.
            if packet.size > 0:
                yield from decode_packet(stream.codec_context, packet)
        yield from decode_packet(stream.codec_context, None)
    except av.FFmpegError as error:
        raise_if_stalled(container.name, error)  # any other error: the file is damaged from here on
    finally:
        container.close()
