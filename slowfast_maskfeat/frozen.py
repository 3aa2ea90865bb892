"""Networks that are not trained: known by the hash of their weights, and not in checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class FrozenNetwork(nn.Module):
    """A network in evaluation mode whose parameters have no gradients of their own.

    It moves to a device with the module that owns it, but is not among that module's parameters,
    and of its weights a checkpoint holds the hash alone: a run that resumes with other weights
    would learn something else, and is refused. Gradients flow through it to its input.

    Args:
        network: with its weights.
        source: where the weights came from, a hint for messages.

    Attributes:
        sha256: hash of the weights.
        source: as given.
    """

    def __init__(self, network: nn.Module, *, source: str = "") -> None:
        super().__init__()
        # In a tuple it is no submodule, so neither state_dict() nor parameters() see it.
        self._held = (network.eval().requires_grad_(False),)
        self.sha256 = weights_sha256(network.state_dict())
        self.source = source

    @property
    def network(self) -> nn.Module:
        """The network itself."""
        return self._held[0]

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Run the network."""
        return self.network(*inputs, **named)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenNetwork:
        # What `to(device)` and its like call on every module.
        self.network._apply(fn, recurse)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def get_extra_state(self) -> dict[str, str]:
        """What a checkpoint holds."""
        return {"sha256": self.sha256, "source": self.source}

    def set_extra_state(self, state: Mapping[str, str]) -> None:
        """Check that a checkpoint was written with the same weights.

        Raises:
            ValueError: it was written with others.
        """
        if state["sha256"] != self.sha256:
            raise ValueError(
                f"the checkpoint was trained with a frozen network of sha256 "
                f"{state['sha256'][:12]} ({state['source'] or 'unknown file'}), got "
                f"{self.sha256[:12]} ({self.source or 'unknown file'})"
            )


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """Hash names, types, shapes and values of weights, wherever they are.

    Args:
        weights: name -> tensor, in an order that belongs to them.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, value in weights.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
