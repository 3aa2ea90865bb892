"""The precision that losses are computed in."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """`values` in float32, or as they are when that is float64: 16 bits are too few for a loss."""
    return values if values.dtype == torch.float64 else values.float()
