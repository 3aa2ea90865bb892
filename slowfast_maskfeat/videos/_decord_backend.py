"""Decode with decord (wheels for x86-64 Linux and Windows; see docs/decoders.md for its limits)."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import decord
import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.videos._frame_table import reason_of
from slowfast_maskfeat.videos.video import DecodeError, Video


def open_file(path: str, *, content: bytes | None, num_threads: int, read_timeout: float) -> Video:
    """Open a file; see `open_video`. decord knows no time limit: `read_timeout` does nothing."""
    try:
        source = path if content is None else BytesIO(content)
        reader = decord.VideoReader(source, ctx=decord.cpu(0), num_threads=num_threads)
        fps = float(reader.get_avg_fps())
        stamps = np.asarray(reader.get_frame_timestamp(range(len(reader))), np.float64)
    except (decord.DECORDError, RuntimeError, AssertionError) as error:
        raise DecodeError(path, f"cannot be opened as a video: {reason_of(error)}") from error
    return _DecordVideo(path, reader, fps, stamps)


class _DecordVideo(Video):
    backend = "decord"

    def __init__(self, path: str, reader: Any, fps: float, stamps: NDArray[np.float64]) -> None:
        begins, duration = stamps[:, 0], float(stamps[-1, 1] - stamps[0, 0])
        # AVI gives it stamps near -4e17; then only the count and the rate are known.
        is_usable = np.isfinite(stamps).all() and (np.diff(begins) > 0).all() and duration < 1e7
        if not is_usable or abs(fps * duration - len(begins)) < 0.5:
            duration = len(begins) / fps
        else:
            fps = len(begins) / duration
        if not is_usable:
            begins = np.arange(len(begins)) / fps
        super().__init__(path, timestamps=begins, fps=fps, duration=duration)
        self._reader = reader

    def close(self) -> None:
        self._reader = None

    def _decode(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        if self._reader is None:
            raise ValueError(f"{self.path}: the video is closed")
        try:
            return self._reader.get_batch(indices.tolist()).asnumpy()
        except (decord.DECORDError, RuntimeError) as error:
            raise DecodeError(
                self.path,
                f"frames {indices[0]}..{indices[-1]} of {self.num_frames} cannot be decoded: "
                f"{reason_of(error)}",
            ) from error
