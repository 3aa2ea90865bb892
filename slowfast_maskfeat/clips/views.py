"""Views of a video: random clips for training, fixed clips for evaluation.

Several training views of a sample: `multi_view`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slowfast_maskfeat.augment.crop_plan import CropPlan, pad_together
from slowfast_maskfeat.augment.transforms import TestTransform, TrainTransform
from slowfast_maskfeat.clips.temporal_sampling import RandomFrames, segment_clip, uniform_clip
from slowfast_maskfeat.datasets import OpenedRow
from slowfast_maskfeat.videos.decode import Video

Rng = np.random.Generator
# Returns the random generator of a view of the sample, by the index of the view.
Generators = Callable[[int], Rng]


class ViewKind(NamedTuple):
    """A kind of views: its clip shape and number.

    Attributes:
        clip_shape: (T, H, W) of each clip.
        views_per_sample: views of this kind per sample. Each view has separate random streams; all
            clips of repeated augmentation belong to one view.
    """

    clip_shape: tuple[int, int, int]
    views_per_sample: int = 1


class ViewClips(NamedTuple):
    """The V clips of one kind of one video.

    Attributes:
        clips: (V, T, H, W, C) uint8, or their source pixels if there are `plans`, padded below and
            to the right.
        plans: crop of each clip, to be applied on the device; None if clips are already cropped.
        boxes: (R, 5) float32: index of the clip, x1, y1, x2, y2 in its pixels; None without boxes.
        box_index: (R,) int64, the index of each box in the split's box table.
        times: (V, 2) float64, timestamps of the first and last frame of each clip in seconds; None
            for randomly sampled clips.
        crops: (V, 4) float32, see `ClipBatch`; None for clips with boxes.
        flips: (V,) bool, see `ClipBatch`; None for clips with boxes.
        label_map: (2, 5, h, w) float32 of the image, see `ClipBatch`, or None.
        spans: (V, 2) int64, numbers of the first and last frame of each clip whose labels may be
            those of its frames; None: the labels of the video hold.
    """

    clips: Tensor
    plans: tuple[CropPlan, ...] | None = None
    boxes: NDArray[np.float32] | None = None
    box_index: NDArray[np.int64] | None = None
    times: Tensor | None = None
    crops: Tensor | None = None
    flips: Tensor | None = None
    label_map: Tensor | None = None
    spans: NDArray[np.int64] | None = None

    def placed(self, drawn: Sequence[CropPlan]) -> ViewClips:
        """Add the crop and flip of each clip."""
        return self._replace(
            crops=torch.tensor([plan.fractions for plan in drawn]),
            flips=torch.tensor([plan.flip for plan in drawn]),
        )


class Views(Protocol):
    """Views that a dataset takes of each video."""

    @property
    def kinds(self) -> tuple[ViewKind, ...]:
        """The kinds of views, in the order of the result of `load`."""

    @property
    def reach(self) -> float:
        """Seconds to read before and after the key frame, in rows that have one."""

    def load(self, row: OpenedRow, generators: Generators) -> tuple[ViewClips, ...]:
        """Decode and crop the clips of each kind.

        Args:
            row: row with its opened video, which the caller closes.
            generators: random generator of each view; views are numbered over all kinds in order.
        """


@dataclass(frozen=True, kw_only=True)
class RandomView:
    """Clips at one or several random positions of a video, each with one or several random crops.

    Attributes:
        transform: the spatial crop.
        num_frames: T.
        temporal: temporal sampling.
        num_times: random positions per decoded video.
        num_samples: crops of the frames at each position (repeated augmentation).
        on_device: apply operations and resize on the device.
    """

    transform: TrainTransform
    num_frames: int
    temporal: RandomFrames
    num_times: int = 1
    num_samples: int = 1
    on_device: bool = False
    reach: ClassVar[float] = 0.0

    @property
    def kinds(self) -> tuple[ViewKind, ...]:
        """The single kind."""
        return (square_kind(self.num_frames, self.transform.crop_size),)

    def load(self, row: OpenedRow, generators: Generators) -> tuple[ViewClips, ...]:
        """Decode once and crop num_times * num_samples clips, positions outermost.

        All draws use the generator of the first view.
        """
        video, generator = row.video, generators(0)
        times = range(self.num_times)
        indices = [self.temporal.draw(video, self.num_frames, generator) for _ in times]
        decoded = decode_clips(video, indices, on_device=self.on_device)
        samples = (f for f in decoded for _ in range(self.num_samples))
        transform = self.transform
        drawn = ((transform.plan(f.shape[1], f.shape[2], generator), f) for f in samples)
        clips, _ = crop_clips(transform, drawn, on_device=self.on_device)
        spans = np.stack(indices)[:, [0, -1]].repeat(self.num_samples, axis=0)
        return (clips._replace(spans=spans),)


@dataclass(frozen=True, kw_only=True)
class UniformViews:
    """Views of evaluation: `num_views` temporal views, each with all spatial crops.

    Attributes:
        transform: the spatial crops.
        num_frames: T.
        sampling_rate: interval between sampled frames, in frames at `target_fps`.
        target_fps: frames per second.
        num_views: temporal views.
        use_offset: spread the views from the first to the last frame; a single view is centered.
        segments: sample the middle frame of each of T equal segments of the video instead, in every
            view.
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
        """The single kind."""
        return (square_kind(self.num_frames, self.transform.crop_size),)

    def __call__(self, video: Video) -> Tensor:
        """Decode once and crop to (num_views * num_crops, T, H, W, C) uint8, views outermost."""
        return self._crop(video)[0]

    def load(self, row: OpenedRow, generators: Generators) -> tuple[ViewClips, ...]:
        """Return the clips of `__call__` with their times and crops; deterministic."""
        clips, plans = self._crop(row.video)
        return (ViewClips(clips, times=self.times(row.video)).placed(plans),)

    def _crop(self, video: Video) -> tuple[Tensor, list[CropPlan]]:
        """Decode once and crop; return the clips and the plan of each."""
        clips: list[Tensor] = []
        plans: list[CropPlan] = []
        for frames in decode_clips(video, list(self.frame_numbers(video))):
            clips.append(self.transform(frames))
            plans += self.transform.plans(frames.shape[1], frames.shape[2])
        return torch.cat(clips).contiguous(), plans

    def frame_numbers(self, video: Video) -> NDArray[np.int64]:
        """Return the frame numbers of the temporal views, (num_views, T)."""
        return np.stack([self._frames(video, view) for view in range(self.num_views)])

    def times(self, video: Video) -> Tensor:
        """Return the timestamps of each clip's first and last frame in seconds, (V, 2) float64."""
        ends = self.frame_numbers(video)[:, [0, -1]]
        seconds = torch.from_numpy(video.timestamps[ends])  # (num_views, 2)
        return seconds.repeat_interleave(self.transform.num_crops, dim=0)

    def _frames(self, video: Video, view: int) -> NDArray[np.int64]:
        """Return the frame numbers (T,) of a temporal view."""
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


def crop_clips(
    transform: TrainTransform, drawn: Iterable[tuple[CropPlan, Tensor]], *, on_device: bool
) -> tuple[ViewClips, list[CropPlan]]:
    """Crop the clips of one kind, or take the source pixels for a crop on the device.

    Args:
        transform: of the kind.
        drawn: the plan and the frames (T, H, W, C) of each clip.
        on_device: apply operations and resize on the device.

    Returns:
        The clips, and the plan of each from whole frames.
    """
    plans, parts = [], []
    for plan, frames in drawn:
        plans.append(plan)
        if on_device:
            parts.append(transform.source_pixels(plan, frames))
        else:
            parts.append((transform.apply(plan, frames), plan))
    if not on_device:
        return ViewClips(torch.stack([clip for clip, _ in parts])).placed(plans), plans
    pixels = pad_together([source[None] for source, _ in parts])
    return ViewClips(pixels, tuple(plan for _, plan in parts)).placed(plans), plans


def square_kind(num_frames: int, crop_size: int, views_per_sample: int = 1) -> ViewKind:
    """Return the kind of views with square clips."""
    return ViewKind((num_frames, crop_size, crop_size), views_per_sample)


def decode_clips(
    video: Video, indices: Sequence[NDArray[np.int64]], *, on_device: bool = False
) -> Iterator[Tensor]:
    """Decode the frames of several clips, each (T, H, W, C); every frame is decoded once.

    Args:
        video: opened video.
        indices: frame numbers (T,) of each clip; T may differ.
        on_device: leave frames on the device where a decoder has decoded them.
    """
    decode = video.pixels if on_device else video.frames
    if len(indices) == 1:
        yield torch.as_tensor(decode(indices[0]))
        return
    distinct = np.unique(np.concatenate(indices))
    frames = torch.as_tensor(decode(distinct))
    for of_clip in indices:
        if np.array_equal(of_clip, distinct):
            yield frames
        else:
            yield frames[torch.from_numpy(np.searchsorted(distinct, of_clip))]
