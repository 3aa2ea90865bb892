"""Extraction of a frozen network's features for each clip of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.backbones import FeatureModel, LayerTokens
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.distributed import AllReduce
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.tasks.base import Evaluation, Evaluator

# Called with clip numbers (B,) int64, sample index * views + view; features (B, ...); and the
# timestamps (B, 2) float64 of each clip's first and last frame, in seconds.
SaveBatch = Callable[[Tensor, Tensor, Tensor], None]

POOLINGS = ("", "mean", "cls", "none")
"""Values of `FeatureKind.pooling`."""

_CLASS_TOKEN = "class token"  # as `FeatureModel.pooling` names it


@dataclass(frozen=True)
class FeatureKind:
    """Which features of a clip are taken.

    Attributes:
        layer: block whose tokens are taken, from 0; negative: from the last, which is -1. They go
            through the last layer norm where they have its width, see `LayerTokens`.
        pooling: "mean" of the patch tokens; "cls": the class token; "none": every patch token; "":
            as the classifier of the network takes them, see `FeatureModel.pooling`.
    """

    layer: int = -1
    pooling: str = ""

    @property
    def of_tokens(self) -> bool:
        """Whether a clip has features for each token."""
        return self.pooling == "none"

    def check(self, model: FeatureModel, clip_size: Sequence[int]) -> None:
        """Check that a network has these features.

        Args:
            model: the network.
            clip_size: (T, H, W) in frames and pixels.

        Raises:
            ValueError: there is no such block, pooling or class token, or the network does not show
                the tokens of its inner blocks.
        """
        if self.pooling not in POOLINGS:
            known = ", ".join(repr(name) for name in POOLINGS if name)
            raise ValueError(
                f"pooling must be one of {known}, or empty as the classifier of the network takes "
                f"them, got {self.pooling!r}"
            )
        depth = len(model.grids(clip_size))
        if not isinstance(self.layer, Integral) or not -depth <= self.layer < depth:
            raise ValueError(
                f"layer must be one of the {depth} blocks, in [{-depth}, {depth}), got "
                f"{self.layer!r}"
            )
        if self.pooling == "cls" and not model.has_cls:
            raise ValueError(
                "pooling must be 'mean' or 'none' for a network without a class token, got 'cls'"
            )
        if not self._is_of_last(depth) and not isinstance(model, LayerTokens):
            raise ValueError(
                f"layer must be -1 for {type(model).__name__}, which shows its last tokens only, "
                f"got {self.layer}"
            )

    def describe(self, model: FeatureModel, clip_size: Sequence[int]) -> str:
        """How the features are pooled, and after which block unless it is the last, in words."""
        depth = len(model.grids(clip_size))
        if self._is_of_last(depth):
            if self.of_tokens:
                return "every token but the class token"
            if self.pooling == "cls":
                return _CLASS_TOKEN
            if self.pooling == "mean" and model.pooling == _CLASS_TOKEN:
                return "mean of the normed tokens"
            return model.pooling
        words = {"cls": _CLASS_TOKEN, "none": "every token but the class token"}
        return f"{words.get(self._inner_pooling(model), 'mean token')} after block " + str(
            self.layer % depth
        )

    def grid(self, model: FeatureModel, clip_size: Sequence[int]) -> Grid:
        """Grid of the tokens."""
        return model.grids(clip_size)[self.layer]

    def shape(self, model: FeatureModel, clip_size: Sequence[int]) -> tuple[int, ...]:
        """Shape of a clip's features: (D,) if pooled, or (n, D) for each token.

        Args:
            model: network that extracts the features.
            clip_size: (T, H, W) in frames and pixels.
        """
        is_last = self._is_of_last(len(model.grids(clip_size)))
        width = model.width
        if not is_last and isinstance(model, LayerTokens):
            width = model.layer_widths()[self.layer]
        return (self.grid(model, clip_size).num_tokens, width) if self.of_tokens else (width,)

    def __call__(self, model: FeatureModel, clips: Tensor) -> Tensor:
        """Compute the features of clips.

        Args:
            model: network that passed `check`.
            clips: (B, C, T, H, W), float, normalized.

        Returns:
            (B, D), or (B, n, D) in the order of (t, h, w).
        """
        depth = len(model.grids(clips.shape[2:]))
        if not self._is_of_last(depth):
            return self._of_inner_block(model, clips, self.layer % depth)
        if self.of_tokens:
            return model.token_features(clips)
        if self.pooling == "cls":
            return model.class_features(clips)
        if self.pooling == "mean" and model.pooling == _CLASS_TOKEN:
            return model.token_features(clips).mean(dim=1)
        return model.features(clips)

    def _of_inner_block(self, model: FeatureModel, clips: Tensor, block: int) -> Tensor:
        assert isinstance(model, LayerTokens)
        pooling = self._inner_pooling(model)
        tokens: Tensor
        (tokens,) = model.layer_tokens(clips, [block], with_cls=pooling == "cls")
        if pooling == "none":
            return tokens
        return tokens[:, 0] if pooling == "cls" else tokens.mean(dim=1)

    def _inner_pooling(self, model: FeatureModel) -> str:
        """The pooling of an inner block: by default the token that the classifier takes."""
        return self.pooling or ("cls" if model.pooling == _CLASS_TOKEN else "mean")

    def _is_of_last(self, depth: int) -> bool:
        return self.layer % depth == depth - 1


class FeatureExtraction(Evaluator):
    """Extracts features in the evaluation loop and passes them on batch by batch.

    Args:
        save: called with each batch of features, see `SaveBatch`.
        kind: which features.
        num_kept: number of clips that an earlier run has already extracted.
        mean: mean per channel of the input normalization.
        std: standard deviation per channel of the input normalization.
    """

    def __init__(
        self,
        save: SaveBatch,
        *,
        kind: FeatureKind,
        num_kept: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.save = save
        self.kind = kind
        self.num_kept = num_kept
        self.mean = tuple(mean)
        self.std = tuple(std)

    def evaluation(self, videos: VideoList, num_views: int) -> FeatureEvaluation:
        """New evaluation, which counts the extracted clips."""
        return FeatureEvaluation(videos, num_views, self)


class FeatureEvaluation(Evaluation):
    """Extracts the features of one split.

    Attributes:
        num_extracted: number of clips extracted by this process, after `merge` by all processes.
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
        numbers = batch.index * self._num_views + batch.view
        self._extraction.save(numbers, self._extraction.kind(model, clips), batch.times)
        self.num_extracted += len(batch)

    def merge(self, all_reduce: AllReduce) -> None:
        """Sum the counts of all processes, which share no clip."""
        self.num_extracted = int(all_reduce(torch.tensor(self.num_extracted), "sum"))

    def results(self) -> dict[str, Any]:
        """Number of clips that have features, including those of earlier runs."""
        return {"num_clips": self.num_extracted + self._extraction.num_kept}
