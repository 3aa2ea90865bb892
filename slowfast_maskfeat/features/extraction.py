"""Features of a frozen network, for each clip of a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat.augment.transforms import normalize
from slowfast_maskfeat.backbones import FeatureModel
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.tasks.base import AllReduce, Evaluation, Evaluator

# Takes (B,) int64 numbers of clips, row times views plus the view; their features (B, ...); and
# (B, 2) float64 seconds of the first and last frame.
Keep = Callable[[Tensor, Tensor, Tensor], None]


class FeatureExtraction(Evaluator):
    """Has the one evaluation loop make features, which go elsewhere batch by batch.

    Args:
        keep: takes them.
        of_tokens: each token's features, (B, n, D), not the pooled ones, (B, D).
        num_kept: clips that were made by an earlier run.
        mean: per channel, of the clip's normalization.
        std: per channel, of the clip's normalization.
    """

    def __init__(
        self,
        keep: Keep,
        *,
        of_tokens: bool,
        num_kept: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.keep = keep
        self.of_tokens = of_tokens
        self.num_kept = num_kept
        self.mean = tuple(mean)
        self.std = tuple(std)

    def evaluation(self, videos: VideoList, num_views: int) -> FeatureEvaluation:
        """A count of clips."""
        return FeatureEvaluation(videos, num_views, self)


class FeatureEvaluation(Evaluation):
    """Makes the features of a list.

    Attributes:
        num_made: clips of this process, and after `merge` of all.
    """

    def __init__(self, videos: VideoList, num_views: int, extraction: FeatureExtraction) -> None:
        super().__init__(len(videos))
        self._extraction = extraction
        self._num_views = num_views
        self.num_made = 0

    def add(self, model: nn.Module, batch: ClipBatch) -> None:
        """Run the network on a batch."""
        if not len(batch):
            return
        assert isinstance(model, FeatureModel)
        assert batch.index is not None
        assert batch.view is not None
        assert batch.times is not None
        clips = normalize(batch.clips, self._extraction.mean, self._extraction.std)
        take = model.token_features if self._extraction.of_tokens else model.features
        self._extraction.keep(batch.index * self._num_views + batch.view, take(clips), batch.times)
        self.num_made += len(batch)

    def merge(self, all_reduce: AllReduce) -> None:
        """Each clip is with one process."""
        self.num_made = int(all_reduce(torch.tensor(self.num_made), "sum"))

    def results(self) -> dict[str, Any]:
        """How many clips have features."""
        return {"num_clips": self.num_made + self._extraction.num_kept}


def feature_shape(
    model: FeatureModel, clip_size: Sequence[int], *, of_tokens: bool
) -> tuple[int, ...]:
    """Shape of a clip's features: (D,), or (n, D) of its tokens after the last block.

    Args:
        model: the network.
        clip_size: (T, H, W) in frames and pixels.
        of_tokens: whether each token is kept.
    """
    if of_tokens:
        return model.grids(clip_size)[-1].num_tokens, model.width
    return (model.width,)
