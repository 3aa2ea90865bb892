"""Jitter of brightness, contrast and saturation, and grayscale: the same for all frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from slowfast_maskfeat.clips.operations import blend, gray, mean_brightness

Rng = np.random.Generator

# What a factor of 0 leaves: no brightness, no contrast, no saturation.
_PLAINER: tuple[Callable[[Tensor], Tensor | float], ...] = (
    lambda frames: 0.0,
    mean_brightness,
    gray,
)


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Factors on brightness, contrast and saturation, in an order that is drawn, too.

    Attributes:
        strength: each factor is drawn from 1 - strength to 1 + strength, never below 0.
        gray_probability: of a clip without colours.
    """

    strength: float = 0.0
    gray_probability: float = 0.0

    def __call__(self, frames: Tensor, generator: Rng) -> Tensor:
        """Change the colours of a clip: (T, H, W, C) uint8 -> the same."""
        if self.strength:
            for change in generator.permutation(3):
                factor = generator.uniform(max(0.0, 1 - self.strength), 1 + self.strength)
                plain = _PLAINER[change](frames)
                frames = blend(plain, frames, float(factor))
        if self.gray_probability and generator.random() < self.gray_probability:
            frames = blend(gray(frames), frames, 0.0)
        return frames
