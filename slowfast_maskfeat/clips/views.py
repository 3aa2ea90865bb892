"""Which clips of a video are taken: one at random to train on, or a fixed set to evaluate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from slowfast_maskfeat.clips.sample import random_clip, uniform_clip
from slowfast_maskfeat.clips.transform import TestTransform, TrainTransform
from slowfast_maskfeat.videos.decode import Video


@dataclass(frozen=True, kw_only=True)
class RandomView:
    """One clip at a random time, cut at random.

    Attributes:
        transform: the spatial cut.
        num_frames: T.
        sampling_rate: distance of two frames, in frames at `target_fps`.
        target_fps: frames per second.
        jitter_fps: a uniform draw up to this is added to `target_fps`.
    """

    transform: TrainTransform
    num_frames: int
    sampling_rate: int
    target_fps: float = 30.0
    jitter_fps: float = 0.0

    @property
    def clip_shape(self) -> tuple[int, int, int]:
        """(T, H, W) of each clip."""
        return self.num_frames, self.transform.crop_size, self.transform.crop_size

    def __call__(self, video: Video, generator: np.random.Generator) -> Tensor:
        """Decode and cut: (1, T, H, W, C) uint8."""
        indices = random_clip(
            video,
            num_frames=self.num_frames,
            sampling_rate=self.sampling_rate,
            target_fps=self.target_fps,
            jitter_fps=self.jitter_fps,
            generator=generator,
        )
        frames = torch.from_numpy(video.frames(indices))
        return self.transform(frames, generator)[None].contiguous()


@dataclass(frozen=True, kw_only=True)
class UniformViews:
    """All views of an evaluation: `num_views` clips along the time, each in all its crops.

    Attributes:
        transform: the spatial crops.
        num_frames: T.
        sampling_rate: distance of two frames, in frames at `target_fps`.
        target_fps: frames per second.
        num_views: clips along the time.
        use_offset: reach from the first to the last frame; a single view takes the middle.
    """

    transform: TestTransform
    num_frames: int
    sampling_rate: int
    target_fps: float = 30.0
    num_views: int = 1
    use_offset: bool = False

    @property
    def clip_shape(self) -> tuple[int, int, int]:
        """(T, H, W) of each clip."""
        return self.num_frames, self.transform.crop_size, self.transform.crop_size

    def __call__(self, video: Video, generator: np.random.Generator | None = None) -> Tensor:
        """Decode once and cut all: (num_views * num_crops, T, H, W, C) uint8, views outermost.

        Nothing is drawn; the generator is there because training views need one.
        """
        indices = np.stack(
            [
                uniform_clip(
                    video,
                    num_frames=self.num_frames,
                    sampling_rate=self.sampling_rate,
                    target_fps=self.target_fps,
                    view=view,
                    num_views=self.num_views,
                    use_offset=self.use_offset,
                )
                for view in range(self.num_views)
            ]
        )  # (V, T)
        wanted, place = np.unique(indices, return_inverse=True)
        frames = torch.from_numpy(video.frames(wanted))
        clips = [self.transform(frames[torch.from_numpy(p)]) for p in place.reshape(indices.shape)]
        return torch.cat(clips).contiguous()
