"""Color jitter (brightness, contrast, saturation) and grayscale, the same for all frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slowfast_maskfeat.augment.randaugment import Operation

Rng = np.random.Generator

# Operations whose factor 0 removes all brightness, contrast or saturation.
_CHANGES = ("Brightness", "Contrast", "Color")


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Random factors on brightness, contrast and saturation, in random order.

    Attributes:
        strength: factors are uniform in [1 - strength, 1 + strength], never below 0.
        gray_probability: probability of converting a clip to grayscale.
    """

    strength: float = 0.0
    gray_probability: float = 0.0

    def draw(self, generator: Rng) -> list[Operation]:
        """Draw the color operations of one clip."""
        drawn = []
        if self.strength:
            for change in generator.permutation(3):
                factor = generator.uniform(max(0.0, 1 - self.strength), 1 + self.strength)
                drawn.append(Operation(_CHANGES[change], float(factor)))
        if self.gray_probability and generator.random() < self.gray_probability:
            drawn.append(Operation("Color", 0.0))
        return drawn
