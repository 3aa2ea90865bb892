"""The contract between the train loop, the evaluation loop and a training method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from slowfast_maskfeat.clips.batch import ClipBatch, LostVideo
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.distributed import AllReduce


@dataclass(frozen=True)
class StepOutput:
    """Result of one forward pass.

    Attributes:
        loss: scalar, a mean.
        weight: scalar, how many terms `loss` is the mean of (masked tokens, clips, boxes).
        scalars: further means over the same terms, for the log; on the device, without gradient.
    """

    loss: Tensor
    weight: Tensor
    scalars: dict[str, Tensor] = field(default_factory=dict)


class Evaluation(ABC):
    """Collects the results of a model over a list; one process sees a part of it.

    Attributes:
        num_videos: rows of the list.
        lost: videos of this process that could not be decoded.
    """

    file_name: ClassVar[str] = "test_scores_{crops}x{views}.npz"
    """Of what `save` writes; `{crops}` and `{views}` are those of the test."""

    def __init__(self, num_videos: int) -> None:
        self.num_videos = num_videos
        self.lost: list[LostVideo] = []

    @abstractmethod
    def add(self, model: nn.Module, batch: ClipBatch) -> None:
        """Run the model on a batch and keep its results."""

    @abstractmethod
    def merge(self, all_reduce: AllReduce) -> None:
        """Combine what all processes kept."""

    @abstractmethod
    def results(self) -> dict[str, Any]:
        """Compute the figures, after `merge`; plain numbers that JSON can hold."""

    def summary(self, results: Mapping[str, Any]) -> str:
        """Describe the figures in one line.

        Args:
            results: of `results`, with the counts that the evaluation loop adds (`num_expected`,
                `num_found`, `num_decoded`).
        """
        numbers = ", ".join(f"{name} {x:.4f}" for name, x in results.items() if type(x) is float)
        counts = f"{results['num_decoded']} of {results['num_expected']} videos decoded"
        return f"{numbers}; {counts}"

    def save(  # noqa: B027 (a method may have nothing to keep)
        self, path: str, facts: Mapping[str, Any]
    ) -> None:
        """Write the scores of each video, if there are any.

        Args:
            path: of the file.
            facts: data, decoders and counts behind the figures; kept with them.
        """

    def details(self, results: Mapping[str, Any], folder: Path, title: str) -> str:
        """Describe a test beyond one line, and draw it.

        Args:
            results: as for `summary`.
            folder: for figures.
            title: above them.

        Returns:
            lines that end by naming what was written; empty if there is nothing to add.
        """
        return ""


class Evaluator(ABC):
    """Evaluates a model over a list: what the one evaluation loop runs."""

    @abstractmethod
    def evaluation(self, videos: VideoList, num_views: int) -> Evaluation:
        """Start an evaluation of `videos` in `num_views` clips each."""


class Task(nn.Module, Evaluator, ABC):
    """A training method: turns a model and a batch into a loss, and evaluates a model.

    It is a module, so that targets, teachers and centers move to the device with it and stand in
    its `state_dict`, which is part of a checkpoint. Networks that are trained belong to the model.
    In evaluation mode `step` must not change it.

    The loop sums gradients over micro-batches and processes and divides by the summed weight, so
    that the split into either changes nothing. (The published code averages the means of
    processes.)
    """

    scalar_names: ClassVar[tuple[str, ...]] = ()
    """Names of `StepOutput.scalars`, in the order in which they are shown."""

    has_idle_parameters: ClassVar[bool] = False
    """Some trainable parameters of the model take no part in some steps, such as a mask token that
    is not used. Processes then search for them in each step, which costs a little time."""

    teacher_prefix: ClassVar[str] = ""
    """Beginning of the names in `state_dict` of a teacher's weights, whose rest are names of the
    model: what other trainings and probes load from a checkpoint. Empty: the model itself."""

    @abstractmethod
    def step(self, model: nn.Module, batch: ClipBatch) -> StepOutput:
        """Compute the loss of one batch that is on the model's device.

        Statistics that a method keeps are only added up here: a step has several batches.
        """

    def start(self, model: nn.Module) -> None:
        """Take over the first weights of the bare model; not called when a run resumes."""

    def after_step(self, model: nn.Module, progress: float, taken: Tensor) -> None:
        """Move teachers, centers and codebooks, once an optimizer step.

        Args:
            model: the bare model after the step.
            progress: share of the whole training before the step, in [0, 1).
            taken: () bool on the device: False for a step that was skipped since its loss or
                gradient is not finite, after which nothing may move.
        """


class LossEvaluation(Evaluation):
    """Means of a task's loss and scalars over a list, weighted as in training."""

    def __init__(self, num_videos: int, task: Task) -> None:
        super().__init__(num_videos)
        self._task = task
        self._names = ("loss", *task.scalar_names)
        self._sums = torch.zeros(1 + len(self._names), dtype=torch.float64)  # the weight is first

    def add(self, model: nn.Module, batch: ClipBatch) -> None:
        """Compute the loss of a batch."""
        if not len(batch):
            return
        output = self._task.step(model, batch)
        means = [torch.ones_like(output.loss), output.loss]
        means += [output.scalars[name] for name in self._names[1:]]
        self._sums += (torch.stack(means).double() * output.weight).cpu()

    def merge(self, all_reduce: AllReduce) -> None:
        """Sum over processes."""
        self._sums = all_reduce(self._sums, "sum")

    def results(self) -> dict[str, Any]:
        """Return the mean of each term by its name."""
        weight, *sums = self._sums.tolist()
        if not weight:
            raise ValueError("no video of the validation list could be decoded")
        return {name: total / weight for name, total in zip(self._names, sums, strict=True)}


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside the wrappers of DDP and torch.compile."""
    while True:
        inner = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner
