"""Videos stored as numbered images, one file per frame."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.videos._image_backend import open_file
from slowfast_maskfeat.videos.media import MAX_IMAGE_PIXELS
from slowfast_maskfeat.videos.video import DecodeError, MissingFileError, Video


@dataclass(frozen=True)
class NumberedFrames:
    """Paths and frame rate of the images of one video.

    Attributes:
        prefix: path of each image up to its number.
        digits: minimum number of digits, zero-padded.
        suffix: path of each image after its number.
        first: number of the first image.
        num_frames: number of images.
        fps: images per second.
    """

    prefix: str
    digits: int
    suffix: str
    first: int
    num_frames: int
    fps: float

    def path(self, index: int) -> str:
        """Path of the image of frame `index`, counted from 0."""
        return f"{self.prefix}{self.first + index:0{self.digits}d}{self.suffix}"

    def open(self, *, max_image_pixels: int = MAX_IMAGE_PIXELS) -> Video:
        """Open the images as a video.

        Args:
            max_image_pixels: see `open_video`.

        Raises:
            MissingFileError: the first image does not exist.
        """
        if not os.path.exists(self.path(0)):
            raise MissingFileError(self.path(0), "no such file")
        return _FrameVideo(self, max_image_pixels)


class _FrameVideo(Video):
    backend = "pillow"

    def __init__(self, images: NumberedFrames, max_image_pixels: int) -> None:
        num_frames = images.num_frames
        super().__init__(
            os.path.dirname(images.prefix),
            timestamps=np.arange(num_frames) / images.fps,
            fps=images.fps,
            duration=num_frames / images.fps,
        )
        self._images: NumberedFrames | None = images
        self._max_image_pixels = max_image_pixels

    def close(self) -> None:
        self._images = None

    def _decode(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        if self._images is None:
            raise ValueError(f"{self.path}: the video is closed")
        frames = []
        for index in indices.tolist():
            path = self._images.path(index)
            with open_file(path, None, max_pixels=self._max_image_pixels) as image:
                frames.append(image.frames([0])[0])
            if frames[-1].shape != frames[0].shape:
                raise DecodeError(
                    image.path,
                    f"image size must be {_size(frames[0])} as in the frames before, "
                    f"got {_size(frames[-1])}",
                )
        return np.stack(frames)


def _size(frame: NDArray[np.uint8]) -> str:
    height, width = frame.shape[:2]
    return f"{width}x{height}"
