"""Copies of small tensors to the device without synchronization."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slowfast_maskfeat.host_copies import copy_to_device


def to_device(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Copy nested sequences of numbers to a tensor on the device.

    `torch.tensor(values, device=...)` would wait until a GPU has finished all queued work.
    """
    return copy_to_device(torch.tensor(values, dtype=dtype), device)
