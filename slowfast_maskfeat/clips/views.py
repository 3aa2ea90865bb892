"""Views of a video: random clips for training, a fixed set of clips for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slowfast_maskfeat.augment.crop_plan import CropPlan, pad_together
from slowfast_maskfeat.augment.transforms import TestTransform, TrainTransform
from slowfast_maskfeat.clips.temporal_sampling import (
    RandomFrames,
    SameFrames,
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
        views_per_sample: views of a sample that are of this kind. Each has random streams of its
            own; the clips of repeated augmentation are all of one view.
    """

    clip_shape: tuple[int, int, int]
    views_per_sample: int = 1


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
            generators: of the draws of each view, counted over all kinds in their order.
        """


@dataclass(frozen=True, kw_only=True)
class RandomView:
    """One or several random times of a video, each with one or several random crops.

    Attributes:
        transform: the spatial crop.
        num_frames: T.
        temporal: draws the frames.
        num_times: number of random times of one opened video.
        num_samples: clips of the frames of each time (repeated augmentation).
        on_device: leave operations and resize to the device.
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
        """One."""
        return (square_kind(self.num_frames, self.transform.crop_size),)

    def load(self, row: OpenedRow, generators: Generators) -> tuple[ViewClips, ...]:
        """Decode once and crop num_times * num_samples clips, times outermost.

        All draws are from the generator of the first view.
        """
        video, generator = row.video, generators(0)
        times = range(self.num_times)
        indices = [self.temporal.draw(video, self.num_frames, generator) for _ in times]
        samples = (f for f in decode_clips(video, indices) for _ in range(self.num_samples))
        if not self.on_device:
            clips = torch.stack([self.transform(frames, generator) for frames in samples])
            return (ViewClips(clips),)
        parts = [self.transform.prepare_for_device(frames, generator) for frames in samples]
        pixels = pad_together([source[None] for source, _ in parts])
        return (ViewClips(pixels, tuple(plan for _, plan in parts)),)


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """One kind of training views.

    Attributes:
        augmentation: draws and applies crop, flip and colors of each view.
        crop_size: height and width of the clips in pixels, as in `augmentation`.
        num_frames: T.
        temporal: the frames of each view.
        count: views of this kind per sample.
        shares: index of an earlier kind; view by view, this kind then has its frames and the draws
            of its crop box, flip and colors, so that only size and interpolation differ. The source
            box is resized anew from the original pixels. None for draws of its own.
    """

    augmentation: TrainTransform
    crop_size: int
    num_frames: int
    temporal: RandomFrames | SameFrames
    count: int = 1
    shares: int | None = None

    def __post_init__(self) -> None:
        if self.crop_size != self.augmentation.crop_size:
            raise ValueError(
                f"ViewSpec.crop_size must be that of the augmentation, "
                f"{self.augmentation.crop_size}, got {self.crop_size}"
            )
        if self.count < 1:
            raise ValueError(f"ViewSpec.count must be at least 1, got {self.count}")


@dataclass(frozen=True)
class MultiView:
    """Several views of a sample, of one or several kinds, from one decoding.

    View number v, counted over all kinds in their order, draws its frames and then its crop from
    generator v. One kind with one view is a `RandomView`.

    Attributes:
        specs: the kinds.

    Raises:
        ValueError: there is no kind, or a kind refers to another one that it can't share with.
    """

    specs: tuple[ViewSpec, ...]
    reach: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if not self.specs:
            raise ValueError("MultiView.specs must have at least one kind, got none")
        for number, spec in enumerate(self.specs):
            _check_shares(self.specs, number)
            if spec.shares is None and spec.temporal == SameFrames():
                _check_first_frames(self.specs, number)

    @property
    def kinds(self) -> tuple[ViewKind, ...]:
        """One for each of `specs`."""
        return tuple(
            square_kind(spec.num_frames, spec.crop_size, spec.count) for spec in self.specs
        )

    def load(self, row: OpenedRow, generators: Generators) -> tuple[ViewClips, ...]:
        """Decode the frames of all views once, and crop: of kind k specs[k].count clips."""
        numbers = iter(range(sum(spec.count for spec in self.specs)))
        drawn_by = [[generators(next(numbers)) for _ in range(spec.count)] for spec in self.specs]
        indices = self._frame_numbers(row.video, drawn_by)
        decoded = decode_clips(row.video, [of_view for of_kind in indices for of_view in of_kind])
        plans: list[list[CropPlan]] = []
        clips = []
        for spec, of_kind in zip(self.specs, drawn_by, strict=True):
            plans.append([])
            cropped = []
            for view, generator in enumerate(of_kind):
                frames = next(decoded)
                if spec.shares is None:
                    plan = spec.augmentation.plan(frames.shape[1], frames.shape[2], generator)
                else:
                    plan = plans[spec.shares][view].resized(spec.crop_size)
                plans[-1].append(plan)
                cropped.append(spec.augmentation.apply(plan, frames))
            clips.append(ViewClips(torch.stack(cropped)))
        return tuple(clips)

    def _frame_numbers(
        self, video: Video, drawn_by: Sequence[Sequence[Rng]]
    ) -> list[list[NDArray[np.int64]]]:
        """Of each kind and view the frame numbers (T,)."""
        drawn: list[list[NDArray[np.int64]]] = []
        for spec, of_kind in zip(self.specs, drawn_by, strict=True):
            if spec.shares is not None:
                drawn.append(drawn[spec.shares])
            elif isinstance(spec.temporal, RandomFrames):
                draw = spec.temporal.draw
                drawn.append([draw(video, spec.num_frames, rng) for rng in of_kind])
            elif spec.temporal.sampling is None:
                drawn.append([drawn[0][0]] * spec.count)
            else:
                once = spec.temporal.sampling.draw(video, spec.num_frames, of_kind[0])
                drawn.append([once] * spec.count)
        return drawn


def _check_shares(specs: Sequence[ViewSpec], number: int) -> None:
    """Refuse a kind that differs from the kind it shares with in more than size and resize."""
    spec = specs[number]
    if spec.shares is None:
        return
    if not 0 <= spec.shares < number:
        raise ValueError(
            f"ViewSpec.shares of kind {number} must be the index of an earlier kind, got "
            f"{spec.shares}"
        )
    other = specs[spec.shares]
    for name in ("count", "num_frames", "temporal"):
        if getattr(spec, name) != getattr(other, name):
            raise ValueError(
                f"ViewSpec.{name} of kind {number} must be that of kind {spec.shares}, whose draws "
                f"it shares, {getattr(other, name)}, got {getattr(spec, name)}"
            )
    mine, its = spec.augmentation, other.augmentation
    draws = replace(
        mine,
        crop_size=its.crop_size,
        interpolation=its.interpolation,
        antialias=its.antialias,
    )
    if draws != its:
        raise ValueError(
            f"ViewSpec.augmentation of kind {number} must differ from that of kind {spec.shares}, "
            f"whose draws it shares, in crop_size, interpolation and antialias only, got {mine}"
        )
    if its.area is None:
        raise ValueError(
            f"ViewSpec.augmentation of kind {spec.shares} must have an area range, since kind "
            f"{number} shares its crop box; short-side jitter depends on the size, got {its}"
        )


def _check_first_frames(specs: Sequence[ViewSpec], number: int) -> None:
    """Refuse a kind that can't show the frames of the sample's first view."""
    if number == 0:
        raise ValueError("ViewSpec.temporal of the first kind must draw frames, got SameFrames()")
    if specs[number].num_frames != specs[0].num_frames:
        raise ValueError(
            f"ViewSpec.num_frames of kind {number} must be that of the first kind, whose frames it "
            f"shows, {specs[0].num_frames}, got {specs[number].num_frames}"
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
        decoded = decode_clips(video, list(self.frame_numbers(video)))
        return torch.cat([self.transform(frames) for frames in decoded]).contiguous()

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


def square_kind(num_frames: int, crop_size: int, views_per_sample: int = 1) -> ViewKind:
    """The kind of square clips."""
    return ViewKind((num_frames, crop_size, crop_size), views_per_sample)


def decode_clips(video: Video, indices: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
    """Decode the frames of several clips, each (T, H, W, C); each frame is decoded once.

    Args:
        video: opened.
        indices: frame numbers (T,) of each clip, whose T may differ.
    """
    if len(indices) == 1:
        yield torch.from_numpy(video.frames(indices[0]))
        return
    distinct = np.unique(np.concatenate(indices))
    frames = torch.from_numpy(video.frames(distinct))
    for of_clip in indices:
        if np.array_equal(of_clip, distinct):
            yield frames
        else:
            yield frames[torch.from_numpy(np.searchsorted(distinct, of_clip))]
