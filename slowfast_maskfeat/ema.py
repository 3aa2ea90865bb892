"""A moving average of a model's weights, for evaluation and for checkpoints.

Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992), in the
exponential form common in training vision models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of all floating entries of a model's ``state_dict``.

    After each :meth:`update` the average is ``decay * average + (1 - decay) * weights``; entries
    that are not floating are taken as they are. A skipped optimizer step changes no weight, so
    updating after it is harmless.

    Args:
        model: The bare model; its present weights are where the average starts.
        decay: In [0, 1).

    Raises:
        ValueError: If the decay is outside [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"the decay of the weight average is {decay}; 0 <= decay < 1 is right")
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's weights.

        Args:
            model: The model it was made from (or one with the same state names).
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
        torch._foreach_lerp_(averages, currents, 1.0 - self.decay)

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[None]:
        """The model has the averaged weights inside the ``with`` and its own again after it.

        Args:
            model: The model the average belongs to; its tensors stay the same objects, so DDP
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
        """``decay`` and ``weights`` (name to tensor), for a checkpoint."""
        return {"decay": self.decay, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state; the decay stays as constructed, since a config may change it.

        Args:
            state: From :meth:`state_dict`.

        Raises:
            ValueError: If the names differ from the model's.
        """
        weights = state["weights"]
        if weights.keys() != self.weights.keys():
            different = sorted(weights.keys() ^ self.weights.keys())
            raise ValueError(
                f"the saved weight average has other entries than the model: {different[:5]}; "
                "resume with the model it was saved from"
            )
        _overwrite(self.weights, weights)


@torch.no_grad()
def _overwrite(state: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in state.items():
        tensor.copy_(values[name])
