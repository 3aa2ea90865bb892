"""Several training views of a sample, of one or several kinds, from one decoding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from slowfast_maskfeat.augment.color_recipe import ColorRecipe
from slowfast_maskfeat.augment.crop_plan import CropPlan
from slowfast_maskfeat.augment.transforms import TrainTransform
from slowfast_maskfeat.clips.temporal_sampling import RandomFrames, RandomSpan, SameFrames
from slowfast_maskfeat.clips.views import (
    Generators,
    Rng,
    ViewClips,
    ViewKind,
    crop_clips,
    decode_clips,
    square_kind,
)
from slowfast_maskfeat.datasets import OpenedRow
from slowfast_maskfeat.videos.decode import Video


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
        on_device: apply operations and resize on the device.

    Raises:
        ValueError: there are no kinds, or a kind shares draws with an incompatible one.
    """

    specs: tuple[ViewSpec, ...]
    on_device: bool = False
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
        of_views = [of_view for of_kind in indices for of_view in of_kind]
        decoded = decode_clips(row.video, of_views, on_device=self.on_device)
        plans: list[list[CropPlan]] = []
        clips = []
        for spec, of_kind in zip(self.specs, drawn_by, strict=True):
            shared = None if spec.shares is None else plans[spec.shares]
            drawn = _draw_crops(spec, islice(decoded, spec.count), of_kind, shared)
            cropped, of_kind_plans = crop_clips(spec.augmentation, drawn, on_device=self.on_device)
            clips.append(cropped)
            plans.append(of_kind_plans)
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


def _draw_crops(
    spec: ViewSpec,
    frames: Iterable[Tensor],
    generators: Sequence[Rng],
    shared: Sequence[CropPlan] | None,
) -> Iterator[tuple[CropPlan, Tensor]]:
    """Yield the crop and the frames of each view of a kind.

    Args:
        spec: the kind.
        frames: (T, H, W, C) of each view; one at a time is in memory.
        generators: of each view.
        shared: crops of the kind whose draws this one shares, or None.
    """
    for view, (of_view, generator) in enumerate(zip(frames, generators, strict=True)):
        if shared is None:
            size = of_view.shape[1], of_view.shape[2]
            yield spec.augmentation_of(view).plan(*size, generator), of_view
        else:
            yield shared[view].resized(spec.crop_size), of_view


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
