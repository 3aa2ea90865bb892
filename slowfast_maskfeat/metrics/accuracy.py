"""Top-k accuracy, and class scores of videos aggregated over their clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slowfast_maskfeat.distributed import AllReduce


def topk_correct(scores: Tensor, labels: Tensor, ks: Sequence[int]) -> Tensor:
    """Count the rows whose label is among the k highest scores, for several k.

    Args:
        scores: (B, K), higher is better. A row with a NaN score counts as wrong.
        labels: (B,) integer class indices.
        ks: values of k; a k above the number of classes counts every row without NaN.

    Returns:
        (len(ks),) int64 counts, on the device of `scores`.

    Raises:
        ValueError: if a k is below 1.
    """
    if any(k < 1 for k in ks):
        raise ValueError(f"every k of top-k must be >= 1, got {list(ks)}")
    num_classes = scores.shape[1]
    best = scores.topk(min(max(ks), num_classes), dim=1, sorted=True).indices  # (B, k)
    # topk treats NaN as the largest number.
    usable = ~scores.isnan().any(dim=1, keepdim=True)  # (B, 1)
    hits = (best == labels.to(best.device)[:, None]) & usable  # (B, k)
    return torch.stack([hits[:, :k].any(dim=1).sum() for k in ks])


def mean_credit(scores: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Top-1 accuracy that gives partial credit for mixed labels.

    With soft labels, the weight of the predicted class is the credit, without the share that label
    smoothing spreads over all classes: for a mix of 0.7 and 0.3 a prediction counts 0.7, 0.3 or 0.
    Deviation: the published code adds up the raw scores of both classes and compares the sums.

    Args:
        scores: (B, K), higher is better. A row with a NaN score counts as wrong.
        labels: (B,) class indices, or (B, K) soft labels.
        label_smoothing: share of each soft label that is spread over all classes, below 1.

    Returns:
        () float32, in [0, 1], on the device of `scores`.
    """
    if labels.ndim == 1:
        return topk_correct(scores, labels, (1,))[0] / len(labels)
    shares = (labels - label_smoothing / labels.shape[1]).clamp(min=0) / (1 - label_smoothing)
    credit = shares.gather(1, scores.argmax(1, keepdim=True))[:, 0]
    return torch.where(scores.isnan().any(1), 0, credit).mean()


@dataclass(frozen=True)
class VideoResult:
    """Accuracy over videos, with the counts behind it.

    Attributes:
        top1: percent of the scored videos whose highest score is that of their class.
        top5: percent whose class is among the five highest scores.
        loss: mean loss over the scored clips, or None where no losses were given.
        num_videos: videos of the split.
        num_videos_scored: videos with at least one clip; the accuracy is over these.
        num_clips_expected: videos times views.
        num_clips: clips that were scored.
        num_videos_incomplete: videos with some but not all of their views; scored on the views
            they have.
    """

    top1: float
    top5: float
    loss: float | None
    num_videos: int
    num_videos_scored: int
    num_clips_expected: int
    num_clips: int
    num_videos_incomplete: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, for a log line."""
        return asdict(self)


def combine_views(scores: Tensor, ensemble: str) -> Tensor:
    """Combine the scores of all views of a video, as `VideoScores` does.

    Maxima start at 0, as published. It matters for logits (MODEL.HEAD_ACT none), of which negative
    ones count as 0.

    Args:
        scores: (V, K).
        ensemble: `sum` or `max`.

    Returns:
        (K,).
    """
    if ensemble == "max":
        return scores.amax(dim=0).clamp(min=0)
    return scores.mean(dim=0)


class VideoScores:
    """Aggregates class probabilities of clips into scores of their videos.

    Clip `i` is view `i % num_views` of video `i // num_views`. All tensors are on the CPU.

    Args:
        num_videos: videos of the split.
        num_classes: K, columns of the scores.
        num_views: clips per video: temporal views times spatial crops.
        ensemble: `sum` (mean of the probabilities) or `max` (largest of each class), as
            `DATA.ENSEMBLE_METHOD`.

    Attributes:
        scores: (num_videos, num_classes) float64, sums or maxima over the added clips.
        clip_counts: (num_videos, num_views) int64, how often each clip was added.
        loss_sum: float64 scalar tensor.
        num_losses: int64 scalar tensor.
    """

    def __init__(
        self, num_videos: int, num_classes: int, num_views: int, *, ensemble: str = "sum"
    ) -> None:
        assert ensemble in ("sum", "max"), ensemble
        self.num_views = num_views
        self.ensemble = ensemble
        self.scores = torch.zeros(num_videos, num_classes, dtype=torch.float64)
        self.clip_counts = torch.zeros(num_videos, num_views, dtype=torch.int64)
        self.loss_sum = torch.zeros((), dtype=torch.float64)
        self.num_losses = torch.zeros((), dtype=torch.int64)

    def add(self, clip_indices: Tensor, scores: Tensor, losses: Tensor | None = None) -> None:
        """Add a batch of clips; synchronizes with their device.

        Args:
            clip_indices: (B,) integer clip indices.
            scores: (B, K) class probabilities.
            losses: (B,) loss of each clip; None for none.
        """
        indices = clip_indices.cpu().long()
        videos = indices // self.num_views
        rows = scores.detach().cpu().double()
        if self.ensemble == "sum":
            self.scores.index_add_(0, videos, rows)
        else:
            np.maximum.at(self.scores.numpy(), videos.numpy(), rows.numpy())
        ones = torch.ones_like(indices)
        self.clip_counts.view(-1).index_add_(0, indices, ones)
        if losses is not None:
            self.loss_sum += losses.detach().cpu().double().sum()
            self.num_losses += losses.numel()

    def reduce(self, all_reduce: AllReduce) -> None:
        """Combine the clips of all processes; afterwards every process has the same scores.

        Args:
            all_reduce: a collective such as `all_reduce`.
        """
        self.scores = all_reduce(self.scores, self.ensemble)
        self.clip_counts = all_reduce(self.clip_counts, "sum")
        self.loss_sum = all_reduce(self.loss_sum, "sum")
        self.num_losses = all_reduce(self.num_losses, "sum")

    def video_scores(self) -> Tensor:
        """Return mean or largest scores: (num_videos, K) float64; 0 for a lost video."""
        if self.ensemble == "max":
            return self.scores.clone()
        return self.scores / self.clip_counts.sum(dim=1).clamp(min=1)[:, None]

    def finalize(self, labels: Tensor) -> VideoResult:
        """Compute the accuracy over all videos that have a score.

        Args:
            labels: (num_videos,) integer class index of each video.

        Returns:
            The accuracy in percent (NaN if no video was scored), with counts.

        Raises:
            ValueError: if a clip was added more than once, which would weight videos unevenly.
        """
        assert labels.shape == (len(self.scores),)
        counts = self.counts()
        scored = self.clip_counts.sum(dim=1) > 0
        correct = topk_correct(self.video_scores()[scored], labels.cpu().long()[scored], (1, 5))
        num_scored = int(scored.sum())
        top1, top5 = (
            100.0 * int(count) / num_scored if num_scored else float("nan") for count in correct
        )
        return VideoResult(top1=top1, top5=top5, **counts)

    def counts(self) -> dict[str, Any]:
        """Compute the fields of `VideoResult` that are no accuracy.

        Raises:
            ValueError: if a clip was added more than once, which would weight videos unevenly.
        """
        if bool((self.clip_counts > 1).any()):
            twice = int((self.clip_counts > 1).sum())
            raise ValueError(
                f"every clip must be scored exactly once, but {twice} were scored more than once"
            )
        per_video = self.clip_counts.sum(dim=1)
        scored = per_video > 0
        num_losses = int(self.num_losses)
        is_incomplete = scored & (per_video < self.num_views)
        return {
            "loss": float(self.loss_sum) / num_losses if num_losses else None,
            "num_videos": len(self.scores),
            "num_videos_scored": int(scored.sum()),
            "num_clips_expected": self.clip_counts.numel(),
            "num_clips": int(self.clip_counts.sum()),
            "num_videos_incomplete": int(is_incomplete.sum()),
        }
