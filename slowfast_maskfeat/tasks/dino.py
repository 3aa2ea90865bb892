"""DINO: match a teacher's classification of other views by prototypes.

Source: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers"
(arXiv 2104.14294).
"""

from __future__ import annotations

from torch import nn

from slowfast_maskfeat.backbones import ViewOutputs
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.tasks.base import StepOutput
from slowfast_maskfeat.tasks.teacher import PrototypeTask


class DINO(PrototypeTask):
    """Match a teacher's distributions of the large views from all other views."""

    scalar_names = ("teacher_entropy", "teacher_mean_entropy")

    def step(self, model: nn.Module, batch: ClipBatch) -> StepOutput:
        """Compute the mean loss over the samples.

        Returns:
            `weight` is the number of samples. The scalars are those of `entropies` for "teacher"
            and of `keep_apart`.
        """
        views = self.clips_of_views(batch.views)
        num_seen = sum(kind.views_per_sample for kind in batch.views[: self.num_global_kinds])
        teacher: ViewOutputs = self.teacher(views[:num_seen])
        student: ViewOutputs = model(views)
        loss, entropies = self.compare_views(student.views, teacher.views)
        loss, distances = self.keep_apart(student.pooled[:num_seen], loss)
        return StepOutput(loss, self.num_samples(batch), entropies | distances)
