"""The type of mask samplers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

# Draws a mask: bool (t, h, w), True where masked.
MaskSampler = Callable[[np.random.Generator], Tensor]
