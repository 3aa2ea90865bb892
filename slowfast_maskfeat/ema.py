"""Exponential moving averages of weights: averaged models and EMA teachers.

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
    """Update averages in place to `decay * average + (1 - decay) * current`.

    Args:
        averages: floating-point tensors.
        currents: as many tensors, of the same shapes.
        decay: in [0, 1].
        taken: () bool, whether the optimizer step was taken; if not, the averages do not change.
            It is not read back from the device. None: the step was taken.
    """
    if taken is None:
        torch._foreach_lerp_(list(averages), list(currents), 1.0 - decay)
        return
    differences = torch._foreach_sub(list(currents), list(averages))
    # Not a product with `taken` alone: the current values may be NaN after a skipped step.
    changes = [torch.where(taken, difference, 0.0) for difference in differences]
    torch._foreach_mul_(changes, 1.0 - decay)
    torch._foreach_add_(list(averages), changes)


class WeightAverage:
    """Moving average of all floating-point entries of a model's `state_dict`, for evaluation.

    Other entries are copied.

    Args:
        model: the bare model; the average starts at its current weights.
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
        """Update the average with the model's weights.

        Args:
            model: the model of the average, or one with the same state names.
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
        """Use the averaged weights in the model inside the `with`, and restore its own after it.

        Args:
            model: the model of the average; its tensors are changed in place, so that DDP and
                compiled wrappers of it use them too.
        """
        state = model.state_dict()
        own = {name: value.detach().clone() for name, value in state.items()}
        try:
            _overwrite(state, self.weights)
            yield
        finally:
            _overwrite(state, own)

    def state_dict(self) -> dict[str, Any]:
        """Return `decay` and `weights` (name -> tensor), for a checkpoint."""
        return {"decay": self.decay, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the weights; the decay stays as constructed, since a config may change it.

        Args:
            state: from `state_dict`.

        Raises:
            ValueError: the names differ from the model's.
        """
        weights = state["weights"]
        if weights.keys() != self.weights.keys():
            different = sorted(weights.keys() ^ self.weights.keys())
            raise ValueError(
                f"the saved weight average must have the entries of the model, got differences in "
                f"{different[:5]}; resume with the model it was saved from"
            )
        _overwrite(self.weights, weights)


class Teacher(nn.Module):
    """EMA teacher: a copy of a student whose parameters are a moving average of the student's.

    It is part of the state of the task that owns it, so that a run resumes exactly. Buffers, such
    as the running statistics of batch norm, are the teacher's own. `train()` and `eval()` of the
    owner apply to it as to any submodule.

    Args:
        student: copied with its current weights; the copy has no gradients.
        momentum: progress of the training in [0, 1] -> decay per step in [0, 1].
        without: names of the modules and parameters that only the student has, such as a predictor
            or a mask token; names that it does not have are ignored. In the copy a module becomes
            `nn.Identity` and a parameter None.

    Attributes:
        network: the copy.
    """

    def __init__(
        self,
        student: nn.Module,
        momentum: Callable[[float], float],
        *,
        without: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        self.momentum = momentum
        for name in without:
            _leave_out(self.network, name)

    @torch.no_grad()
    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Run the copy, without gradients."""
        return self.network(*inputs, **named)

    @torch.no_grad()
    def copy_from(self, student: nn.Module) -> None:
        """Copy the student's parameters and buffers."""
        _overwrite(self.network.state_dict(), student.state_dict())

    def update(self, student: nn.Module, progress: float, taken: Tensor | None = None) -> None:
        """Update the moving average with the student's parameters.

        Args:
            student: the copied network, or one with the same parameters.
            progress: of the whole training, in [0, 1].
            taken: see `move_average`.
        """
        mine, theirs = dict(self.network.named_parameters()), dict(student.named_parameters())
        assert mine.keys() <= theirs.keys(), "the teacher has other parameters than the student"
        currents = [theirs[name] for name in mine]
        move_average(list(mine.values()), currents, self.momentum(progress), taken)


def _leave_out(network: nn.Module, name: str) -> None:
    """Replace a module by the identity, or a parameter by None."""
    owner, _, last = name.rpartition(".")
    holder = network.get_submodule(owner)
    if last in holder._modules:
        setattr(holder, last, nn.Identity())
    elif last in holder._parameters:
        setattr(holder, last, None)


@torch.no_grad()
def _overwrite(state: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in state.items():
        tensor.copy_(values[name])
