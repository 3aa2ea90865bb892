"""BYOL: predict a teacher's projection of another view.

Source: Grill et al., "Bootstrap Your Own Latent" (arXiv 2006.07733), section 3.1.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from slowfast_maskfeat.backbones import ContrastiveModel, ViewOutputs
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.losses import prediction_distance
from slowfast_maskfeat.tasks.base import StepOutput
from slowfast_maskfeat.tasks.teacher import TeacherTask


class BYOL(TeacherTask):
    """Predict the projection that a teacher gives to the other view.

    The teacher is in training mode: its batch norm uses the statistics of its own batches.

    Args:
        model: a `BYOLModel`.
        temperature: divides the loss; with 0.5 it is the paper's, the squared distance of vectors
            of length 1.
        **options: of `TeacherTask`.
    """

    def __init__(self, model: ContrastiveModel, *, temperature: float, **options: Any) -> None:
        super().__init__(model, **options)
        self.temperature = temperature

    def step(self, model: nn.Module, batch: ClipBatch) -> StepOutput:
        """Compute the mean loss over the samples.

        Returns:
            `weight` is the number of samples. The scalars are those of `keep_apart`.
        """
        views = self.clips_of_views(batch.views)
        student: ViewOutputs = model(views)
        teacher: ViewOutputs = self.teacher(views)
        distances = prediction_distance(student.views, teacher.views)
        loss, scalars = self.keep_apart(student.pooled, distances.mean() / self.temperature)
        return StepOutput(loss, self.num_samples(batch), scalars)
