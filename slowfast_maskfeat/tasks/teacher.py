"""Base of the methods that compare views of a sample with those of an EMA teacher."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat import distributed
from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.backbones import ContrastiveModel, move_statistics, turn_off_drops
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.ema import Teacher
from slowfast_maskfeat.losses import keep_apart, view_cross_entropy
from slowfast_maskfeat.losses.precision import at_least_float32
from slowfast_maskfeat.schedules import EpochWarmup, epoch_of
from slowfast_maskfeat.tasks.base import Evaluation, LossEvaluation, Task, term_count


class TeacherTask(Task):
    """A method whose model learns from the moving average of itself.

    The teacher has neither dropout nor drop path. It moves after the optimizer.

    Args:
        model: the student, which the teacher copies.
        momentum: progress in [0, 1] -> decay of the teacher per step.
        mean: per channel, of the clips' normalization.
        std: per channel, of the clips' normalization.
        koleo_weight: of the loss that keeps the features of samples apart.
    """

    teacher_prefix = "teacher.network."

    def __init__(
        self,
        model: ContrastiveModel,
        *,
        momentum: Callable[[float], float],
        mean: Sequence[float],
        std: Sequence[float],
        koleo_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.koleo_weight = koleo_weight
        self._names_of_validation = self.scalar_names
        if koleo_weight:
            self.scalar_names = (*self.scalar_names, "koleo")
        self.teacher = Teacher(model, momentum, without=model.student_only)
        turn_off_drops(self.teacher)
        self.mean, self.std = tuple(mean), tuple(std)
        self._progress = 0.0

    def start(self, model: nn.Module) -> None:
        """Start the teacher at the student's weights."""
        self.teacher.copy_from(model)

    def before_step(self, progress: float) -> None:
        """Set the progress that schedules depend on."""
        self._progress = progress

    def after_step(self, model: nn.Module, progress: float, taken: Tensor) -> None:
        """Move the teacher, and the running statistics of batch norm of both networks."""
        self.teacher.update(model, progress, taken)
        for network in (model, self.teacher):
            move_statistics(network, taken)

    def clips_of_views(self, kinds: Sequence[ClipBatch]) -> list[Tensor]:
        """Return the normalized clips (B, C, T, H, W) of each view of some kinds, in order."""
        views = []
        for kind in kinds:
            clips = normalize(kind.clips, self.mean, self.std)
            views += [clips[v :: kind.views_per_sample] for v in range(kind.views_per_sample)]
        return views

    def num_samples(self, batch: ClipBatch) -> Tensor:
        """Return the number of samples of a batch as a weight: () on its device."""
        return term_count(len(batch), batch.clips.device)

    def keep_apart(self, pooled: Tensor, loss: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the distances between the features of different samples to the loss of a training.

        A validation lacks this part, since it depends on how many clips a batch has.

        Args:
            pooled: (V, B, D) features of the student for its large views.
            loss: () of these views.

        Returns:
            As `losses.keep_apart`; without a weight, nothing is added.
        """
        if not self.koleo_weight or not self.training:
            return loss, {}
        return keep_apart(loss, tuple(pooled), self.koleo_weight)

    def evaluation(self, videos: VideoList, num_views: int) -> Evaluation:
        """Evaluate the loss over a validation split."""
        return LossEvaluation(len(videos), self, names=self._names_of_validation)

    def get_extra_state(self) -> dict[str, Any]:
        """Return the position in the training, for a checkpoint."""
        return {"progress": self._progress}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore `get_extra_state`."""
        self._progress = float(state["progress"])


class PrototypeTask(TeacherTask):
    """A `TeacherTask` whose networks classify by prototypes, with temperatures by epoch.

    The centers of a step are those before it: they move with the teacher.

    Args:
        model: the student.
        center: of the teacher's outputs for views.
        num_global_kinds: how many of the first kinds of views the teacher sees.
        num_epochs: of the training.
        freeze_epochs: first epochs without updates of the prototypes.
        student_temperature: of the student's distributions.
        **options: of `TeacherTask`.
    """

    def __init__(
        self,
        model: ContrastiveModel,
        *,
        center: Center,
        num_global_kinds: int,
        num_epochs: int,
        freeze_epochs: int,
        student_temperature: float,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.center = center
        self.num_global_kinds = num_global_kinds
        self.num_epochs = num_epochs
        self.freeze_epochs = freeze_epochs
        self.student_temperature = student_temperature

    @property
    def epoch(self) -> int:
        """Epoch of the step, from 0."""
        return epoch_of(self._progress, self.num_epochs)

    def frozen_parameters(self, model: nn.Module, progress: float) -> Collection[nn.Parameter]:
        """Return the prototypes in the first epochs (CONTRASTIVE.FREEZE_LAST_LAYER_EPOCHS)."""
        if epoch_of(progress, self.num_epochs) >= self.freeze_epochs:
            return ()
        assert isinstance(model, ContrastiveModel)
        parameters = model.named_parameters()
        return [value for name, value in parameters if name.startswith(model.last_layers)]

    def compare_views(self, logits: Tensor, outputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare the student's views with other views of the teacher, and add to the center.

        Args:
            logits: (V, B, K) of the student.
            outputs: (Q, B, K) of the teacher, of the first Q views.

        Returns:
            Mean cross-entropy over the samples, (), and the scalars of `entropies` for "teacher".
        """
        target = self.center.distribution(outputs, self.epoch)
        if self.training:
            self.center.add_outputs(outputs)
        loss = view_cross_entropy(logits / self.student_temperature, target).mean()
        return loss, entropies("teacher", target)

    def after_step(self, model: nn.Module, progress: float, taken: Tensor) -> None:
        """Move the teacher and all centers."""
        super().after_step(model, progress, taken)
        for module in self.children():
            if isinstance(module, Center):
                module.move(taken)


class Center(nn.Module):
    """Moving average of a teacher's outputs, which is subtracted from them (DINO, section 3.1).

    Args:
        dim: number of outputs K.
        momentum: decay per step.
        temperature: epoch -> temperature of the teacher's distributions.
    """

    center: Tensor
    total: Tensor
    count: Tensor

    def __init__(self, dim: int, *, momentum: float, temperature: EpochWarmup) -> None:
        super().__init__()
        self.momentum = momentum
        self.temperature = temperature
        self.register_buffer("center", torch.zeros(dim))
        # Of the step under way, in this process.
        self.register_buffer("total", torch.zeros(dim), persistent=False)
        self.register_buffer("count", torch.zeros(()), persistent=False)

    @torch.no_grad()
    def distribution(self, outputs: Tensor, epoch: int) -> Tensor:
        """Turn outputs (..., K) into distributions, float32 (float64 if `outputs` are)."""
        centered = at_least_float32(outputs) - self.center
        return (centered / self.temperature(epoch)).softmax(dim=-1)

    @torch.no_grad()
    def add_outputs(self, outputs: Tensor) -> None:
        """Add outputs (..., K) of this step; there may be none."""
        dims = tuple(range(outputs.ndim - 1))
        self.add(at_least_float32(outputs).mean(dim=dims), outputs.shape[:-1].numel())

    @torch.no_grad()
    def add(self, mean: Tensor, count: int) -> None:
        """Add the mean (K,) of `count` outputs of this step; without any, nothing."""
        if count:
            self.total += at_least_float32(mean) * count
            self.count += count

    @torch.no_grad()
    def move(self, taken: Tensor) -> None:
        """Move the center by the outputs of the step in all processes, or drop them.

        Args:
            taken: () bool, whether the optimizer step was taken.
        """
        sums = distributed.all_reduce(torch.cat([self.total, self.count[None]]), "sum")
        mean = sums[:-1] / sums[-1].clamp(min=1)
        moved = self.momentum * self.center + (1 - self.momentum) * mean
        self.center.copy_(torch.where(taken & (sums[-1] > 0), moved, self.center))
        self.total.zero_()
        self.count.zero_()


@torch.no_grad()
def entropies(name: str, distributions: Tensor) -> dict[str, Tensor]:
    """Compute what shows whether a teacher's distributions have collapsed.

    Args:
        name: of the scalars.
        distributions: (..., K) of this step in this process; there may be none.

    Returns:
        Two scalars () in percent of the entropy of the uniform distribution; 0 without any
        distribution. `{name}_entropy` is that of single distributions on average, 0 where each
        selects one prototype. `{name}_mean_entropy` is that of their mean, which is larger. If both
        are equal, so are all distributions: the teacher has collapsed.
    """
    rows = distributions.flatten(0, -2)
    if not len(rows):
        zero = distributions.new_zeros(())
        return {f"{name}_entropy": zero, f"{name}_mean_entropy": zero}
    return {
        f"{name}_entropy": relative_entropy(rows).mean(),
        f"{name}_mean_entropy": relative_entropy(rows.mean(dim=0)),
    }


def relative_entropy(distributions: Tensor) -> Tensor:
    """Entropy of distributions (..., K), in percent of that of the uniform one: (...)."""
    uniform = math.log(distributions.shape[-1])
    return 100 / uniform * torch.special.entr(distributions).sum(dim=-1)
