"""Copies of small tensors from the CPU to a device, for which the CPU does not wait."""

from __future__ import annotations

import torch
from torch import Tensor


def copy_to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; to a GPU from page-locked memory.

    A copy from other memory may wait until the GPU has finished all queued work. In a compiled
    model the compiler copies.
    """
    is_to_gpu = device.type == "cuda" and tensor.device.type == "cpu"
    if is_to_gpu and not torch.compiler.is_compiling():
        tensor = tensor.pin_memory()  # itself, if a loader pinned it
    return tensor.to(device, non_blocking=True)
