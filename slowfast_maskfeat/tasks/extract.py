"""Features of a frozen network, for each clip of a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from slowfast_maskfeat.backbones import MViT
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.clips.transform import normalise
from slowfast_maskfeat.tasks.base import AllReduce, Evaluation, Evaluator
from slowfast_maskfeat.videos.index import VideoList


class FeatureExtraction(Evaluator):
    """Has the one evaluation loop collect features.

    Args:
        shape: of a clip's features: (D,) pooled as the classifier does, or (n, D) of each token.
        mean: per channel, of the clip's normalisation.
        std: per channel, of the clip's normalisation.
    """

    def __init__(
        self, shape: Sequence[int], *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.shape = tuple(shape)
        self.mean = tuple(mean)
        self.std = tuple(std)

    def evaluation(self, videos: VideoList, num_views: int) -> FeatureEvaluation:
        """Room for the features of all clips."""
        return FeatureEvaluation(videos, num_views, self)


class FeatureEvaluation(Evaluation):
    """The features of a list, in the order of its rows and views.

    Attributes:
        features: (videos * views, D) float32, or (videos * views, n, D) float16: of tokens there
            are many, and half the bits carry what a layer norm gives.
        times: (videos * views, 2) float64, seconds of the first and last frame.
        is_there: (videos * views,) bool; False for the clips of lost videos.
    """

    def __init__(self, videos: VideoList, num_views: int, extraction: FeatureExtraction) -> None:
        super().__init__(len(videos))
        self._extraction = extraction
        self._num_views = num_views
        num_clips = len(videos) * num_views
        dtype = torch.float32 if len(extraction.shape) == 1 else torch.float16
        self.features = torch.zeros(num_clips, *extraction.shape, dtype=dtype)
        self.times = torch.zeros(num_clips, 2, dtype=torch.float64)
        self.is_there = torch.zeros(num_clips, dtype=torch.bool)

    def add(self, model: nn.Module, batch: ClipBatch) -> None:
        """Run the network on a batch."""
        if not len(batch):
            return
        assert isinstance(model, MViT)
        assert batch.index is not None
        assert batch.view is not None
        assert batch.times is not None
        clips = normalise(batch.clips, self._extraction.mean, self._extraction.std)
        is_pooled = len(self._extraction.shape) == 1
        found = model.features(clips) if is_pooled else model.token_features(clips)
        place = (batch.index * self._num_views + batch.view).cpu()
        self.features[place] = found.cpu().to(self.features.dtype)
        self.times[place] = batch.times.cpu()
        self.is_there[place] = True

    def merge(self, all_reduce: AllReduce) -> None:
        """Each clip is with one process and zero with the others."""
        self.features = all_reduce(self.features, "sum")
        self.times = all_reduce(self.times, "sum")
        self.is_there = all_reduce(self.is_there.to(torch.uint8), "max").bool()

    def results(self) -> dict[str, Any]:
        """How many clips have features.

        Raises:
            ValueError: none has.
        """
        if not bool(self.is_there.any()):
            raise ValueError("no video of the list could be decoded")
        return {"num_clips": int(self.is_there.sum())}


def feature_shape(model: MViT, clip_size: Sequence[int], *, of_tokens: bool) -> tuple[int, ...]:
    """Shape of a clip's features: (D,), or (n, D) of its tokens after the last block.

    Args:
        model: the network.
        clip_size: (T, H, W) in frames and pixels.
        of_tokens: whether each token is kept.
    """
    width = model.geometries[-1].dim_out
    return (model.block_grids(clip_size)[-1].num_tokens, width) if of_tokens else (width,)
