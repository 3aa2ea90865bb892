"""Recognition of any number of actions in a clip, and the mean average precision over videos."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.metrics.multi_label import average_precisions, mean_average_precision
from slowfast_maskfeat.tasks.base import Evaluation
from slowfast_maskfeat.tasks.classification import Classification, ScoreEvaluation


class MultiLabelClassification(Classification):
    """Classification of clips that have any number of classes; see `Classification`.

    The loss takes (B, K) logits and (B, K) targets: 1 for each class that is present, else 0.
    """

    scalar_names: tuple[str, ...] = ()
    best_figure = "mean_ap"

    def targets(self, labels: Tensor) -> Tensor:
        """Return targets (B, K) of such, or of class numbers (B,)."""
        return labels if labels.ndim == 2 else F.one_hot(labels, self.num_classes).float()

    def figures(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute nothing: the mean average precision of a batch says little."""
        return {}

    def evaluation(self, videos: VideoList, num_views: int) -> Evaluation:
        """Evaluate the mean average precision over videos."""
        return _LabelSetEvaluation(videos, num_views, self)


class _LabelSetEvaluation(ScoreEvaluation):
    """Combined scores of all clips of each video, and its labels."""

    def __init__(self, videos: VideoList, num_views: int, task: Classification) -> None:
        super().__init__(videos, num_views, task)
        self._labels = torch.zeros(self.num_videos, task.num_classes, dtype=torch.int64)

    def results(self) -> dict[str, Any]:
        counts = self._scores.counts()
        rows = self._scores.clip_counts.sum(1) > 0
        labels = self._labels[rows].numpy()
        precisions = average_precisions(self._scores.video_scores()[rows].numpy(), labels)
        names = self._task.class_names or tuple(map(str, range(self._task.num_classes)))
        return {
            "mean_ap": mean_average_precision(precisions),
            "num_classes_counted": int((~np.isnan(precisions)).sum()),
            "num_classes": self._task.num_classes,
            **counts,
            "per_class_ap": {
                name: None if math.isnan(precision) else precision
                for name, precision in zip(names, precisions.tolist(), strict=True)
            },
            "per_class_videos": dict(zip(names, labels.sum(0).tolist(), strict=True)),
        }

    def summary(self, results: Mapping[str, Any]) -> str:
        """Describe mean average precision and loss."""
        loss = "" if results["loss"] is None else f", loss {results['loss']:.4f}"
        return (
            f"mAP {100 * results['mean_ap']:.2f} over {results['num_classes_counted']} of "
            f"{results['num_classes']} classes{loss}; {results['num_videos_scored']} of "
            f"{results['num_videos']} videos decoded"
        )
