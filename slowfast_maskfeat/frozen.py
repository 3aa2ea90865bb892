"""Frozen networks, of which checkpoints hold the hash of their weights, and evaluation mode."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class FrozenNetwork(nn.Module):
    """A network in evaluation mode whose parameters have no gradients.

    It moves to a device with the module that owns it, but its parameters are not among that
    module's. A checkpoint holds only the hash of its weights; resuming with other weights is an
    error. Gradients flow through it to its input.

    Args:
        network: with its weights.
        source: path of the weights, for messages.

    Attributes:
        sha256: hash of the weights.
        source: path of the weights.
    """

    def __init__(self, network: nn.Module, *, source: str = "") -> None:
        super().__init__()
        # In a tuple it is not a submodule, so state_dict() and parameters() leave it out.
        self._held = (network.eval().requires_grad_(False),)
        self.sha256 = weights_sha256(network.state_dict())
        self.source = source

    @property
    def network(self) -> nn.Module:
        """The wrapped network."""
        return self._held[0]

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Run the network."""
        return self.network(*inputs, **named)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenNetwork:
        # `to(device)` and similar methods call this on every module.
        self.network._apply(fn, recurse)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def get_extra_state(self) -> dict[str, str]:
        """Return the hash and source of the weights, for a checkpoint."""
        return {"sha256": self.sha256, "source": self.source}

    def set_extra_state(self, state: Mapping[str, str]) -> None:
        """Check that a checkpoint was written with the same weights.

        Raises:
            ValueError: the weights differ.
        """
        facts = state if isinstance(state, Mapping) else {}
        sha256, source = (str(facts.get(name) or "") for name in ("sha256", "source"))
        if sha256 != self.sha256:
            raise ValueError(
                f"the frozen network must be that of the checkpoint, with sha256 "
                f"{sha256[:12]} ({source or 'unknown file'}), got "
                f"{self.sha256[:12]} ({self.source or 'unknown file'})"
            )


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules into evaluation mode, and restore the mode of each part afterwards.

    Frozen parts are in evaluation mode before, too.
    """
    before = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in before:
            part.training = mode


def weights_sha256(weights: Mapping[str, Tensor]) -> str:
    """Hash names, dtypes, shapes and values of weights, on any device.

    Args:
        weights: name -> tensor; the hash depends on their order.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, value in weights.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
