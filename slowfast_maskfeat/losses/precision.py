"""Precision of the losses."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Cast to float32, except for float64: 16 bits are too few for a loss."""
    return values if values.dtype == torch.float64 else values.float()


def full_precision(vectors: Tensor) -> torch.autocast:
    """Switch off autocast on the device of vectors.

    Args:
        vectors: on that device.
    """
    device = "cpu" if vectors.is_meta else vectors.device.type  # meta knows no autocast
    return torch.autocast(device, enabled=False)
