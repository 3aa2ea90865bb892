"""Extraction of a frozen network's features for each clip of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.backbones import FeatureModel
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.distributed import AllReduce
from slowfast_maskfeat.tasks.base import Evaluation, Evaluator

# Called with clip numbers (B,) int64, sample index * views + view; features (B, ...); and the
# timestamps (B, 2) float64 of each clip's first and last frame, in seconds.
SaveBatch = Callable[[Tensor, Tensor, Tensor], None]


class FeatureExtraction(Evaluator):
    """Extracts features in the evaluation loop and passes them on batch by batch.

    Args:
        save: Called with each batch of features, see `SaveBatch`.
        of_tokens: Features of each token, (B, n, D), instead of pooled ones, (B, D).
        num_kept: Number of clips that an earlier run has already extracted.
        mean: Mean per channel of the input normalization.
        std: Standard deviation per channel of the input normalization.
    """

    def __init__(
        self,
        save: SaveBatch,
        *,
        of_tokens: bool,
        num_kept: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.save = save
        self.of_tokens = of_tokens
        self.num_kept = num_kept
        self.mean = tuple(mean)
        self.std = tuple(std)

    def evaluation(self, videos: VideoList, num_views: int) -> FeatureEvaluation:
        """New evaluation, which counts the extracted clips."""
        return FeatureEvaluation(videos, num_views, self)


class FeatureEvaluation(Evaluation):
    """Extracts the features of one split.

    Attributes:
        num_extracted: Number of clips extracted by this process, after `merge` by all processes.
    """

    def __init__(self, videos: VideoList, num_views: int, extraction: FeatureExtraction) -> None:
        super().__init__(len(videos))
        self._extraction = extraction
        self._num_views = num_views
        self.num_extracted = 0

    def add(self, model: nn.Module, batch: ClipBatch) -> None:
        """Extract and save the features of a batch."""
        if not len(batch):
            return
        assert isinstance(model, FeatureModel)
        assert batch.index is not None
        assert batch.view is not None
        assert batch.times is not None
        clips = normalize(batch.clips, self._extraction.mean, self._extraction.std)
        extract = model.token_features if self._extraction.of_tokens else model.features
        numbers = batch.index * self._num_views + batch.view
        self._extraction.save(numbers, extract(clips), batch.times)
        self.num_extracted += len(batch)

    def merge(self, all_reduce: AllReduce) -> None:
        """Sum the counts of all processes, which share no clip."""
        self.num_extracted = int(all_reduce(torch.tensor(self.num_extracted), "sum"))

    def results(self) -> dict[str, Any]:
        """Number of clips that have features, including those of earlier runs."""
        return {"num_clips": self.num_extracted + self._extraction.num_kept}


def feature_shape(
    model: FeatureModel, clip_size: Sequence[int], *, of_tokens: bool
) -> tuple[int, ...]:
    """Shape of a clip's features: (D,) if pooled, or (n, D) for tokens after the last block.

    Args:
        model: Network that extracts the features.
        clip_size: (T, H, W) in frames and pixels.
        of_tokens: Whether features are those of each token.
    """
    if of_tokens:
        return model.grids(clip_size)[-1].num_tokens, model.width
    return (model.width,)
