"""Which clips of a video are taken: one at random to train on, or a fixed set to evaluate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slowfast_maskfeat.augment.boxes import Boxes, clip_boxes, has_area
from slowfast_maskfeat.augment.crop_plan import UncutClips, pad_together
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
    """One or several random times of a video, each cut at random once or several times over.

    Attributes:
        transform: the spatial cut.
        num_frames: T.
        sampling_rate: distance of two frames, in frames at `target_fps`.
        target_fps: frames per second.
        jitter_fps: a uniform draw up to this is added to `target_fps`.
        segments: a random frame of each of T equal parts of the video instead.
        num_times: how many random times are taken of one opened video.
        num_samples: how many clips are cut out of the frames of each time (repeated augmentation).
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

    def __call__(self, video: Video, generator: np.random.Generator) -> Tensor | UncutClips:
        """Decode once and cut: (num_times * num_samples, T, H, W, C) uint8, times outermost."""
        indices = np.stack([self._frames(video, generator) for _ in range(self.num_times)])
        samples = (f for f in _decode(video, indices) for _ in range(self.num_samples))
        if not self.on_device:
            return torch.stack([self.transform(frames, generator) for frames in samples])
        parts = [self.transform.hand_over(frames, generator) for frames in samples]
        return UncutClips(
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
    """All views of an evaluation: `num_views` clips along the time, each in all its crops.

    Attributes:
        transform: the spatial crops.
        num_frames: T.
        sampling_rate: distance of two frames, in frames at `target_fps`.
        target_fps: frames per second.
        num_views: clips along the time.
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
        """Decode once and cut all: (num_views * num_crops, T, H, W, C) uint8, views outermost.

        Nothing is drawn; the generator is there because training views need one.
        """
        return torch.cat(
            [self.transform(frames) for frames in _decode(video, self.frame_numbers(video))]
        ).contiguous()

    def frame_numbers(self, video: Video) -> NDArray[np.int64]:
        """Which frames of the video the clips along the time are: (num_views, T)."""
        return np.stack([self._frames(video, view) for view in range(self.num_views)])

    def times(self, video: Video) -> Tensor:
        """Seconds at which the first and the last frame of each clip appear: (V, 2) float64."""
        ends = self.frame_numbers(video)[:, [0, -1]]
        seconds = torch.from_numpy(video.timestamps[ends])  # (num_views, 2)
        return seconds.repeat_interleave(self.transform.num_crops, dim=0)

    def _frames(self, video: Video, view: int) -> NDArray[np.int64]:
        """(T,) frame numbers of a view along the time."""
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
    """Cuts a clip and takes boxes along: `TrainTransform` and `WholeFrameTransform` do."""

    def with_boxes(
        self, frames: Tensor, boxes: Boxes, generator: np.random.Generator
    ) -> tuple[Tensor, Boxes]:
        """(T, H, W, C) uint8 and boxes in its pixels -> the clip and boxes in its pixels."""


@dataclass(frozen=True, kw_only=True)
class KeyFrameView:
    """The clip about a key frame, cut once or several times over, with the boxes in it.

    Attributes:
        transform: the spatial cut.
        crop_size: short side of the clips in pixels.
        num_frames: T.
        sampling_rate: distance of two frames, in frames at `target_fps`.
        target_fps: frames per second.
        num_samples: how many clips are cut out of the frames (repeated augmentation).
        keep_all: keep boxes that the cut leaves without area, as an evaluation must.
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
        """(T, H, W) of a clip that is not there."""
        return self.num_frames, self.crop_size, self.crop_size

    @property
    def reach(self) -> float:
        """Seconds that are needed before and after the key frame."""
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
        """Decode once and cut.

        Args:
            video: opened, about the key frame at least.
            moment: of the key frame, on the clock of its time stamps.
            boxes: (R, 4), x1, y1, x2, y2 as shares of width and height.
            generator: of the draws.

        Returns:
            Clips (num_samples, T, H, W, C) uint8; their boxes, rows of clip, x1, y1, x2, y2 in
            pixels; and which of the boxes each is.
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
    wanted, place = np.unique(indices, return_inverse=True)
    frames = torch.from_numpy(video.frames(wanted))
    for of_clip in place.reshape(indices.shape):
        yield frames[torch.from_numpy(of_clip)]
