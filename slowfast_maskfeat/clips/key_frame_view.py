"""Clips around key frames, with their boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slowfast_maskfeat.augment.boxes import Boxes, clip_boxes, has_area
from slowfast_maskfeat.clips.temporal_sampling import clip_around, reach_around
from slowfast_maskfeat.clips.views import Generators, Rng, ViewClips, ViewKind, square_kind
from slowfast_maskfeat.datasets import OpenedRow
from slowfast_maskfeat.videos.decode import Video


class BoxTransform(Protocol):
    """Transform of a clip and its boxes, such as `TrainTransform` or `WholeFrameTransform`."""

    def with_boxes(self, frames: Tensor, boxes: Boxes, generator: Rng) -> tuple[Tensor, Boxes]:
        """Transform (T, H, W, C) uint8 frames and boxes in their pixels to a clip and its boxes."""


@dataclass(frozen=True, kw_only=True)
class KeyFrameView:
    """The clip around a key frame, with one or several crops and their boxes.

    Attributes:
        transform: the spatial crop.
        crop_size: short side of the clips in pixels.
        num_frames: T.
        sampling_rate: interval between sampled frames, in frames at `target_fps`.
        target_fps: frames per second.
        num_samples: crops of the same frames (repeated augmentation).
        keep_all: keep boxes with no area after the crop, as evaluation requires.
    """

    transform: BoxTransform
    crop_size: int
    num_frames: int
    sampling_rate: int
    target_fps: float = 30.0
    num_samples: int = 1
    keep_all: bool = False

    @property
    def kinds(self) -> tuple[ViewKind, ...]:
        """The single kind; for whole frames, its shape is the square of the short side."""
        return (square_kind(self.num_frames, self.crop_size),)

    @property
    def reach(self) -> float:
        """Seconds of the video to read before and after the key frame."""
        return reach_around(
            num_frames=self.num_frames,
            sampling_rate=self.sampling_rate,
            target_fps=self.target_fps,
        )

    def __call__(
        self,
        video: Video,
        timestamp: float,
        boxes: NDArray[np.float32],
        generator: Rng,
    ) -> tuple[Tensor, NDArray[np.float32], NDArray[np.int64]]:
        """Decode once and crop.

        Args:
            video: opened video, or a part of it around the key frame.
            timestamp: of the key frame, in seconds on the clock of the video.
            boxes: (R, 4), x1, y1, x2, y2 as fractions of width and height.
            generator: random generator.

        Returns:
            Clips (num_samples, T, H, W, C) uint8; their boxes (R', 5): clip index, x1, y1, x2, y2
            in pixels; and (R',), the index of each in `boxes`.
        """
        indices = clip_around(
            video,
            timestamp=timestamp,
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

    def load(self, row: OpenedRow, generators: Generators) -> tuple[ViewClips, ...]:
        """Return the clips of `__call__`, their boxes and the indices of these in the box table."""
        assert row.timestamp is not None
        assert row.boxes is not None
        assert row.box_index is not None
        clips, boxes, index = self(row.video, row.timestamp, row.boxes, generators(0))
        return (ViewClips(clips, boxes=boxes, box_index=row.box_index[index]),)
