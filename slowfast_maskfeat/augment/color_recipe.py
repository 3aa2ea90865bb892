"""Color augmentation of one view, drawn once for a clip: jitter, gray, blur, solarization, motion.

The order is that of the two-view methods: SimCLR (arXiv:2002.05709, appendix A), BYOL
(arXiv:2006.07733, appendix B) and DINO (main_dino.py of the official code). Before it come the
differences of frames of PySlowFast (datasets/decoder.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from slowfast_maskfeat.augment.randaugment import Operation

Rng = np.random.Generator

# Operations that change brightness, contrast and saturation in each form.
_CHANGES = {
    "blend": ("Brightness", "Contrast", "Color"),
    "additive": ("BrightnessShift", "ChannelContrast", "Saturation"),
}
_SOLARIZE_THRESHOLD = 128  # of Pillow, DINO and BYOL


@dataclass(frozen=True, kw_only=True)
class ColorRecipe:
    """Random color operations of one view.

    Attributes:
        brightness: factors are uniform in [1 - brightness, 1 + brightness], never below 0. In the
            additive form, fractions of the range of values that are added are uniform in
            [-brightness, brightness].
        contrast: likewise, always of factors.
        saturation: likewise, always of factors.
        hue: shift of the hue, uniform in [-hue, hue]; 0.5 is half of the color wheel.
        form: "blend", as in Pillow and torchvision: toward black, the mean luma and the luma; or
            "additive", as in BYOL's code: brightness is added, contrast is about the mean of each
            channel, and saturation is that of HSV.
        jitter_probability: probability of these four changes, which are made in random order.
        gray_probability: probability of a conversion to grayscale.
        blur_probability: probability of a Gaussian blur.
        blur_sigma: range of its standard deviation in pixels.
        solarize_probability: probability of inverting the bright half of the values.
        difference_probability: probability of a clip of gray differences of frames.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    form: Literal["blend", "additive"] = "blend"
    jitter_probability: float = 1.0
    gray_probability: float = 0.0
    blur_probability: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_probability: float = 0.0
    difference_probability: float = 0.0

    def draw(self, generator: Rng) -> list[Operation]:
        """Draw the color operations of one clip."""
        drawn = []
        if self.difference_probability and _happens(self.difference_probability, generator):
            drawn.append(Operation("FrameDifference"))
        if _happens(self.jitter_probability, generator):
            drawn += self._draw_jitter(generator)
        if self.gray_probability and _happens(self.gray_probability, generator):
            drawn.append(Operation("Color", 0.0))
        if self.blur_probability and _happens(self.blur_probability, generator):
            drawn.append(Operation("GaussianBlur", float(generator.uniform(*self.blur_sigma))))
        if self.solarize_probability and _happens(self.solarize_probability, generator):
            drawn.append(Operation("Solarize", _SOLARIZE_THRESHOLD))
        return drawn

    def _draw_jitter(self, generator: Rng) -> list[Operation]:
        names = (*_CHANGES[self.form], "Hue")
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        changes = [pair for pair in zip(names, strengths, strict=True) if pair[1]]
        drawn = []
        for number in generator.permutation(len(changes)) if changes else ():
            name, strength = changes[number]
            if name in ("Hue", "BrightnessShift"):
                argument = generator.uniform(-strength, strength)
            else:
                argument = generator.uniform(max(0.0, 1 - strength), 1 + strength)
            drawn.append(Operation(name, float(argument)))
        return drawn


def _happens(probability: float, generator: Rng) -> bool:
    """Draw, unless it is certain."""
    return probability >= 1.0 or bool(generator.random() < probability)
