"""Dataset of clips: the views of each video of an annotation file, with their masks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from slowfast_maskfeat.augment import EraseSampler
from slowfast_maskfeat.clips.batch import LostVideo, Sample, SampleBoxes
from slowfast_maskfeat.clips.label_maps import LabelMaps
from slowfast_maskfeat.clips.stage_times import StageTimes
from slowfast_maskfeat.clips.views import Generators, Rng, ViewClips, Views
from slowfast_maskfeat.datasets import KeyFrames, OpenedRow, VideoList
from slowfast_maskfeat.masks import MaskSampler
from slowfast_maskfeat.videos.decode import DecodeError, MissingFileError, StalledError
from slowfast_maskfeat.videos.decode_options import DEFAULT_OPTIONS, DecodeOptions
from slowfast_maskfeat.videos.stopwatch import Stopwatch

# Replacements to try for a lost video before giving up.
_NUM_REPLACEMENTS = 20
_NO_MEMORY = "can't allocate memory"  # in torch's error for tensors on the CPU
# Last number of the seeds (seed, epoch, row, attempt, stream); the seed of the first view's crop
# has no stream number.
_MASK_STREAM, _ERASE_STREAM, _VIEW_STREAM = 1, 2, 3


class SampleKey(NamedTuple):
    """Identifies a sample: the epoch and the row of the annotation file."""

    epoch: int
    row: int


class ClipDataset(Dataset[Sample]):
    """Decodes, crops and masks the clips of each row.

    Every draw uses a generator seeded with (seed, epoch, row, view), so a sample does not depend on
    the worker that loads it or on the samples loaded before.

    Args:
        videos: samples of a split.
        views: clips to take from each video; a `KeyFrameView` for key frames.
        mask_samplers: for each kind of view, a sampler of the (t, h, w) bool mask of each clip, or
            None for no masks; empty for no masks at all.
        erase_sampler: sampler of the rectangles of random erasing of each clip, (n, 5), or None.
            Supported only with one kind of view and one view per sample.
        seed: seed of all draws.
        decoding: how files are decoded; a video that stalled is tried twice.
        replace_lost: replace a video that can't be decoded with another one; if False, a lost video
            gives no clips. Lost videos are recorded in `Sample.lost` in both cases.
        reverse_channels: return channels as blue, green, red; clips cropped on the device are
            reversed there (`DeviceCrop`).
        label_maps: reader of the label map of each row's image; an image without one counts as
            lost. None for batches without maps.
        num_classes: K of the targets of a list with sets of labels; 0: its clips have no labels.

    Attributes:
        given_up: reasons by row, of videos to report as lost without decoding them. The loader adds
            videos that a worker hung on.
        watching: context manager, called with the row, that is entered while its video is decoded.
    """

    def __init__(
        self,
        videos: VideoList,
        views: Views,
        *,
        mask_samplers: Sequence[MaskSampler | None] = (),
        erase_sampler: EraseSampler | None = None,
        seed: int = 0,
        decoding: DecodeOptions = DEFAULT_OPTIONS,
        replace_lost: bool = False,
        reverse_channels: bool = False,
        label_maps: LabelMaps | None = None,
        num_classes: int = 0,
    ) -> None:
        if mask_samplers and len(mask_samplers) != len(views.kinds):
            raise ValueError(
                f"mask_samplers must have one entry for each of the {len(views.kinds)} kinds of "
                f"views, got {len(mask_samplers)}"
            )
        self.videos = videos
        self.views = views
        self.mask_samplers = tuple(mask_samplers)
        self.erase_sampler = erase_sampler
        self.seed = seed
        self.decoding = decoding
        self.replace_lost = replace_lost
        self.reverse_channels = reverse_channels
        self.label_maps = label_maps
        self.num_classes = num_classes
        self.given_up: dict[int, str] = {}
        self._stages = StageTimes()  # of the sample that is being loaded
        self.watching: Callable[[int], AbstractContextManager[object]] = nullcontext

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: SampleKey) -> Sample:
        """Return the clips of one row in one epoch.

        Raises:
            ValueError: with `replace_lost`, twenty replacements could not be decoded either.
        """
        self._stages = StageTimes()
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
            f"{self.videos.source}: {len(lost)} videos in a row can't be decoded; "
            f"the last one is {lost[-1].path}: {lost[-1].reason}"
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
        """Load the clips of each kind; if decoding fails, empty clips and the reason."""
        path = self.videos.path(row)
        try:
            if row in self.given_up:
                raise DecodeError(path, self.given_up[row])
            clips = self._load_with_retry(row, generators)
        except DecodeError as error:
            lost = LostVideo(row, path, error.reason, isinstance(error, MissingFileError))
            shapes = [(0, *kind.clip_shape, 3) for kind in self.views.kinds]
            return tuple(ViewClips(torch.empty(s, dtype=torch.uint8)) for s in shapes), lost
        return tuple(map(self._reverse_channels, clips)), None

    def _reverse_channels(self, clips: ViewClips) -> ViewClips:
        """Reverse the channels, unless the device does."""
        if not self.reverse_channels or clips.plans is not None:
            return clips
        return clips._replace(clips=clips.clips.flip(-1))

    def _load_with_retry(self, row: int, generators: Generators) -> tuple[ViewClips, ...]:
        """Load the clips of a video, with one retry if it stalls.

        The connection may have dropped, or the timeout may have expired while the run was stopped
        (Ctrl-Z, a suspended machine).
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
        """Open a video and load its clips, with the label map of an image."""
        maps = self.label_maps
        opening = Stopwatch()
        with opening.running():
            label_map = None if maps is None else maps.read(self.videos.path(row))
            opened = self.open(row)
        start = time.perf_counter()
        with opened.video:
            try:
                loaded = self.views.load(opened, generators)
            except RuntimeError as error:
                if _NO_MEMORY not in str(error):
                    raise
                raise DecodeError(opened.video.path, "a clip does not fit into memory") from error
        loading = time.perf_counter() - start
        decoding = opened.video.decoding
        self._stages += StageTimes(
            opening=opening.seconds,
            decoding=decoding.seconds,
            augmentation=loading - decoding.seconds,
            waiting=opening.waiting + decoding.waiting,
        )
        return tuple(clips._replace(label_map=label_map) for clips in loaded)

    def open(self, row: int) -> OpenedRow:
        """Open the video of a row.

        Raises:
            DecodeError: see `VideoList.open`.
        """
        return self.videos.open(row, reach=self.views.reach, options=self.decoding)

    def _boxes(self, clips: ViewClips) -> SampleBoxes | None:
        """Return the boxes of clips with their labels; None for a data set without boxes."""
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
                mask=self._draw_per_clip(sampler, key, len(of_kind.clips), _MASK_STREAM, views),
                row=row,
                lost=(),
                plans=of_kind.plans,
                boxes=self._boxes(of_kind),
                times=of_kind.times,
                views_per_sample=kind.views_per_sample,
                crops=of_kind.crops,
                flips=of_kind.flips,
                label_map=of_kind.label_map,
                targets=self._targets(row, of_kind),
            )
            kinds.append(sample)
        erase = self._draw_per_clip(
            self.erase_sampler, key, len(kinds[0].clips), _ERASE_STREAM, range(1)
        )
        return kinds[0]._replace(
            lost=lost, erase=erase, further=tuple(kinds[1:]), stages=self._stages
        )

    def _targets(self, row: int, clips: ViewClips) -> Tensor | None:
        """Return the targets (V, K) of clips of a list with sets of labels."""
        if self.videos.label_sets is None or not self.num_classes:
            return None
        spans = [None] * len(clips.clips) if clips.spans is None else clips.spans.tolist()
        targets = torch.zeros(len(spans), self.num_classes)
        for target, span in zip(targets, spans, strict=True):
            target[torch.from_numpy(self.videos.labels_of(row, span))] = 1
        return targets

    def _draw_per_clip(
        self,
        sampler: Callable[[Rng], Tensor] | None,
        key: SampleKey,
        num_clips: int,
        stream: int,
        views: range,
    ) -> Tensor | None:
        """Draw once per clip and stack; the seed of view 0 has no view number."""
        if sampler is None or not num_clips:
            return None
        drawn = []
        for view in views:
            # A separate stream: masks do not depend on the number of draws of the crop.
            seed = (self.seed, key.epoch, key.row, 0, stream)
            generator = np.random.default_rng((*seed, view) if view else seed)
            drawn += [sampler(generator) for _ in range(num_clips // len(views))]
        return torch.stack(drawn)
