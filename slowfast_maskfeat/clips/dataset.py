"""The one dataset: a list of videos, seen through views, with masks where wanted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from slowfast_maskfeat.augment.crop_plan import CutPlan, UncutClips
from slowfast_maskfeat.clips.batch import LostVideo, Sample, SampleBoxes
from slowfast_maskfeat.clips.views import KeyFrameView, UniformViews
from slowfast_maskfeat.datasets import KeyFrames, VideoList
from slowfast_maskfeat.videos.decode import (
    DecodeError,
    MissingFileError,
    StalledError,
    Video,
    open_video,
)

Rng = np.random.Generator
# Draws what belongs to one clip: its mask, its rectangles of random erasing.
MaskSampler = Callable[[Rng], Tensor]

# So many others are tried in the place of a lost video before the list is called unusable.
_NUM_REPLACEMENTS = 20


class Views(Protocol):
    """What is cut from a video: see `clips.views`."""

    @property
    def clip_shape(self) -> tuple[int, int, int]:
        """(T, H, W) of each clip."""

    def __call__(self, video: Video, generator: Rng) -> Tensor | UncutClips:
        """(V, T, H, W, C) uint8, or what a device is to cut them from."""


class _Cut(NamedTuple):
    """What is cut from a video.

    Attributes:
        clips: (V, T, H, W, C), or with `plans` the pixels to cut them from.
        plans: how a device is to cut each; None where they are cut.
        boxes: of the clips of a key frame.
        times: (V, 2) float64, seconds of the first and last frame of each clip of uniform views.
    """

    clips: Tensor
    plans: tuple[CutPlan, ...] | None = None
    boxes: SampleBoxes | None = None
    times: Tensor | None = None


class SampleKey(NamedTuple):
    """Names one draw: the epoch and the row of the list."""

    epoch: int
    row: int


class ClipDataset(Dataset[Sample]):
    """Decodes, cuts and masks the clips of one row.

    Every draw comes from a generator seeded by (seed, epoch, row), so a sample depends neither on
    the worker that makes it nor on what was made before.

    Args:
        videos: the list.
        views: what is cut from each video; of a list of key frames a `KeyFrameView`.
        mask_sampler: draws a (t, h, w) bool mask for each clip; None for no masks.
        erase_sampler: draws the rectangles of random erasing for each clip, (n, 5); None for none.
        seed: of all draws.
        backend: name of the decoder.
        num_threads: of the decoder.
        replace_lost: take another video in the place of one that can't be decoded; without it a
            lost video gives no clip. Both are told in `Sample.lost`.
        reverse_channels: blue, green, red; of clips that a device cuts, it does that (`DeviceCut`).
        read_timeout: seconds that an address may take to open, and to give each packet, before it
            is given up; 0 for no limit. Each video has two tries.

    Attributes:
        given_up: row -> reason, of videos that are lost without another try. The loader notes
            those there that a worker hung on.
        watching: entered with the row around the work on each video.
    """

    def __init__(
        self,
        videos: VideoList,
        views: Views | KeyFrameView,
        *,
        mask_sampler: MaskSampler | None = None,
        erase_sampler: MaskSampler | None = None,
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
            ValueError: `replace_lost`, and none of twenty other videos could be decoded.
        """
        cut, error = self._cut(key.row, self._generator(key))
        if error is None:
            return self._sample(key, key.row, cut, ())
        lost = [error]
        if not self.replace_lost:
            return self._sample(key, key.row, cut, tuple(lost))
        for attempt in range(1, _NUM_REPLACEMENTS + 1):
            generator = self._generator(key, attempt)
            other = int(generator.integers(len(self)))
            cut, error = self._cut(other, generator)
            if error is None:
                return self._sample(key, other, cut, tuple(lost))
            lost.append(error)
        raise ValueError(
            f"{self.videos.source}: {len(lost)} videos in a row can't be decoded, "
            f"the last is {lost[-1].path}: {lost[-1].reason}"
        )

    def _generator(self, key: SampleKey, attempt: int = 0) -> Rng:
        return np.random.default_rng((self.seed, key.epoch, key.row, attempt))

    def _cut(self, row: int, generator: Rng) -> tuple[_Cut, LostVideo | None]:
        """The clips of a video, or none and why."""
        path = self.videos.path(row)
        try:
            if row in self.given_up:
                raise DecodeError(path, self.given_up[row])
            cut = self._try_twice(row, generator)
        except DecodeError as error:
            time, height, width = self.views.clip_shape
            empty = torch.empty((0, time, height, width, 3), dtype=torch.uint8)
            boxes = self._boxes(np.empty((0, 5), np.float32), np.empty(0, np.int64))
            lost = LostVideo(row, path, error.reason, isinstance(error, MissingFileError))
            return _Cut(empty, boxes=boxes), lost
        if self.reverse_channels and cut.plans is None:
            cut = cut._replace(clips=cut.clips.flip(-1))
        return cut, None

    def _try_twice(self, row: int, generator: Rng) -> _Cut:
        """What is cut from a video that has not been given up; one that stalls is tried twice.

        Twice, because a connection may have broken off, and a run that was stopped and continued
        (Ctrl-Z, a suspended machine) finds the time of what it waited for over.
        """
        state = generator.bit_generator.state
        try:
            with self.watching(row):
                return self._look(row, generator)
        except StalledError:
            generator.bit_generator.state = state
        with self.watching(row):
            return self._look(row, generator)

    def _look(self, row: int, generator: Rng) -> _Cut:
        """Open a video and cut what the views want."""
        if isinstance(self.views, KeyFrameView):
            return self._look_at_moment(self.views, row, generator)
        with self._open(row) as video:
            clips = self.views(video, generator)
            times = self.views.times(video) if isinstance(self.views, UniformViews) else None
        return _Cut(clips, times=times) if isinstance(clips, Tensor) else _Cut(*clips)

    def _open(self, row: int) -> Video:
        return open_video(
            self.videos.path(row),
            self.backend,
            num_threads=self.num_threads,
            read_timeout=self.read_timeout,
            content=self.videos.content(row, timeout=self.read_timeout),
        )

    def _look_at_moment(self, view: KeyFrameView, row: int, generator: Rng) -> _Cut:
        """Open a video about a key frame and cut its clips, with their boxes."""
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
        return _Cut(clips, boxes=self._boxes(boxes, key.first_box + which))

    def _boxes(self, boxes: NDArray[np.float32], numbers: NDArray[np.int64]) -> SampleBoxes | None:
        """Boxes (R, 5) of clips with their labels; None in a list without boxes."""
        if not isinstance(self.videos, KeyFrames):
            return None
        labels = self.videos.table.labels(numbers)
        return SampleBoxes(*map(torch.from_numpy, (boxes, labels, numbers)))

    def _sample(self, key: SampleKey, row: int, cut: _Cut, lost: tuple[LostVideo, ...]) -> Sample:
        mask = self._draw(self.mask_sampler, key, len(cut.clips), stream=1)
        erase = self._draw(self.erase_sampler, key, len(cut.clips), stream=2)
        labels = self.videos.labels
        label = None if labels is None else int(labels[row])
        return Sample(cut.clips, label, mask, row, lost, erase, cut.plans, cut.boxes, cut.times)

    def _draw(
        self, sampler: MaskSampler | None, key: SampleKey, num_clips: int, stream: int
    ) -> Tensor | None:
        """One draw per clip, stacked."""
        if sampler is None or not num_clips:
            return None
        # A stream of its own: masks do not depend on how many draws the cut needed.
        generator = np.random.default_rng((self.seed, key.epoch, key.row, 0, stream))
        return torch.stack([sampler(generator) for _ in range(num_clips)])
