"""Interface of a training method to the train loop and the evaluation loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from slowfast_maskfeat.clips.batch import ClipBatch, LostVideo
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.distributed import AllReduce
from slowfast_maskfeat.metrics.box_scores import BoxScores
from slowfast_maskfeat.metrics.saved_scores import SavedScores


@dataclass(frozen=True)
class StepOutput:
    """Result of one forward pass.

    Attributes:
        loss: scalar, a mean.
        weight: scalar, number of terms that `loss` averages (masked tokens, clips, boxes).
        scalars: further means, for the log; on the device, without gradient.
        scalar_weights: number of terms of those scalars that are means over other ones than `loss`.
    """

    loss: Tensor
    weight: Tensor
    scalars: dict[str, Tensor] = field(default_factory=dict)
    scalar_weights: dict[str, Tensor] = field(default_factory=dict)

    def sums(self) -> Tensor:
        """Sum the terms of the loss and of the scalars, so that those of several outputs add up.

        Returns:
            (2 + n + k,) float64 without gradient: the weight; the loss and the n scalars, each
            times its number of terms; these numbers of the k scalars that have their own.
        """
        weight = self.weight.double()
        terms = torch.stack([self.weight, self.loss.detach(), *self.scalars.values()]).double()
        sums = terms * weight
        sums[0] = weight
        if not self.scalar_weights:
            return sums
        numbers = torch.stack([*self.scalar_weights.values()]).double()
        for number, place in zip(numbers, _places(self.scalars, self.scalar_weights), strict=True):
            sums[place] = terms[place] * number
        return torch.cat([sums, numbers])


def term_count(number: int, device: torch.device) -> Tensor:
    """Return the number of terms of a mean as a scalar on a device, which is not waited for."""
    return torch.full((), float(number), device=device)


def with_one_weight(sums: Tensor, scalars: Collection[str], own: Collection[str]) -> Tensor:
    """Give all scalars the weight of the loss.

    Args:
        sums: (2 + n + k,) of `StepOutput.sums`.
        scalars: names of the n scalars.
        own: names of those with their own numbers of terms; without any term the scalar is 0.

    Returns:
        (2 + n,): the weight; the loss and the scalars, each times the weight.
    """
    if not own:
        return sums
    sums, numbers = sums[: -len(own)].clone(), sums[-len(own) :]
    for number, place in zip(numbers, _places(scalars, own), strict=True):
        sums[place] = torch.where(number > 0, sums[place] * (sums[0] / number), 0.0)
    return sums


def _places(scalars: Collection[str], own: Collection[str]) -> list[int]:
    names = list(scalars)
    return [2 + names.index(name) for name in own]


class Evaluation(ABC):
    """Results of a model over a split, of which each process evaluates a part.

    Attributes:
        num_videos: number of videos in the split.
        lost: videos of this process that could not be decoded.
    """

    file_name: ClassVar[str] = ""
    """Name of the file that `save` writes; `{crops}` and `{views}` are those of the test."""

    def __init__(self, num_videos: int) -> None:
        self.num_videos = num_videos
        self.lost: list[LostVideo] = []

    @abstractmethod
    def add(self, model: nn.Module, batch: ClipBatch) -> None:
        """Run the model on a batch and add its results."""

    @abstractmethod
    def merge(self, all_reduce: AllReduce) -> None:
        """Combine the results of all processes."""

    @abstractmethod
    def results(self) -> dict[str, Any]:
        """Compute the metrics after `merge`, as values that JSON can represent."""

    def summary(self, results: Mapping[str, Any]) -> str:
        """Describe the metrics in one line.

        Args:
            results: of `results`, with the counts that the evaluation loop adds (`num_expected`,
                `num_found`, `num_decoded`, `seconds`).
        """
        numbers = ", ".join(f"{name} {x:.4f}" for name, x in scalar_metrics(results).items())
        counts = f"{results['num_decoded']} of {results['num_expected']} videos decoded"
        return f"{numbers}; {counts}"

    def warning(self, results: Mapping[str, Any]) -> str:
        """Return a sentence about metrics that are probably due to the data, or ""."""
        return ""

    def save(  # noqa: B027 (a method may have nothing to save)
        self, path: str, facts: Mapping[str, Any]
    ) -> None:
        """Write the scores of each video; called if `file_name` is not empty.

        Args:
            path: of the file.
            facts: data, decoders and counts behind the metrics; saved with the scores.
        """

    def scores(self, facts: Mapping[str, Any]) -> SavedScores | BoxScores | None:
        """Return the scores that a report of the test describes; None if it has no report.

        Args:
            facts: as for `save`.
        """
        return None

    def details(self, results: Mapping[str, Any]) -> str:
        """Describe a test in more lines.

        Args:
            results: as for `summary`.

        Returns:
            Lines of text; empty if there is nothing to add.
        """
        return ""

    def draw(self, results: Mapping[str, Any], folder: Path, title: str) -> list[Path]:
        """Draw the figures of a test; one that can't be drawn is a warning, see `draw_or_warn`.

        Args:
            results: as for `summary`.
            folder: for figures.
            title: of the figures.

        Returns:
            The files that were written.
        """
        return []


class Evaluator(ABC):
    """Interface to the evaluation loop."""

    @abstractmethod
    def evaluation(self, videos: VideoList, num_views: int) -> Evaluation:
        """Start an evaluation of `videos`, with `num_views` clips per video."""


class Task(nn.Module, Evaluator, ABC):
    """A training method: computes the loss of a model on a batch, and evaluates the model.

    It is a module, so that targets, teachers and centers move to the device with it and are in its
    `state_dict`, which is part of a checkpoint. Trained networks belong to the model. In evaluation
    mode `step` must not change the task.

    The train loop sums gradients over micro-batches and processes and divides them by the summed
    weight, so that the result does not depend on how a batch is split. (The published code averages
    the means of processes.)
    """

    scalar_names: tuple[str, ...] = ()
    """Names of `StepOutput.scalars`, in the order in which they are printed."""

    own_weights: ClassVar[tuple[str, ...]] = ()
    """Names of `StepOutput.scalar_weights`."""

    best_figure: ClassVar[str] = "loss"
    """Figure of a validation that says which is the best, see `engine.best_validation`."""

    has_idle_parameters: ClassVar[bool] = False
    """Some trainable parameters of the model take no part in some steps, such as a mask token that
    is not used. Processes then search for them in each step, which costs a little time."""

    teacher_prefix: ClassVar[str] = ""
    """Prefix of the teacher's weights in `state_dict`; the rest of their names is as in the model.
    Other trainings and probes load these weights from a checkpoint. Empty: those of the model."""

    @abstractmethod
    def step(self, model: nn.Module, batch: ClipBatch) -> StepOutput:
        """Compute the loss of one batch, which is on the model's device.

        The model may be inside the wrappers of DDP and torch.compile: call it, and read its
        attributes through `unwrap`. Only accumulate statistics here, since an optimizer
        step may have several micro-batches.
        """

    def start(self, model: nn.Module) -> None:
        """Initialize from the first weights of the bare model; not called when a run resumes.

        Called once in every process, with the same random state.
        """

    def networks_to_load(self) -> Sequence[nn.Module]:
        """Return networks of the task with weights that the model lacks, such as a last norm.

        The checkpoint that a training starts from is loaded into them, too, before `start`.
        """
        return ()

    def before_step(self, progress: float) -> None:
        """Set what follows a schedule, once per optimizer step, before its micro-batches.

        Args:
            progress: fraction of the whole training before the step, in [0, 1).
        """

    def frozen_parameters(self, model: nn.Module, progress: float) -> Collection[nn.Parameter]:
        """Return the parameters that a step leaves unchanged, such as a head's last layer at first.

        Their gradients take part in the norm and in clipping and are dropped afterwards, the order
        of DINO (arXiv 2104.14294; main_dino.py of the official code): the optimizer neither updates
        nor decays these parameters, nor their moments. After k of n epochs the progress is exactly
        k / n.

        Args:
            model: the bare model.
            progress: fraction of the whole training before the step, in [0, 1).
        """
        return ()

    def after_step(self, model: nn.Module, progress: float, taken: Tensor) -> None:
        """Update teachers, centers and codebooks, once per optimizer step.

        Args:
            model: the bare model after the step.
            progress: fraction of the whole training before the step, in [0, 1).
            taken: () bool on the device: False if the step was skipped because its loss or gradient
                is not finite; then nothing may be updated.
        """

    def after_epoch(self, epoch: int) -> None:
        """Look back on an epoch, after its last step and before its checkpoint.

        Args:
            epoch: number of finished epochs.
        """


class LossEvaluation(Evaluation):
    """Means of a task's loss and scalars over a split, weighted as in training.

    Args:
        num_videos: number of videos in the split.
        task: computes the loss.
        names: of the scalars to average; None: all of the task.
    """

    def __init__(self, num_videos: int, task: Task, *, names: Sequence[str] | None = None) -> None:
        super().__init__(num_videos)
        self._task = task
        self._names = tuple(task.scalar_names if names is None else names)
        num_sums = 2 + len(self._names) + len(task.own_weights)
        self._sums = torch.zeros(num_sums, dtype=torch.float64)

    def add(self, model: nn.Module, batch: ClipBatch) -> None:
        """Add the loss of a batch."""
        if not len(batch):
            return
        self.add_output(self._task.step(model, batch))

    def add_output(self, output: StepOutput) -> None:
        """Add the result of a step."""
        # Summed on the device, which is read only once, in `merge`.
        scalars = {name: output.scalars[name] for name in self._names}
        sums = replace(output, scalars=scalars).sums()
        self._sums = self._sums.to(sums.device, non_blocking=True) + sums

    def merge(self, all_reduce: AllReduce) -> None:
        """Sum over processes."""
        self._sums = all_reduce(self._sums.cpu(), "sum")

    def results(self) -> dict[str, Any]:
        """Return the mean of each term by its name.

        Raises:
            ValueError: there are no terms.
        """
        if not float(self._sums[0]):
            raise ValueError(
                "the validation split must have at least one decoded clip with a masked token, if "
                "the method masks, got none; use a longer list"
            )
        weight, *sums = with_one_weight(self._sums, self._names, self._task.own_weights).tolist()
        names = ("loss", *self._names)
        return {name: total / weight for name, total in zip(names, sums, strict=True)}


def scalar_metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics among the results of an evaluation: neither counts nor the duration."""
    return {n: x for n, x in results.items() if isinstance(x, float) and n != "seconds"}


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside the wrappers of DDP and torch.compile."""
    while True:
        inner = getattr(model, "module", None)
        if inner is None:  # not its truth: a compiled module has no length
            inner = getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner
