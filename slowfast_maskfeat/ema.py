"""Exponential moving averages of weights: averaged models, and teachers that follow a student.

Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992); as a teacher:
Tarvainen and Valpola, "Mean teachers are better role models" (NeurIPS 2017).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def move_average(
    averages: Sequence[Tensor], currents: Sequence[Tensor], decay: float, taken: Tensor | None
) -> None:
    """Move averages in place to ``decay * average + (1 - decay) * current``.

    Args:
        averages: floating tensors.
        currents: as many, of the same shapes.
        decay: in [0, 1].
        taken: () bool, whether the optimizer step was taken; where it was not, nothing moves. The
            device is not waited for. None: it was.
    """
    if taken is None:
        torch._foreach_lerp_(list(averages), list(currents), 1.0 - decay)
        return
    differences = torch._foreach_sub(list(currents), list(averages))
    torch._foreach_mul_(differences, (1.0 - decay) * taken)
    torch._foreach_add_(list(averages), differences)


class WeightAverage:
    """Moving average of all floating entries of a model's ``state_dict``, for evaluation.

    Entries that are not floating are copied.

    Args:
        model: the bare model; its present weights are where the average starts.
        decay: in [0, 1).

    Raises:
        ValueError: the decay is outside [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"TRAIN.EMA_DECAY must be in [0, 1), got {decay}")
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, taken: Tensor | None = None) -> None:
        """Move the average towards the model's weights.

        Args:
            model: the model it was made from, or one with the same state names.
            taken: see `move_average`.
        """
        averages: list[Tensor] = []
        currents: list[Tensor] = []
        for name, current in model.state_dict().items():
            average = self.weights[name]
            if average.is_floating_point():
                averages.append(average)
                currents.append(current.detach())
            else:
                average.copy_(current)
        move_average(averages, currents, self.decay, taken)

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights inside the ``with``, and its own again after it.

        Args:
            model: the model the average belongs to; its tensors stay the same objects, so DDP
                and compiled wrappers of it follow.
        """
        state = model.state_dict()
        own = {name: value.detach().clone() for name, value in state.items()}
        try:
            _overwrite(state, self.weights)
            yield
        finally:
            _overwrite(state, own)

    def state_dict(self) -> dict[str, Any]:
        """Return ``decay`` and ``weights`` (name to tensor), for a checkpoint."""
        return {"decay": self.decay, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state; the decay stays as constructed, since a config may change it.

        Args:
            state: from :meth:`state_dict`.

        Raises:
            ValueError: the names differ from the model's.
        """
        weights = state["weights"]
        if weights.keys() != self.weights.keys():
            different = sorted(weights.keys() ^ self.weights.keys())
            raise ValueError(
                f"the saved weight average has other entries than the model: {different[:5]}; "
                "resume with the model it was saved from"
            )
        _overwrite(self.weights, weights)


class Teacher(nn.Module):
    """A copy of a student whose parameters are a moving average of the student's.

    It is part of the state of the task that owns it, so that a run resumes exactly. Buffers, such
    as the running statistics of batch norm, are the teacher's own. Whether it runs in training
    mode (batch norm, dropout) is decided by its owner: `train()` and `eval()` reach it as they
    reach any module.

    Args:
        student: copied with its present weights; the copy has no gradients.
        momentum: progress of the training in [0, 1] -> decay per step in [0, 1].

    Attributes:
        network: the copy.
    """

    def __init__(self, student: nn.Module, momentum: Callable[[float], float]) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        self.momentum = momentum

    @torch.no_grad()
    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Run the copy, without gradients."""
        return self.network(*inputs, **named)

    @torch.no_grad()
    def copy_from(self, student: nn.Module) -> None:
        """Take over the student's parameters and buffers as they are."""
        _overwrite(self.network.state_dict(), student.state_dict())

    def update(self, student: nn.Module, progress: float, taken: Tensor | None = None) -> None:
        """Move the parameters towards the student's.

        Args:
            student: with the parameters of the network that was copied.
            progress: of the whole training, in [0, 1].
            taken: see `move_average`.
        """
        mine, theirs = list(self.network.parameters()), list(student.parameters())
        assert len(mine) == len(theirs), "the student has other parameters than its teacher"
        move_average(mine, theirs, self.momentum(progress), taken)


@torch.no_grad()
def _overwrite(state: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in state.items():
        tensor.copy_(values[name])
