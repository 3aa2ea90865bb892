"""Top-k accuracy, and class scores of videos collected over their clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slowfast_maskfeat.distributed import AllReduce


def topk_correct(scores: Tensor, labels: Tensor, ks: Sequence[int]) -> Tensor:
    """How many rows have their label among the k best scores, for several k.

    Args:
        scores: (B, K), higher is better. A row with a score that is NaN counts as wrong.
        labels: (B,) integer class numbers.
        ks: The k; one above the number of classes is met by every row.

    Returns:
        (len(ks),) int64 counts, on the device of ``scores``.

    Raises:
        ValueError: If a k is below 1.
    """
    if any(k < 1 for k in ks):
        raise ValueError(f"top-k was asked for k in {list(ks)}; 1 or more is right")
    num_classes = scores.shape[1]
    best = scores.topk(min(max(ks), num_classes), dim=1, sorted=True).indices  # (B, k)
    # topk takes NaN for the largest number.
    usable = ~scores.isnan().any(dim=1, keepdim=True)  # (B, 1)
    hits = (best == labels.to(best.device)[:, None]) & usable  # (B, k)
    return torch.stack([hits[:, :k].any(dim=1).sum() for k in ks])


def mean_credit(scores: Tensor, labels: Tensor) -> Tensor:
    """Share of the rows whose best score is the right class, of mixed labels in part.

    A row of soft labels gives the credit that its mixture has of the answered class, without what
    smoothing spreads over all: with 0.7 of one class and 0.3 of another an answer earns 0.7, 0.3
    or nothing. (The published code adds up the raw scores of both classes and compares those.)

    Args:
        scores: (B, K), higher is better. A row with a score that is NaN counts as wrong.
        labels: (B,) class numbers, or (B, K) soft labels.

    Returns:
        () float32, in 0..1, on the device of ``scores``.
    """
    if labels.ndim == 1:
        return topk_correct(scores, labels, (1,))[0] / len(labels)
    shares = labels - labels.amin(1, keepdim=True)
    shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-12)
    credit = shares.gather(1, scores.argmax(1, keepdim=True))[:, 0]
    return torch.where(scores.isnan().any(1), 0, credit).mean()


@dataclass(frozen=True)
class VideoResult:
    """Accuracy over videos, with what it was measured on.

    Attributes:
        top1: Percent of the scored videos whose best class is right.
        top5: Percent whose class is among the five best.
        loss: Mean loss over scored clips, or None where none was given.
        num_videos: Videos in the list.
        num_videos_scored: Those with at least one clip; the accuracy is over these.
        num_clips_expected: Videos times views.
        num_clips: Clips that were scored.
        lost_videos: Numbers of the videos without any clip.
        incomplete_videos: Numbers of those with some but not all of their views; scored on what
            they have.
    """

    top1: float
    top5: float
    loss: float | None
    num_videos: int
    num_videos_scored: int
    num_clips_expected: int
    num_clips: int
    lost_videos: list[int] = field(default_factory=list)
    incomplete_videos: list[int] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for a log line."""
        return asdict(self)


class VideoScores:
    """Collects class probabilities of clips into scores of their videos.

    Clip ``i`` is view ``i % num_views`` of video ``i // num_views``. All arrays lie on the CPU.

    Args:
        num_videos: Videos in the list.
        num_classes: Columns of the scores.
        num_views: Clips of a video: temporal views times spatial crops.
        ensemble: ``sum`` (the mean of the probabilities) or ``max`` (the largest of each class).

    Attributes:
        scores: (num_videos, num_classes) float64, sums or maxima of what was added.
        clip_counts: (num_videos, num_views) int64, how often each clip was added.
        loss_sum: float64 scalar tensor.
        num_losses: int64 scalar tensor.

    Raises:
        ValueError: If the ensemble is unknown.
    """

    def __init__(
        self, num_videos: int, num_classes: int, num_views: int, *, ensemble: str = "sum"
    ) -> None:
        if ensemble not in ("sum", "max"):
            raise ValueError(f"DATA.ENSEMBLE_METHOD is {ensemble!r}; 'sum' or 'max' is right")
        self.num_views = num_views
        self.ensemble = ensemble
        # Probabilities are never negative, so 0 is where a maximum may start.
        self.scores = torch.zeros(num_videos, num_classes, dtype=torch.float64)
        self.clip_counts = torch.zeros(num_videos, num_views, dtype=torch.int64)
        self.loss_sum = torch.zeros((), dtype=torch.float64)
        self.num_losses = torch.zeros((), dtype=torch.int64)

    def add(self, clip_indices: Tensor, scores: Tensor, losses: Tensor | None = None) -> None:
        """Add a batch of clips; this waits for the device they are on.

        Args:
            clip_indices: (B,) integer clip numbers.
            scores: (B, K) class probabilities.
            losses: (B,) loss of each clip, if there is one.
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
        """Combine with what the other processes collected; afterwards all have the same.

        Args:
            all_reduce: Such as :func:`slowfast_maskfeat.distributed.all_reduce`.
        """
        self.scores = all_reduce(self.scores, self.ensemble)
        self.clip_counts = all_reduce(self.clip_counts, "sum")
        self.loss_sum = all_reduce(self.loss_sum, "sum")
        self.num_losses = all_reduce(self.num_losses, "sum")

    def video_scores(self) -> Tensor:
        """(num_videos, num_classes) float64: mean or largest probabilities; 0 for a lost video."""
        if self.ensemble == "max":
            return self.scores.clone()
        return self.scores / self.clip_counts.sum(dim=1).clamp(min=1)[:, None]

    def finalize(self, labels: Tensor) -> VideoResult:
        """Measure the accuracy over all videos that have a score.

        Args:
            labels: (num_videos,) integer class of each video.

        Returns:
            The accuracy in percent (NaN if no video was scored), with the counts and the lost.

        Raises:
            ValueError: If a clip was added more than once, which would weight videos unevenly.
        """
        assert labels.shape == (len(self.scores),)
        if bool((self.clip_counts > 1).any()):
            twice = int((self.clip_counts > 1).sum())
            raise ValueError(
                f"{twice} clips were scored more than once; each exactly once is right"
            )
        per_video = self.clip_counts.sum(dim=1)
        scored = per_video > 0
        correct = topk_correct(self.video_scores()[scored], labels.cpu().long()[scored], (1, 5))
        num_scored = int(scored.sum())
        top1, top5 = (
            100.0 * int(count) / num_scored if num_scored else float("nan") for count in correct
        )
        num_losses = int(self.num_losses)
        incomplete = scored & (per_video < self.num_views)
        return VideoResult(
            top1=top1,
            top5=top5,
            loss=float(self.loss_sum) / num_losses if num_losses else None,
            num_videos=len(self.scores),
            num_videos_scored=num_scored,
            num_clips_expected=self.clip_counts.numel(),
            num_clips=int(self.clip_counts.sum()),
            lost_videos=(~scored).nonzero().flatten().tolist(),
            incomplete_videos=incomplete.nonzero().flatten().tolist(),
        )
