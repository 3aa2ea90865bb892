"""Mixup and cutmix: every clip of a batch and its label are mixed with another.

There is one draw per batch, which is mixed with itself in reverse order. Sources: Zhang et al.,
mixup (2018); Yun et al., CutMix (2019), as in the published code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from slowfast_maskfeat.augment.crop import CropBox

Rng = np.random.Generator


class MixDraw(NamedTuple):
    """Parameters of the mixing of a batch.

    Attributes:
        share: weight of the batch; the reversed batch has weight 1 - share.
        box: rectangle to paste from the reversed batch (cutmix); None blends all pixels (mixup).
    """

    share: float
    box: CropBox | None = None


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Mixup, cutmix and label smoothing.

    Attributes:
        num_classes: K.
        mixup_alpha: parameter of mixup's Beta distribution; 0 disables mixup.
        cutmix_alpha: parameter of cutmix's Beta distribution; 0 disables cutmix.
        probability: probability of mixing a batch.
        switch_probability: probability of cutmix if both are enabled.
        label_smoothing: fraction of each label spread evenly over all classes.
    """

    num_classes: int
    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    probability: float = 1.0
    switch_probability: float = 0.5
    label_smoothing: float = 0.1

    def draw(self, height: int, width: int, generator: Rng) -> MixDraw:
        """Draw the mixing parameters of a batch of clips of (height, width)."""
        if not self.probability or generator.random() >= self.probability:
            return MixDraw(1.0)
        is_cutmix = self.cutmix_alpha > 0
        if is_cutmix and self.mixup_alpha > 0:
            is_cutmix = bool(generator.random() < self.switch_probability)
        alpha = self.cutmix_alpha if is_cutmix else self.mixup_alpha
        if not alpha:
            return MixDraw(1.0)
        share = float(generator.beta(alpha, alpha))
        if not is_cutmix:
            return MixDraw(share)
        return _cutmix_draw(share, height, width, generator)

    def clips(self, clips: Tensor, draw: MixDraw) -> Tensor:
        """Mix normalized clips (B, C, T, H, W) with the reversed batch."""
        if draw.share == 1.0:
            return clips
        partner = clips.flip(0)
        if draw.box is None:
            return torch.lerp(partner, clips, draw.share)
        top, left, height, width = draw.box
        area = (..., slice(top, top + height), slice(left, left + width))
        mixed = clips.clone()
        mixed[area] = partner[area]
        return mixed

    def labels(self, labels: Tensor, draw: MixDraw) -> Tensor:
        """Return mixed soft labels (B, K) float32 from class numbers (B,) or targets (B, K).

        Targets of several labels are smoothed as those of one are: a class that is present has
        1 - s + s / K, one that is not s / K.
        """
        off = self.label_smoothing / self.num_classes
        if labels.ndim == 2:
            own = labels * (1.0 - self.label_smoothing) + off
            return own * draw.share + own.flip(0) * (1.0 - draw.share)
        shape = (len(labels), self.num_classes)
        own = torch.full(shape, off, device=labels.device)
        own.scatter_(1, labels[:, None], 1.0 - self.label_smoothing + off)
        return own * draw.share + own.flip(0) * (1.0 - draw.share)


def _cutmix_draw(share: float, height: int, width: int, generator: Rng) -> MixDraw:
    """Draw a rectangle of 1 - share of the area about a uniform center, clipped to the frame."""
    half_height = int(height * math.sqrt(1.0 - share)) // 2
    half_width = int(width * math.sqrt(1.0 - share)) // 2
    y, x = int(generator.integers(0, height)), int(generator.integers(0, width))
    top, bottom = max(y - half_height, 0), min(y + half_height, height)
    left, right = max(x - half_width, 0), min(x + half_width, width)
    box = CropBox(top, left, bottom - top, right - left)
    return MixDraw(1.0 - box.height * box.width / (height * width), box)
