"""Views of a video: random clips for training, fixed clips for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slowfast_maskfeat.augment.color_recipe import ColorRecipe
from slowfast_maskfeat.augment.crop_plan import CropPlan, pad_together
from slowfast_maskfeat.augment.transforms import TestTransform, TrainTransform
from slowfast_maskfeat.clips.temporal_sampling import (
    RandomFrames,
    RandomSpan,
    SameFrames,
    segment_clip,
    uniform_clip,
)
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
    """

    clips: Tensor
    plans: tuple[CropPlan, ...] | None = None
    boxes: NDArray[np.float32] | None = None
    box_index: NDArray[np.int64] | None = None
    times: Tensor | None = None
    crops: Tensor | None = None
    flips: Tensor | None = None
    label_map: Tensor | None = None

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
        samples = (f for f in decode_clips(video, indices) for _ in range(self.num_samples))
        drawn, parts = [], []
        for frames in samples:
            drawn.append(self.transform.plan(frames.shape[1], frames.shape[2], generator))
            if self.on_device:
                parts.append(self.transform.source_pixels(drawn[-1], frames))
            else:
                parts.append((self.transform.apply(drawn[-1], frames), drawn[-1]))
        if not self.on_device:
            return (ViewClips(torch.stack([clip for clip, _ in parts])).placed(drawn),)
        pixels = pad_together([source[None] for source, _ in parts])
        return (ViewClips(pixels, tuple(plan for _, plan in parts)).placed(drawn),)


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """One kind of training views.

    Attributes:
        augmentation: crop, flip and color operations of each view.
        crop_size: height and width of the clips in pixels, as in `augmentation`.
        num_frames: T.
        temporal: temporal sampling of each view.
        count: views of this kind per sample.
        colors: color operations of each view in place of those of `augmentation`, if they differ
            among the views; empty: those of `augmentation`.
        shares: index of an earlier kind; each view then shares the frames, crop box, flip and color
            draws of the corresponding view of that kind, and only size and interpolation differ.
            The crop box is resized from the original pixels. None for separate draws.
    """

    augmentation: TrainTransform
    crop_size: int
    num_frames: int
    temporal: RandomFrames | RandomSpan | SameFrames
    count: int = 1
    colors: tuple[ColorRecipe | None, ...] = ()
    shares: int | None = None

    def __post_init__(self) -> None:
        if self.crop_size != self.augmentation.crop_size:
            raise ValueError(
                f"ViewSpec.crop_size must be {self.augmentation.crop_size}, the crop_size of the "
                f"augmentation, got {self.crop_size}"
            )
        if self.count < 1:
            raise ValueError(f"ViewSpec.count must be at least 1, got {self.count}")
        if len(self.colors) not in (0, self.count):
            raise ValueError(
                f"ViewSpec.colors must have none or one for each of the {self.count} views, got "
                f"{len(self.colors)}"
            )

    def augmentation_of(self, view: int) -> TrainTransform:
        """Return the crop, flip and color operations of a view of this kind."""
        if not self.colors:
            return self.augmentation
        return replace(self.augmentation, colors=self.colors[view])


@dataclass(frozen=True)
class MultiView:
    """Several views of a sample, of one or several kinds, decoded once.

    View v, numbered over all kinds in order, draws its frames and then its crop from generator v.
    With a single view of a single kind the clips equal those of `RandomView`.

    Attributes:
        specs: the kinds.

    Raises:
        ValueError: there are no kinds, or a kind shares draws with an incompatible one.
    """

    specs: tuple[ViewSpec, ...]
    reach: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if not self.specs:
            raise ValueError("MultiView.specs must have at least 1 kind, got 0")
        for number, spec in enumerate(self.specs):
            _check_shares(self.specs, number)
            if spec.shares is None and spec.temporal == SameFrames():
                _check_first_frames(self.specs, number)

    @property
    def kinds(self) -> tuple[ViewKind, ...]:
        """The kind of each of `specs`."""
        return tuple(
            square_kind(spec.num_frames, spec.crop_size, spec.count) for spec in self.specs
        )

    def load(self, row: OpenedRow, generators: Generators) -> tuple[ViewClips, ...]:
        """Decode the frames of all views once and crop specs[k].count clips of each kind k."""
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
                    augmentation = spec.augmentation_of(view)
                    plan = augmentation.plan(frames.shape[1], frames.shape[2], generator)
                else:
                    plan = plans[spec.shares][view].resized(spec.crop_size)
                plans[-1].append(plan)
                cropped.append(spec.augmentation.apply(plan, frames))
            clips.append(ViewClips(torch.stack(cropped)).placed(plans[-1]))
        return tuple(clips)

    def _frame_numbers(
        self, video: Video, drawn_by: Sequence[Sequence[Rng]]
    ) -> list[list[NDArray[np.int64]]]:
        """Return the frame numbers (T,) of each view of each kind."""
        drawn: list[list[NDArray[np.int64]]] = []
        for spec, of_kind in zip(self.specs, drawn_by, strict=True):
            if spec.shares is not None:
                drawn.append(drawn[spec.shares])
            elif not isinstance(spec.temporal, SameFrames):
                draw = spec.temporal.draw
                drawn.append([draw(video, spec.num_frames, rng) for rng in of_kind])
            elif spec.temporal.sampling is None:
                drawn.append([drawn[0][0]] * spec.count)
            else:
                once = spec.temporal.sampling.draw(video, spec.num_frames, of_kind[0])
                drawn.append([once] * spec.count)
        return drawn


def _check_shares(specs: Sequence[ViewSpec], number: int) -> None:
    """Check that a kind differs only in size and interpolation from the one it shares with."""
    spec = specs[number]
    if spec.shares is None:
        return
    if not 0 <= spec.shares < number:
        raise ValueError(
            f"ViewSpec.shares of kind {number} must be the index of an earlier kind, got "
            f"{spec.shares}"
        )
    other = specs[spec.shares]
    for name in ("count", "num_frames", "temporal", "colors"):
        if getattr(spec, name) != getattr(other, name):
            raise ValueError(
                f"ViewSpec.{name} of kind {number} must be {getattr(other, name)}, as in kind "
                f"{spec.shares}, whose draws it shares, got {getattr(spec, name)}"
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
            f"ViewSpec.augmentation of kind {number} must equal that of kind {spec.shares}, whose "
            f"draws it shares, except for crop_size, interpolation and antialias, got {mine}"
        )
    if its.area is None:
        raise ValueError(
            f"ViewSpec.augmentation of kind {spec.shares} must have an area range, since kind "
            f"{number} shares its crop box; short-side jitter depends on the size, got {its}"
        )


def _check_first_frames(specs: Sequence[ViewSpec], number: int) -> None:
    """Check that a kind can reuse the frames of the sample's first view."""
    if number == 0:
        raise ValueError("ViewSpec.temporal of kind 0 must draw frames, got SameFrames()")
    if specs[number].num_frames != specs[0].num_frames:
        raise ValueError(
            f"ViewSpec.num_frames of kind {number} must be {specs[0].num_frames}, as in kind 0, "
            f"whose frames it reuses, got {specs[number].num_frames}"
        )


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


def square_kind(num_frames: int, crop_size: int, views_per_sample: int = 1) -> ViewKind:
    """Return the kind of views with square clips."""
    return ViewKind((num_frames, crop_size, crop_size), views_per_sample)


def decode_clips(video: Video, indices: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
    """Decode the frames of several clips, each (T, H, W, C); every frame is decoded once.

    Args:
        video: opened video.
        indices: frame numbers (T,) of each clip; T may differ.
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
