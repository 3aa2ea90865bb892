"""A part of a video, as a video of its own, and frames in memory as one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.videos.video import Video

_TOLERANCE = 1e-6  # seconds: timestamps are sums of rounded periods


class Excerpt(Video):
    """The frames of a video that are displayed first in [begin, end).

    Args:
        video: the whole video, or more of it than the part; closed with this one.
        begin: seconds on the clock of its timestamps.
        end: likewise. If no frame starts in between, the part is the frame on display at `begin`.
    """

    def __init__(self, video: Video, begin: float, end: float) -> None:
        times = video.timestamps
        first = int(np.searchsorted(times, begin - _TOLERANCE))
        stop = int(np.searchsorted(times, end - _TOLERANCE))
        if stop <= first:
            first = max(0, first - 1)
            stop = first + 1
        last_end = min(end, float(times[-1]) + 1 / video.fps)
        super().__init__(
            video.path,
            timestamps=times[first:stop],
            fps=video.fps,
            duration=max(last_end - float(times[first]), 1 / video.fps),
        )
        self.backend = video.backend
        self._video = video
        self._first = first

    def _decode(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        return self._video.frames(indices + self._first)

    def close(self) -> None:
        """Close the video that this is a part of."""
        self._video.close()


class FramesInMemory(Video):
    """Frames that are decoded already.

    Args:
        frames: uint8 (T, H, W, 3), RGB.
        fps: frames per second.
    """

    backend = "memory"

    def __init__(self, frames: NDArray[np.uint8], fps: float) -> None:
        super().__init__(
            "frames", timestamps=np.arange(len(frames)) / fps, fps=fps, duration=len(frames) / fps
        )
        self._frames = frames

    def _decode(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        return self._frames[indices]

    def close(self) -> None:
        """Nothing is open."""
