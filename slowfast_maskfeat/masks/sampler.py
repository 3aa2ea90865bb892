"""The type of mask samplers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

# Draws the mask of a clip: bool (t, h, w), True where masked; or several of them, (m, t, h, w).
MaskSampler = Callable[[np.random.Generator], Tensor]
