"""Decode with decord (wheels for x86-64 Linux and Windows; see docs/decoders.md for its limits)."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import decord
import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.videos._container import (
    check_signature,
    fetch_unrestricted,
    local_name,
    open_container,
)
from slowfast_maskfeat.videos._remote_file import RemoteFile
from slowfast_maskfeat.videos.video import DecodeError, Video, decoding


def open_file(
    path: str, *, content: bytes | RemoteFile | None, num_threads: int, read_timeout: float
) -> Video:
    """Open a file; see `open_video`. decord has no timeout, but the reads of an address have.

    decord would open playlists and the files that they name, so PyAV looks at each file first.
    """
    content = fetch_unrestricted(path, content, read_timeout)
    container, stream = open_container(path, num_threads=1, read_timeout=0.0, content=content)
    with container:
        rate = float(stream.average_rate or stream.guessed_rate or 0)
    check_signature(path, content)
    with decoding(path, "cannot be opened as a video"):
        source = local_name(path) if content is None else BytesIO(content)
        reader = decord.VideoReader(source, ctx=decord.cpu(0), num_threads=num_threads)
        fps = float(reader.get_avg_fps())
        stamps = np.asarray(reader.get_frame_timestamp(range(len(reader))), np.float64)
        if not len(stamps):
            raise DecodeError(path, "has no frames")
        return _DecordVideo(path, reader, fps if fps > 0 else rate or 1.0, stamps)


class _DecordVideo(Video):
    backend = "decord"

    def __init__(self, path: str, reader: Any, fps: float, stamps: NDArray[np.float64]) -> None:
        starts, duration = stamps[:, 0], float(stamps[-1, 1] - stamps[0, 0])
        # For AVI, decord returns timestamps near -4e17; then only frame count and rate are usable.
        is_usable = np.isfinite(stamps).all() and (np.diff(starts) > 0).all() and 0 < duration < 1e7
        if not is_usable or abs(fps * duration - len(starts)) < 0.5:
            duration = len(starts) / fps
        else:
            fps = len(starts) / duration
        if not is_usable:
            starts = np.arange(len(starts)) / fps
        super().__init__(path, timestamps=starts, fps=fps, duration=duration)
        self._reader = reader

    def close(self) -> None:
        self._reader = None

    def _decode(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        if self._reader is None:
            raise ValueError(f"{self.path}: the video is closed")
        problem = f"frames {indices[0]}..{indices[-1]} of {self.num_frames} cannot be decoded"
        with decoding(self.path, problem):
            return self._reader.get_batch(indices.tolist()).asnumpy()
