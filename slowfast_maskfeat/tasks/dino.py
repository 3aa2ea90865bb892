"""DINO: match a teacher's classification of other views by prototypes.

Source: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers"
(arXiv 2104.14294).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat.backbones import ContrastiveModel
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.losses import view_cross_entropy
from slowfast_maskfeat.losses.precision import at_least_float32
from slowfast_maskfeat.tasks.base import StepOutput
from slowfast_maskfeat.tasks.teacher import Center, PrototypeTask, relative_entropy


class DINO(PrototypeTask):
    """Match a teacher's distributions of the large views from all other views.

    The center of a step is that before it: it moves with the teacher.

    Args:
        model: a `DINOModel`.
        center: of the teacher's outputs.
        **options: of `PrototypeTask`.
    """

    scalar_names = ("teacher_entropy",)

    def __init__(self, model: ContrastiveModel, *, center: Center, **options: Any) -> None:
        super().__init__(model, **options)
        self.center = center

    def step(self, model: nn.Module, batch: ClipBatch) -> StepOutput:
        """Compute the mean loss over the samples.

        Returns:
            `weight` is the number of samples. The scalar `teacher_entropy` is that of the teacher's
            distributions, in percent of the uniform one: near 0 or 100 it has collapsed.
        """
        views = self.clips_of_views(batch.views)
        num_seen = sum(kind.views_per_sample for kind in batch.views[: self.num_global_kinds])
        outputs = self.teacher(views[:num_seen])  # (Q, B, K)
        target = self.center.distribution(outputs, self.epoch)
        if self.training:
            self.center.add(at_least_float32(outputs).mean(dim=(0, 1)), num_seen * len(batch))
        loss = view_cross_entropy(model(views) / self.student_temperature, target).mean()
        weight = torch.full((), float(len(batch)), device=batch.clips.device)
        return StepOutput(loss, weight, {"teacher_entropy": relative_entropy(target)})

    def after_step(self, model: nn.Module, progress: float, taken: Tensor) -> None:
        """Move teacher and center."""
        super().after_step(model, progress, taken)
        self.center.move(taken)
