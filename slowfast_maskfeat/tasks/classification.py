"""Action recognition: one label per clip, one prediction per video."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.distributed import AllReduce
from slowfast_maskfeat.metrics.accuracy import VideoScores, mean_credit
from slowfast_maskfeat.metrics.read_later import ReadLater
from slowfast_maskfeat.metrics.saved_scores import SavedScores
from slowfast_maskfeat.tasks.base import Evaluation, StepOutput, Task, term_count

ClassLoss = Callable[[Tensor, Tensor], Tensor]


class Classification(Task):
    """Classification of clips, and of videos by the combined scores of their clips.

    Args:
        loss: (B, K) logits and (B,) labels -> (B,) terms.
        activation: (B, K) logits -> (B, K) scores, for evaluation.
        num_classes: K.
        ensemble: how the scores of a video's clips are combined: "sum" or "max".
        mean: per channel, of the clip's normalization.
        std: per channel, of the clip's normalization.
        class_names: of the K classes, or None.
        label_smoothing: of the labels (B, K) of a batch, for its accuracy.
    """

    scalar_names: tuple[str, ...] = ("top1",)
    best_figure = "top1"

    def __init__(
        self,
        loss: ClassLoss,
        activation: Callable[[Tensor], Tensor],
        *,
        num_classes: int,
        ensemble: str,
        mean: Sequence[float],
        std: Sequence[float],
        class_names: Sequence[str] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.activation = activation
        self.num_classes = num_classes
        self.ensemble = ensemble
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.class_names = class_names
        self.label_smoothing = label_smoothing

    def logits(self, model: nn.Module, clips: Tensor) -> Tensor:
        """Compute logits: (B, C, T, H, W) uint8 or normalized float -> (B, K) float32."""
        output: Tensor = model(normalize(clips, self.mean, self.std))
        return output.float()

    def step(self, model: nn.Module, batch: ClipBatch) -> StepOutput:
        """Compute the mean loss over the clips, and the scalars of `figures`.

        Raises:
            ValueError: the batch has no labels.
        """
        if batch.labels is None:
            raise ValueError("classification needs labels, got an annotation file with only paths")
        logits = self.logits(model, batch.clips)
        loss = self.loss(logits, self.targets(batch.labels)).mean()
        weight = term_count(len(batch), loss.device)
        return StepOutput(loss, weight, self.figures(logits.detach(), batch.labels))

    def figures(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the accuracy of a training batch in percent, `top1`.

        With mixup labels, the predicted class's weight counts as partial credit: see `mean_credit`.
        """
        credit = mean_credit(logits, labels, label_smoothing=self.label_smoothing)
        return {"top1": 100 * credit}

    def targets(self, labels: Tensor) -> Tensor:
        """Return the labels that the loss takes."""
        return labels

    def evaluation(self, videos: VideoList, num_views: int) -> Evaluation:
        """Evaluate top-1 and top-5 accuracy over videos."""
        return ScoreEvaluation(videos, num_views, self)


class ScoreEvaluation(Evaluation):
    """Combined scores of all clips of each video."""

    file_name = "test_scores_{crops}x{views}.npz"

    def __init__(self, videos: VideoList, num_views: int, task: Classification) -> None:
        num_videos = len(videos)
        super().__init__(num_videos)
        self._task = task
        self._videos = videos
        self._scores = VideoScores(num_videos, task.num_classes, num_views, ensemble=task.ensemble)
        self._labels = torch.full((num_videos,), -1)
        self._results = ReadLater()

    def add(self, model: nn.Module, batch: ClipBatch) -> None:
        """Score the clips of a batch."""
        if not len(batch):
            return
        if batch.labels is None:
            raise ValueError("evaluation needs labels, got an annotation file with only paths")
        assert batch.index is not None
        assert batch.view is not None
        logits = self._task.logits(model, batch.clips)
        labels = self._task.targets(batch.labels)
        scores, losses = self._task.activation(logits), self._task.loss(logits, labels)
        use = partial(self._use, batch.index, batch.view)
        self._results.add(use, scores, losses, labels)

    def _use(self, videos: Tensor, views: Tensor, rows: Tensor) -> None:
        """Add what was computed for some clips: scores, loss and labels side by side."""
        width = self._task.num_classes
        clips = videos * self._scores.num_views + views
        self._scores.add(clips, rows[:, :width], rows[:, width])
        labels = rows[:, width + 1 :].long()
        self._labels[videos] = labels.view(len(rows), *self._labels.shape[1:])

    def merge(self, all_reduce: AllReduce) -> None:
        """Combine scores and labels of all processes."""
        self._results.read()
        self._scores.reduce(all_reduce)
        self._labels = all_reduce(self._labels, "max")

    def results(self) -> dict[str, Any]:
        """Compute the accuracy over videos."""
        return self._scores.finalize(self._labels).as_dict()

    def summary(self, results: Mapping[str, Any]) -> str:
        """Describe accuracy and loss."""
        loss = "" if results["loss"] is None else f", loss {results['loss']:.4f}"
        return (
            f"top-1 {results['top1']:.2f}, top-5 {results['top5']:.2f}{loss}; "
            f"{results['num_videos_scored']} of {results['num_videos']} videos decoded"
        )

    def scores(self, facts: Mapping[str, Any]) -> SavedScores:
        """Return the scores and labels of all videos."""
        return SavedScores(
            scores=self._scores.video_scores().numpy(),
            labels=self._labels.numpy(),
            num_clips=self._scores.clip_counts.sum(1).numpy(),
            class_names=tuple(self._task.class_names or ()),
            paths=tuple(self._videos.path(row) for row in range(self.num_videos)),
            facts=facts,
        )

    def save(self, path: str, facts: Mapping[str, Any]) -> None:
        """Write the .npz of `SavedScores`.

        `facts` are stored as JSON: the annotation file with its hash, the decoders, the counts.
        """
        self.scores(facts).save(path)
