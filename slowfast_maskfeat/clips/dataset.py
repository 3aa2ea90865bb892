"""The one dataset: clips of the videos of a list, taken through views, with their masks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from slowfast_maskfeat.augment import EraseSampler
from slowfast_maskfeat.augment.crop_plan import CropPlan, UncroppedClips
from slowfast_maskfeat.clips.batch import LostVideo, Sample, SampleBoxes
from slowfast_maskfeat.clips.views import KeyFrameView, UniformViews
from slowfast_maskfeat.datasets import KeyFrames, VideoList
from slowfast_maskfeat.masks import MaskSampler
from slowfast_maskfeat.videos.decode import (
    DecodeError,
    MissingFileError,
    StalledError,
    Video,
    open_video,
)

Rng = np.random.Generator

# Replacements that are tried for a lost video before the list is an error.
_NUM_REPLACEMENTS = 20


class Views(Protocol):
    """Takes clips from a video: see `clips.views`."""

    @property
    def clip_shape(self) -> tuple[int, int, int]:
        """(T, H, W) of each clip."""

    def __call__(self, video: Video, generator: Rng) -> Tensor | UncroppedClips:
        """(V, T, H, W, C) uint8, or their source pixels where the device crops."""


class _Cropped(NamedTuple):
    """The clips of a video.

    Attributes:
        clips: (V, T, H, W, C), or with `plans` their source pixels.
        plans: crops that are left to the device; None where clips are cropped.
        boxes: of the clips of a key frame.
        times: (V, 2) float64, seconds of the first and last frame of each clip of uniform views.
    """

    clips: Tensor
    plans: tuple[CropPlan, ...] | None = None
    boxes: SampleBoxes | None = None
    times: Tensor | None = None


class SampleKey(NamedTuple):
    """Names one draw: the epoch and the row of the list."""

    epoch: int
    row: int


class ClipDataset(Dataset[Sample]):
    """Decodes, crops and masks the clips of one row.

    Every draw comes from a generator seeded by (seed, epoch, row), so a sample depends neither on
    the worker that makes it nor on what was made before.

    Args:
        videos: the list.
        views: the clips that are taken from each video; for key frames a `KeyFrameView`.
        mask_sampler: draws a (t, h, w) bool mask for each clip; None for no masks.
        erase_sampler: draws the rectangles of random erasing for each clip, (n, 5); None for none.
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
        views: Views | KeyFrameView,
        *,
        mask_sampler: MaskSampler | None = None,
        erase_sampler: EraseSampler | None = None,
        seed: int = 0,
        backend: str = "auto",
        num_threads: int = 1,
        replace_lost: bool = False,
        reverse_channels: bool = False,
        read_timeout: float = 0.0,
    ) -> None:
        assert isinstance(videos, KeyFrames) == isinstance(views, KeyFrameView)
        self.videos = videos
        self.views = views
        self.mask_sampler = mask_sampler
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
        cropped, error = self._crop(key.row, self._generator(key))
        if error is None:
            return self._sample(key, key.row, cropped, ())
        lost = [error]
        if not self.replace_lost:
            return self._sample(key, key.row, cropped, tuple(lost))
        for attempt in range(1, _NUM_REPLACEMENTS + 1):
            generator = self._generator(key, attempt)
            other = int(generator.integers(len(self)))
            cropped, error = self._crop(other, generator)
            if error is None:
                return self._sample(key, other, cropped, tuple(lost))
            lost.append(error)
        raise ValueError(
            f"{self.videos.source}: {len(lost)} videos in a row can't be decoded, "
            f"the last is {lost[-1].path}: {lost[-1].reason}"
        )

    def _generator(self, key: SampleKey, attempt: int = 0) -> Rng:
        return np.random.default_rng((self.seed, key.epoch, key.row, attempt))

    def _crop(self, row: int, generator: Rng) -> tuple[_Cropped, LostVideo | None]:
        """The clips of a video; none, and the reason, if it can't be decoded."""
        path = self.videos.path(row)
        try:
            if row in self.given_up:
                raise DecodeError(path, self.given_up[row])
            cropped = self._try_twice(row, generator)
        except DecodeError as error:
            time, height, width = self.views.clip_shape
            empty = torch.empty((0, time, height, width, 3), dtype=torch.uint8)
            boxes = self._boxes(np.empty((0, 5), np.float32), np.empty(0, np.int64))
            lost = LostVideo(row, path, error.reason, isinstance(error, MissingFileError))
            return _Cropped(empty, boxes=boxes), lost
        if self.reverse_channels and cropped.plans is None:
            cropped = cropped._replace(clips=cropped.clips.flip(-1))
        return cropped, None

    def _try_twice(self, row: int, generator: Rng) -> _Cropped:
        """Load the clips of a video; one that stalls is tried twice.

        Twice, because a connection may have broken off, or the timeout may have expired while the
        run was stopped (Ctrl-Z, a suspended machine).
        """
        state = generator.bit_generator.state
        try:
            with self.watching(row):
                return self._load(row, generator)
        except StalledError:
            generator.bit_generator.state = state
        with self.watching(row):
            return self._load(row, generator)

    def _load(self, row: int, generator: Rng) -> _Cropped:
        """Open a video and take its clips."""
        if isinstance(self.views, KeyFrameView):
            return self._load_key_frame(self.views, row, generator)
        with self._open(row) as video:
            clips = self.views(video, generator)
            times = self.views.times(video) if isinstance(self.views, UniformViews) else None
        return _Cropped(clips, times=times) if isinstance(clips, Tensor) else _Cropped(*clips)

    def _open(self, row: int) -> Video:
        return open_video(
            self.videos.path(row),
            self.backend,
            num_threads=self.num_threads,
            read_timeout=self.read_timeout,
            content=self.videos.content(row, timeout=self.read_timeout),
        )

    def _load_key_frame(self, view: KeyFrameView, row: int, generator: Rng) -> _Cropped:
        """Open a video around a key frame and take its clips, with their boxes."""
        assert isinstance(self.videos, KeyFrames)
        key = self.videos.key_frame(row)
        video, moment = self.videos.open_moment(
            row,
            seconds=view.reach,
            backend=self.backend,
            num_threads=self.num_threads,
            read_timeout=self.read_timeout,
        )
        with video:
            clips, boxes, which = view(video, moment, key.boxes, generator)
        return _Cropped(clips, boxes=self._boxes(boxes, key.first_box + which))

    def _boxes(self, boxes: NDArray[np.float32], numbers: NDArray[np.int64]) -> SampleBoxes | None:
        """Boxes (R, 5) of clips with their labels; None in a list without boxes."""
        if not isinstance(self.videos, KeyFrames):
            return None
        labels = self.videos.table.labels(numbers)
        return SampleBoxes(*map(torch.from_numpy, (boxes, labels, numbers)))

    def _sample(
        self, key: SampleKey, row: int, cropped: _Cropped, lost: tuple[LostVideo, ...]
    ) -> Sample:
        mask = self._draw(self.mask_sampler, key, len(cropped.clips), stream=1)
        erase = self._draw(self.erase_sampler, key, len(cropped.clips), stream=2)
        labels = self.videos.labels
        label = None if labels is None else int(labels[row])
        return Sample(
            cropped.clips,
            label,
            mask,
            row,
            lost,
            erase,
            plans=cropped.plans,
            boxes=cropped.boxes,
            times=cropped.times,
        )

    def _draw(
        self, sampler: Callable[[Rng], Tensor] | None, key: SampleKey, num_clips: int, stream: int
    ) -> Tensor | None:
        """One draw per clip, stacked."""
        if sampler is None or not num_clips:
            return None
        # A stream of its own: masks do not depend on how many draws the crop needed.
        generator = np.random.default_rng((self.seed, key.epoch, key.row, 0, stream))
        return torch.stack([sampler(generator) for _ in range(num_clips)])
