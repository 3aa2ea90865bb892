"""A video that lies on disk as numbered images, a file a frame."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.videos._image_backend import open_file
from slowfast_maskfeat.videos.video import DecodeError, MissingFileError, Video


@dataclass(frozen=True)
class NumberedFrames:
    """Where the images are.

    Attributes:
        prefix: Of the path of each image, up to its number.
        digits: Of the number, at least; zeros in front.
        suffix: What follows the number.
        first: Number of the first image.
        num_frames: How many there are.
        fps: Images per second.
    """

    prefix: str
    digits: int
    suffix: str
    first: int
    num_frames: int
    fps: float

    def path(self, index: int) -> str:
        """Path of the image of a frame, from 0."""
        return f"{self.prefix}{self.first + index:0{self.digits}d}{self.suffix}"

    def open(self) -> Video:
        """As a video.

        Raises:
            DecodeError: There is no first image.
        """
        if not os.path.exists(self.path(0)):
            raise MissingFileError(self.path(0), "no such file")
        return _FrameVideo(self)


class _FrameVideo(Video):
    backend = "pillow"

    def __init__(self, images: NumberedFrames) -> None:
        num_frames = images.num_frames
        super().__init__(
            os.path.dirname(images.prefix),
            timestamps=np.arange(num_frames) / images.fps,
            fps=images.fps,
            duration=num_frames / images.fps,
        )
        self._images: NumberedFrames | None = images

    def close(self) -> None:
        self._images = None

    def _decode(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        if self._images is None:
            raise ValueError(f"{self.path}: the video is closed")
        frames = []
        for index in indices.tolist():
            with open_file(self._images.path(index), None) as image:
                frames.append(image.frames([0])[0])
            if frames[-1].shape != frames[0].shape:
                raise DecodeError(image.path, "its size is another than that of frames before")
        return np.stack(frames)
