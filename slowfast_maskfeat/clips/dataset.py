"""The one dataset: clips of the videos of a list, taken through views, with their masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from slowfast_maskfeat.augment import EraseSampler
from slowfast_maskfeat.clips.batch import LostVideo, Sample, SampleBoxes
from slowfast_maskfeat.clips.views import Generators, Rng, ViewClips, Views
from slowfast_maskfeat.datasets import KeyFrames, OpenedRow, VideoList
from slowfast_maskfeat.masks import MaskSampler
from slowfast_maskfeat.videos.decode import DecodeError, MissingFileError, StalledError

# Replacements that are tried for a lost video before the list is an error.
_NUM_REPLACEMENTS = 20
# In the seeds of a sample, after (seed, epoch, row, attempt); the draws of the first view's crop
# have no such number.
_MASK_STREAM, _ERASE_STREAM, _VIEW_STREAM = 1, 2, 3


class SampleKey(NamedTuple):
    """Names one draw: the epoch and the row of the list."""

    epoch: int
    row: int


class ClipDataset(Dataset[Sample]):
    """Decodes, crops and masks the clips of one row.

    Every draw comes from a generator seeded by (seed, epoch, row, view), so a sample depends
    neither on the worker that makes it nor on what was made before.

    Args:
        videos: the list.
        views: the clips that are taken from each video; for key frames a `KeyFrameView`.
        mask_samplers: of each kind of views what draws a (t, h, w) bool mask for each clip, or None
            for no masks; empty for no masks at all.
        erase_sampler: draws the rectangles of random erasing for each clip, (n, 5); None for none.
            Only of views of one kind, one view a sample.
        seed: of all draws.
        backend: name of the decoder.
        num_threads: of the decoder.
        replace_lost: replace a video that can't be decoded by another one; without it a lost video
            gives no clip. Both are recorded in `Sample.lost`.
        reverse_channels: blue, green, red; clips that are cropped on the device are reversed there
            (`DeviceCrop`).
        read_timeout: seconds that an address may take to open, and to give each packet, before it
            is given up; 0 for no limit. Each video has two tries.

    Attributes:
        given_up: row -> reason, of videos that are lost without another try. The loader adds those
            that a worker hung on.
        watching: context that is entered with the row while its video is decoded.
    """

    def __init__(
        self,
        videos: VideoList,
        views: Views,
        *,
        mask_samplers: Sequence[MaskSampler | None] = (),
        erase_sampler: EraseSampler | None = None,
        seed: int = 0,
        backend: str = "auto",
        num_threads: int = 1,
        replace_lost: bool = False,
        reverse_channels: bool = False,
        read_timeout: float = 0.0,
    ) -> None:
        if mask_samplers and len(mask_samplers) != len(views.kinds):
            raise ValueError(
                f"mask_samplers must have one for each of the {len(views.kinds)} kinds of views, "
                f"got {len(mask_samplers)}"
            )
        self.videos = videos
        self.views = views
        self.mask_samplers = tuple(mask_samplers)
        self.erase_sampler = erase_sampler
        self.seed = seed
        self.backend = backend
        self.num_threads = num_threads
        self.replace_lost = replace_lost
        self.reverse_channels = reverse_channels
        self.read_timeout = read_timeout
        self.given_up: dict[int, str] = {}
        self.watching: Callable[[int], AbstractContextManager[object]] = nullcontext

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: SampleKey) -> Sample:
        """The clips of one row in one epoch.

        Raises:
            ValueError: with `replace_lost`, if none of twenty other videos could be decoded.
        """
        clips, error = self._clips(key.row, self._generators(key))
        if error is None:
            return self._sample(key, key.row, clips, ())
        lost = [error]
        if not self.replace_lost:
            return self._sample(key, key.row, clips, tuple(lost))
        for attempt in range(1, _NUM_REPLACEMENTS + 1):
            generators = self._generators(key, attempt)
            other = int(generators(0).integers(len(self)))
            clips, error = self._clips(other, generators)
            if error is None:
                return self._sample(key, other, clips, tuple(lost))
            lost.append(error)
        raise ValueError(
            f"{self.videos.source}: {len(lost)} videos in a row can't be decoded, "
            f"the last is {lost[-1].path}: {lost[-1].reason}"
        )

    def _generators(self, key: SampleKey, attempt: int = 0) -> Generators:
        first = np.random.default_rng((self.seed, key.epoch, key.row, attempt))

        def of_view(view: int) -> Rng:
            if view == 0:
                return first
            return np.random.default_rng(
                (self.seed, key.epoch, key.row, attempt, _VIEW_STREAM, view)
            )

        return of_view

    def _clips(
        self, row: int, generators: Generators
    ) -> tuple[tuple[ViewClips, ...], LostVideo | None]:
        """The clips of a video, of each kind; none, and the reason, if it can't be decoded."""
        path = self.videos.path(row)
        try:
            if row in self.given_up:
                raise DecodeError(path, self.given_up[row])
            clips = self._try_twice(row, generators)
        except DecodeError as error:
            lost = LostVideo(row, path, error.reason, isinstance(error, MissingFileError))
            shapes = [(0, *kind.clip_shape, 3) for kind in self.views.kinds]
            return tuple(ViewClips(torch.empty(s, dtype=torch.uint8)) for s in shapes), lost
        return tuple(map(self._reversed, clips)), None

    def _reversed(self, clips: ViewClips) -> ViewClips:
        """Reverse the channels, unless that is left to the device."""
        if not self.reverse_channels or clips.plans is not None:
            return clips
        return clips._replace(clips=clips.clips.flip(-1))

    def _try_twice(self, row: int, generators: Generators) -> tuple[ViewClips, ...]:
        """Load the clips of a video; one that stalls is tried twice.

        Twice, because a connection may have broken off, or the timeout may have expired while the
        run was stopped (Ctrl-Z, a suspended machine).
        """
        first = generators(0).bit_generator
        state = first.state
        try:
            with self.watching(row):
                return self._load(row, generators)
        except StalledError:
            first.state = state
        with self.watching(row):
            return self._load(row, generators)

    def _load(self, row: int, generators: Generators) -> tuple[ViewClips, ...]:
        """Open a video and take its clips."""
        opened = self._open(row)
        with opened.video:
            return self.views.load(opened, generators)

    def _open(self, row: int) -> OpenedRow:
        return self.videos.open(
            row,
            reach=self.views.reach,
            backend=self.backend,
            num_threads=self.num_threads,
            read_timeout=self.read_timeout,
        )

    def _boxes(self, clips: ViewClips) -> SampleBoxes | None:
        """The boxes of clips with their labels; None in a list without boxes."""
        if not isinstance(self.videos, KeyFrames):
            return None
        boxes, numbers = clips.boxes, clips.box_index
        if boxes is None or numbers is None:  # the video is lost
            boxes, numbers = np.empty((0, 5), np.float32), np.empty(0, np.int64)
        labels = self.videos.table.labels(numbers)
        return SampleBoxes(*map(torch.from_numpy, (boxes, labels, numbers)))

    def _sample(
        self, key: SampleKey, row: int, clips: Sequence[ViewClips], lost: tuple[LostVideo, ...]
    ) -> Sample:
        labels = self.videos.labels
        first_view = 0
        kinds = []
        for number, (kind, of_kind) in enumerate(zip(self.views.kinds, clips, strict=True)):
            sampler = self.mask_samplers[number] if self.mask_samplers else None
            views = range(first_view, first_view + kind.views_per_sample)
            first_view = views.stop
            sample = Sample(
                of_kind.clips,
                label=None if labels is None else int(labels[row]),
                mask=self._draw(sampler, key, len(of_kind.clips), _MASK_STREAM, views),
                row=row,
                lost=(),
                plans=of_kind.plans,
                boxes=self._boxes(of_kind),
                times=of_kind.times,
                views_per_sample=kind.views_per_sample,
            )
            kinds.append(sample)
        erase = self._draw(self.erase_sampler, key, len(kinds[0].clips), _ERASE_STREAM, range(1))
        return kinds[0]._replace(lost=lost, erase=erase, further=tuple(kinds[1:]))

    def _draw(
        self,
        sampler: Callable[[Rng], Tensor] | None,
        key: SampleKey,
        num_clips: int,
        stream: int,
        views: range,
    ) -> Tensor | None:
        """One draw per clip, stacked; those of view 0 have the seed without a view number."""
        if sampler is None or not num_clips:
            return None
        drawn = []
        for view in views:
            # A stream of its own: masks do not depend on how many draws the crop needed.
            seed = (self.seed, key.epoch, key.row, 0, stream)
            generator = np.random.default_rng((*seed, view) if view else seed)
            drawn += [sampler(generator) for _ in range(num_clips // len(views))]
        return torch.stack(drawn)
