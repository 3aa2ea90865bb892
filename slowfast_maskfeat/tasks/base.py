"""The contract between the one train loop, the one evaluation loop and any task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat.clips.batch import ClipBatch, LostVideo
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.distributed import AllReduce


@dataclass(frozen=True)
class StepOutput:
    """What one forward pass gives.

    Attributes:
        loss: scalar, a mean.
        weight: scalar, how many terms `loss` is the mean of (masked tokens, clips, boxes).
        scalars: further means over the same terms, for the log; on the device, without gradient.
    """

    loss: Tensor
    weight: Tensor
    scalars: dict[str, Tensor] = field(default_factory=dict)


class Evaluation(ABC):
    """Collects the answers of a model over a list; one process sees a part of it."""

    def __init__(self, num_videos: int) -> None:
        self.num_videos = num_videos
        self.lost: list[LostVideo] = []

    @abstractmethod
    def add(self, model: nn.Module, batch: ClipBatch) -> None:
        """Run the model on a batch and keep what it says."""

    @abstractmethod
    def merge(self, all_reduce: AllReduce) -> None:
        """Put together what all processes kept."""

    @abstractmethod
    def results(self) -> dict[str, Any]:
        """The figures, after `merge`; plain numbers that JSON can hold."""

    def save(  # noqa: B027 (nothing to keep is a legal answer)
        self, path: str, facts: Mapping[str, Any]
    ) -> None:
        """Write what is worth keeping per video, if there is such a thing.

        Args:
            path: of the file.
            facts: what the figures stand on; kept with them.
        """


class Evaluator(ABC):
    """Judges a model over a list: what the one evaluation loop runs."""

    @abstractmethod
    def evaluation(self, videos: VideoList, num_views: int) -> Evaluation:
        """A fresh evaluation of `videos` in `num_views` clips each."""


class Task(Evaluator, ABC):
    """Turns a model and a batch into a loss, and judges a model.

    The loop sums gradients over micro-batches and processes and divides by the summed weight, so
    the split into either changes nothing. (The published code averages the means of processes.)
    """

    @abstractmethod
    def step(self, model: nn.Module, batch: ClipBatch) -> StepOutput:
        """Forward pass and loss of one batch that is on the model's device."""

    def after_step(self, model: nn.Module) -> None:
        """Called after each optimizer step, with the bare model: an online target learns here."""

    def to(self, device: torch.device) -> None:
        """Move what the task holds to the model's device."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold for the task to go on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        if state:
            raise ValueError(f"{type(self).__name__}: a checkpoint holds unknown {sorted(state)}")

    @abstractmethod
    def evaluation(self, videos: VideoList, num_views: int) -> Evaluation:
        """A fresh evaluation of a list in `num_views` clips of each row."""


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside what distributes or compiles it."""
    while True:
        inner = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner
