"""Views of a video: random clips for training, a fixed set of clips for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slowfast_maskfeat.augment.boxes import Boxes, clip_boxes, has_area
from slowfast_maskfeat.augment.crop_plan import UncroppedClips, pad_together
from slowfast_maskfeat.augment.transforms import TestTransform, TrainTransform
from slowfast_maskfeat.clips.temporal_sampling import (
    moment_clip,
    moment_reach,
    random_clip,
    segment_clip,
    uniform_clip,
)
from slowfast_maskfeat.videos.decode import Video


@dataclass(frozen=True, kw_only=True)
class RandomView:
    """One or several random times of a video, each with one or several random crops.

    Attributes:
        transform: the spatial crop.
        num_frames: T.
        sampling_rate: distance of two frames, in frames at `target_fps`.
        target_fps: frames per second.
        jitter_fps: a uniform draw up to this is added to `target_fps`.
        segments: a random frame of each of T equal parts of the video instead.
        num_times: number of random times of one opened video.
        num_samples: clips of the frames of each time (repeated augmentation).
        on_device: leave operations and resize to the device.
    """

    transform: TrainTransform
    num_frames: int
    sampling_rate: int
    target_fps: float = 30.0
    jitter_fps: float = 0.0
    segments: bool = False
    num_times: int = 1
    num_samples: int = 1
    on_device: bool = False

    @property
    def clip_shape(self) -> tuple[int, int, int]:
        """(T, H, W) of each clip."""
        return self.num_frames, self.transform.crop_size, self.transform.crop_size

    def __call__(self, video: Video, generator: np.random.Generator) -> Tensor | UncroppedClips:
        """Decode once and crop: (num_times * num_samples, T, H, W, C) uint8, times outermost."""
        indices = np.stack([self._frames(video, generator) for _ in range(self.num_times)])
        samples = (f for f in _decode(video, indices) for _ in range(self.num_samples))
        if not self.on_device:
            return torch.stack([self.transform(frames, generator) for frames in samples])
        parts = [self.transform.prepare_for_device(frames, generator) for frames in samples]
        return UncroppedClips(
            pad_together([pixels[None] for pixels, _ in parts]), tuple(plan for _, plan in parts)
        )

    def _frames(self, video: Video, generator: np.random.Generator) -> NDArray[np.int64]:
        """(T,) frame numbers."""
        if self.segments:
            return segment_clip(video.num_frames, num_frames=self.num_frames, generator=generator)
        return random_clip(
            video,
            num_frames=self.num_frames,
            sampling_rate=self.sampling_rate,
            target_fps=self.target_fps,
            jitter_fps=self.jitter_fps,
            generator=generator,
        )


@dataclass(frozen=True, kw_only=True)
class UniformViews:
    """All views of an evaluation: `num_views` clips along time, each in all its crops.

    Attributes:
        transform: the spatial crops.
        num_frames: T.
        sampling_rate: distance of two frames, in frames at `target_fps`.
        target_fps: frames per second.
        num_views: clips along time.
        use_offset: reach from the first to the last frame; a single view takes the middle.
        segments: the middle frame of each of T equal parts of the video instead, in every view.
    """

    transform: TestTransform
    num_frames: int
    sampling_rate: int
    target_fps: float = 30.0
    num_views: int = 1
    use_offset: bool = False
    segments: bool = False

    @property
    def clip_shape(self) -> tuple[int, int, int]:
        """(T, H, W) of each clip."""
        return self.num_frames, self.transform.crop_size, self.transform.crop_size

    def __call__(self, video: Video, generator: np.random.Generator | None = None) -> Tensor:
        """Decode once and crop: (num_views * num_crops, T, H, W, C) uint8, views outermost.

        Nothing is drawn; `generator` is for the signature that training views share.
        """
        return torch.cat(
            [self.transform(frames) for frames in _decode(video, self.frame_numbers(video))]
        ).contiguous()

    def frame_numbers(self, video: Video) -> NDArray[np.int64]:
        """Frame numbers of the clips along time: (num_views, T)."""
        return np.stack([self._frames(video, view) for view in range(self.num_views)])

    def times(self, video: Video) -> Tensor:
        """Seconds at which the first and the last frame of each clip appear: (V, 2) float64."""
        ends = self.frame_numbers(video)[:, [0, -1]]
        seconds = torch.from_numpy(video.timestamps[ends])  # (num_views, 2)
        return seconds.repeat_interleave(self.transform.num_crops, dim=0)

    def _frames(self, video: Video, view: int) -> NDArray[np.int64]:
        """(T,) frame numbers of a view along time."""
        if self.segments:
            return segment_clip(video.num_frames, num_frames=self.num_frames)
        return uniform_clip(
            video,
            num_frames=self.num_frames,
            sampling_rate=self.sampling_rate,
            target_fps=self.target_fps,
            view=view,
            num_views=self.num_views,
            use_offset=self.use_offset,
        )


class BoxTransform(Protocol):
    """Crops a clip and moves boxes with it: `TrainTransform` and `WholeFrameTransform` do."""

    def with_boxes(
        self, frames: Tensor, boxes: Boxes, generator: np.random.Generator
    ) -> tuple[Tensor, Boxes]:
        """(T, H, W, C) uint8 and boxes in its pixels -> the clip and boxes in its pixels."""


@dataclass(frozen=True, kw_only=True)
class KeyFrameView:
    """The clip around a key frame, with one or several crops, and the boxes in it.

    Attributes:
        transform: the spatial crop.
        crop_size: short side of the clips in pixels.
        num_frames: T.
        sampling_rate: distance of two frames, in frames at `target_fps`.
        target_fps: frames per second.
        num_samples: clips of the frames (repeated augmentation).
        keep_all: keep boxes that have no area after the crop, as an evaluation must.
    """

    transform: BoxTransform
    crop_size: int
    num_frames: int
    sampling_rate: int
    target_fps: float = 30.0
    num_samples: int = 1
    keep_all: bool = False

    @property
    def clip_shape(self) -> tuple[int, int, int]:
        """(T, H, W) of each clip; of whole frames, the short side squared."""
        return self.num_frames, self.crop_size, self.crop_size

    @property
    def reach(self) -> float:
        """Seconds of the video that are read before and after the key frame."""
        return moment_reach(
            num_frames=self.num_frames,
            sampling_rate=self.sampling_rate,
            target_fps=self.target_fps,
        )

    def __call__(
        self,
        video: Video,
        moment: float,
        boxes: NDArray[np.float32],
        generator: np.random.Generator,
    ) -> tuple[Tensor, NDArray[np.float32], NDArray[np.int64]]:
        """Decode once and crop.

        Args:
            video: opened, around the key frame at least.
            moment: of the key frame in seconds, on the clock of its timestamps.
            boxes: (R, 4), x1, y1, x2, y2 as shares of width and height.
            generator: of the draws.

        Returns:
            Clips (num_samples, T, H, W, C) uint8; their boxes (R', 5), rows of clip, x1, y1, x2, y2
            in pixels; and the index into `boxes` of each, (R',).
        """
        indices = moment_clip(
            video,
            moment=moment,
            num_frames=self.num_frames,
            sampling_rate=self.sampling_rate,
            target_fps=self.target_fps,
        )
        frames = torch.from_numpy(video.frames(indices))
        height, width = frames.shape[1:3]
        in_pixels = clip_boxes(boxes * np.array([width, height] * 2), height, width)
        clips, placed, which = [], [], []
        for number in range(self.num_samples):
            clip, moved = self.transform.with_boxes(frames, in_pixels, generator)
            kept = np.arange(len(moved)) if self.keep_all else np.flatnonzero(has_area(moved))
            clips.append(clip)
            placed.append(np.insert(moved[kept], 0, number, axis=1))
            which.append(kept)
        return (
            torch.stack(clips),
            np.concatenate(placed).astype(np.float32),
            np.concatenate(which),
        )


def _decode(video: Video, indices: NDArray[np.int64]) -> Iterator[Tensor]:
    """The frames of each clip, (T, H, W, C); a frame of several clips is decoded once.

    Args:
        video: opened.
        indices: (V, T) frame numbers.
    """
    if len(indices) == 1:
        yield torch.from_numpy(video.frames(indices[0]))
        return
    distinct, place = np.unique(indices, return_inverse=True)
    frames = torch.from_numpy(video.frames(distinct))
    for of_clip in place.reshape(indices.shape):
        yield frames[torch.from_numpy(of_clip)]
