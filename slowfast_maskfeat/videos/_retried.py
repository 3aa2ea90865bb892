"""A video of one decoder with the frames of another where the first one fails."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.videos.video import DecodeError, StalledError, Video


class RetriedVideo(Video):
    """A video that changes to another decoder at the first frame that cannot be decoded.

    Both must number frames alike: torchcodec and PyAV have the same frame table.

    Args:
        video: open video.
        reopen: opens the file with the other decoder.
    """

    def __init__(self, video: Video, reopen: Callable[[], Video]) -> None:
        super().__init__(
            video.path, timestamps=video.timestamps, fps=video.fps, duration=video.duration
        )
        self.backend = video.backend
        self._video = video
        self._reopen: Callable[[], Video] | None = reopen

    def close(self) -> None:
        self._video.close()
        self._reopen = None

    def _decode(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        try:
            return self._video._decode(indices)
        except StalledError:
            raise
        except DecodeError:
            if self._reopen is None:
                raise
            other = self._reopen()
        self._reopen = None
        if not np.array_equal(other.timestamps, self.timestamps):
            other.close()
            raise DecodeError(self.path, f"{other.backend} finds other frames than {self.backend}")
        self._video.close()
        self._video, self.backend = other, other.backend
        return self._video._decode(indices)
