"""Small tables for the device, sent without waiting for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def send(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Nested numbers as a tensor on the device.

    `torch.tensor(values, device=...)` would wait until a GPU has done all it was given before.
    """
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)
