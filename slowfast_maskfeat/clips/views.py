"""Views of a video: random clips for training, a fixed set of clips for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slowfast_maskfeat.augment.crop_plan import CropPlan, pad_together
from slowfast_maskfeat.augment.transforms import TestTransform, TrainTransform
from slowfast_maskfeat.clips.temporal_sampling import (
    random_clip,
    segment_clip,
    uniform_clip,
)
from slowfast_maskfeat.datasets import OpenedRow
from slowfast_maskfeat.videos.decode import Video

Rng = np.random.Generator
# Gives the generator of a view of the sample, by the number of the view.
Generators = Callable[[int], Rng]


class ViewKind(NamedTuple):
    """A kind of clips that views give.

    Attributes:
        clip_shape: (T, H, W) of each clip.
    """

    clip_shape: tuple[int, int, int]


class ViewClips(NamedTuple):
    """The V clips of one kind, of one video.

    Attributes:
        clips: (V, T, H, W, C) uint8, or with `plans` their source pixels, padded below and to the
            right.
        plans: of each clip, its crop, which is left to the device; None where clips are cropped.
        boxes: (R, 5) float32: number of the clip, x1, y1, x2, y2 in its pixels; None without boxes.
        box_index: (R,) int64, the number of each box in the list's table of boxes.
        times: (V, 2) float64, seconds of the first and the last frame of each clip; None where they
            are random.
    """

    clips: Tensor
    plans: tuple[CropPlan, ...] | None = None
    boxes: NDArray[np.float32] | None = None
    box_index: NDArray[np.int64] | None = None
    times: Tensor | None = None


class Views(Protocol):
    """The clips that a dataset takes from each video."""

    @property
    def kinds(self) -> tuple[ViewKind, ...]:
        """The kinds of clips, in the order in which `load` gives them."""

    @property
    def reach(self) -> float:
        """Seconds that are read before and after the key frame of a row that has one."""

    def load(self, row: OpenedRow, generators: Generators) -> tuple[ViewClips, ...]:
        """Decode and crop the clips of each kind.

        Args:
            row: its video is opened, and closed by the caller.
            generators: of the draws.
        """


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
    reach: ClassVar[float] = 0.0

    @property
    def kinds(self) -> tuple[ViewKind, ...]:
        """One."""
        return (square_kind(self.num_frames, self.transform.crop_size),)

    def load(self, row: OpenedRow, generators: Generators) -> tuple[ViewClips, ...]:
        """Decode once and crop num_times * num_samples clips, times outermost.

        All draws are from the generator of the first view.
        """
        video, generator = row.video, generators(0)
        indices = np.stack([self._frames(video, generator) for _ in range(self.num_times)])
        samples = (f for f in decode_clips(video, indices) for _ in range(self.num_samples))
        if not self.on_device:
            clips = torch.stack([self.transform(frames, generator) for frames in samples])
            return (ViewClips(clips),)
        parts = [self.transform.prepare_for_device(frames, generator) for frames in samples]
        pixels = pad_together([source[None] for source, _ in parts])
        return (ViewClips(pixels, tuple(plan for _, plan in parts)),)

    def _frames(self, video: Video, generator: Rng) -> NDArray[np.int64]:
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
    reach: ClassVar[float] = 0.0

    @property
    def kinds(self) -> tuple[ViewKind, ...]:
        """One."""
        return (square_kind(self.num_frames, self.transform.crop_size),)

    def __call__(self, video: Video) -> Tensor:
        """Decode once and crop: (num_views * num_crops, T, H, W, C) uint8, views outermost."""
        return torch.cat(
            [self.transform(frames) for frames in decode_clips(video, self.frame_numbers(video))]
        ).contiguous()

    def load(self, row: OpenedRow, generators: Generators) -> tuple[ViewClips, ...]:
        """The clips of `__call__`, with their times; nothing is drawn."""
        return (ViewClips(self(row.video), times=self.times(row.video)),)

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


def square_kind(num_frames: int, crop_size: int) -> ViewKind:
    """The kind of square clips."""
    return ViewKind((num_frames, crop_size, crop_size))


def decode_clips(video: Video, indices: NDArray[np.int64]) -> Iterator[Tensor]:
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
