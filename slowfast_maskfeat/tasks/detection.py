"""Action detection: the classes of each box, and the mean average precision over a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.datasets import KeyFrames, VideoList
from slowfast_maskfeat.distributed import AllReduce
from slowfast_maskfeat.figures import class_bars, draw_or_warn
from slowfast_maskfeat.metrics.ava_map import (
    Detections,
    GroundTruth,
    evaluate_detections,
    write_detections,
)
from slowfast_maskfeat.metrics.average_precision import IOU_THRESHOLD
from slowfast_maskfeat.metrics.box_scores import BoxScores
from slowfast_maskfeat.metrics.read_later import ReadLater
from slowfast_maskfeat.tasks.base import Evaluation, StepOutput, Task, term_count

BoxLoss = Callable[[Tensor, Tensor], Tensor]


class Detection(Task):
    """Classification of the actions in each box.

    Args:
        loss: (R, K) logits and labels, (R, K) multi-label or (R,) class indices -> (R,) terms.
        activation: (R, K) logits -> (R, K) scores, for evaluation.
        mean: per channel, of the clip's normalization.
        std: per channel, of the clip's normalization.
        read_truth: reads the ground truth of a split; None if there is no evaluation.
    """

    best_figure = "mean_ap"

    def __init__(
        self,
        loss: BoxLoss,
        activation: Callable[[Tensor], Tensor],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        read_truth: Callable[[KeyFrames], GroundTruth] | None = None,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.activation = activation
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.read_truth = read_truth

    def logits(self, model: nn.Module, clips: Tensor, boxes: Tensor) -> Tensor:
        """Compute logits (R, K), float32, of clips (B, C, T, H, W), uint8 or normalized float."""
        output: Tensor = model(normalize(clips, self.mean, self.std), boxes)
        return output.float()

    def step(self, model: nn.Module, batch: ClipBatch) -> StepOutput:
        """Compute the mean loss over the boxes; a batch without boxes has loss 0 and weight 0.

        Even then all parameters take part in the backward pass, as DDP requires.

        Raises:
            ValueError: the batch has no boxes, or these have no labels.
        """
        if batch.boxes is None or batch.labels is None:
            raise ValueError("detection needs boxes with labels: the batch lacks them")
        logits = self.logits(model, batch.clips, batch.boxes)
        num_boxes = len(batch.boxes)
        # Without boxes the sum is empty: it and its gradients are 0.
        terms = self.loss(logits, batch.labels) if num_boxes else logits.sum(1)
        return StepOutput(terms.sum() / max(num_boxes, 1), term_count(num_boxes, logits.device))

    def evaluation(self, videos: VideoList, num_views: int) -> Evaluation:
        """Evaluate the mean average precision over the key frames of a split."""
        assert isinstance(videos, KeyFrames)
        assert self.read_truth is not None
        return _BoxEvaluation(videos, self, self.read_truth(videos))


class _BoxEvaluation(Evaluation):
    """Scores of all boxes of a split."""

    file_name = "test_detections.csv"

    def __init__(self, videos: KeyFrames, task: Detection, truth: GroundTruth) -> None:
        super().__init__(len(videos))
        self._task = task
        self._videos = videos
        self._truth = truth
        num_boxes = len(videos.table.boxes)
        self._scores = torch.zeros((num_boxes, videos.table.num_classes))
        self._is_scored = torch.zeros(num_boxes, dtype=torch.int64)
        self._results = ReadLater()

    def add(self, model: nn.Module, batch: ClipBatch) -> None:
        if batch.boxes is None or not len(batch.boxes):
            return
        assert batch.box_index is not None
        logits = self._task.logits(model, batch.clips, batch.boxes)
        self._results.add(self._use, self._task.activation(logits), batch.box_index)

    def _use(self, rows: Tensor) -> None:
        """Add what was computed for some boxes: scores and the index of the box side by side."""
        boxes = rows[:, -1].long()
        self._scores[boxes] = rows[:, :-1].float()
        self._is_scored[boxes] = 1

    def merge(self, all_reduce: AllReduce) -> None:
        self._results.read()
        # Each box is scored by one process; the others have zeros for it.
        self._scores = all_reduce(self._scores, "sum")
        self._is_scored = all_reduce(self._is_scored, "sum")

    def results(self) -> dict[str, Any]:
        return evaluate_detections(self._truth, self._detections()).as_dict()

    def summary(self, results: Mapping[str, Any]) -> str:
        """Describe the mean average precision and what it was computed from."""
        return (
            f"mAP {100 * results['mean_ap']:.2f} over {results['num_classes_counted']} of "
            f"{results['num_classes']} classes; {results['num_boxes']} boxes detected, "
            f"{results['num_boxes_expected']} in the ground truth, {results['hit_share']:.1%} of "
            f"which are hit at IoU {IOU_THRESHOLD}; "
            f"{results['num_frames_matched']} of {results['num_frames_expected']} annotated key "
            f"frames have detections; {results['num_decoded']} of {results['num_expected']} key "
            "frames decoded"
        )

    def warning(self, results: Mapping[str, Any]) -> str:
        """Return the sentence about boxes that hit less than a tenth of the ground truth."""
        return str(results.get("warning", ""))

    def details(self, results: Mapping[str, Any]) -> str:
        """List the average precision of each class."""
        return class_table(results)

    def draw(self, results: Mapping[str, Any], folder: Path, title: str) -> list[Path]:
        """Draw the average precision of each class."""
        path = folder / "test_average_precision.png"
        title = f"{title or 'detection'}: average precision at IoU {IOU_THRESHOLD}"
        values, counts = results["per_class_ap"], results["per_class_boxes"]
        drawn = draw_or_warn(path, lambda: class_bars(path, values, counts, title=title))
        return [path] if drawn else []

    def scores(self, facts: Mapping[str, Any]) -> BoxScores:
        return BoxScores(self._rows(), self._detections(), self._truth)

    def save(self, path: str, facts: Mapping[str, Any]) -> None:
        """Write the detections in the format of the AVA challenge, a row per box and class.

        The format has no place for `facts`: they are in the log, with the metrics.
        """
        write_detections(path, self._detections(), self._truth.labelmap)

    def _detections(self) -> Detections:
        boxes, rows = self._is_scored.nonzero()[:, 0].numpy(), self._rows()
        return Detections(
            names=self._videos.media.names,
            video=self._videos.video[rows],
            seconds=self._videos.seconds[rows],
            boxes=self._videos.table.boxes[boxes],
            scores=self._scores[boxes].numpy(),
        )

    def _rows(self) -> NDArray[np.int64]:
        """Key frame of each scored box."""
        return self._videos.rows_of_boxes(self._is_scored.nonzero()[:, 0].numpy())


def class_table(results: Mapping[str, Any]) -> str:
    """Format AP and number of boxes of each class, best first; classes without AP come last."""
    per_class, boxes = results["per_class_ap"], results["per_class_boxes"]
    names = sorted(per_class, key=lambda name: -1.0 if per_class[name] is None else per_class[name])
    width = max(map(len, (*names, "class")))
    lines = [f"  {'class':{width}}  AP (%)   boxes"]
    for name in reversed(names):
        precision = "-" if per_class[name] is None else f"{100 * per_class[name]:.1f}"
        lines.append(f"  {name:{width}}  {precision:>6}  {boxes[name]:6d}")
    return "\n".join(lines)
