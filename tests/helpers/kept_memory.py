"""Memory that autograd keeps for the backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def kept_storages(module: nn.Module, inputs: Tensor, call: Callable[[], object]) -> list[int]:
    """Bytes of each storage that a call keeps, but those of the parameters and the input."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (inputs, *module.parameters())}
    kept = {}
    alive = []  # so that no address is used twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        alive.append(call())
    return sorted(kept.values())
