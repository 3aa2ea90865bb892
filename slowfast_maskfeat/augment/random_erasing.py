"""Random erasing: rectangles of noise, at the same position in all frames of a clip.

The rectangles and the seeds of their noise are drawn with the clip; the noise is generated on the
device and fills the normalized clip. Source: Zhong et al., Random Erasing Data Augmentation (2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Rng = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class EraseSampler:
    """Random sampler of the rectangles of a clip.

    Attributes:
        size: (height, width) of the clips.
        probability: probability of erasing in a clip.
        max_count: maximum number of rectangles per clip (at least 1), which share the area.
        area: range of the total erased fraction of the frame.
        aspect: range of height over width.
        num_tries: draws per rectangle until one fits; if none does, it is skipped.
    """

    size: tuple[int, int]
    probability: float
    max_count: int = 1
    area: tuple[float, float] = (0.02, 1 / 3)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)
    num_tries: int = 100

    def __call__(self, generator: Rng) -> Tensor:
        """Draw (max_count, 5) int64: top, left, height, width, noise seed; zeros for none."""
        boxes = np.zeros((self.max_count, 5), dtype=np.int64)
        if generator.random() < self.probability:
            count = 1
            if self.max_count > 1:
                count = int(generator.integers(1, self.max_count, endpoint=True))
            for number in range(count):
                boxes[number] = self._draw(generator, count)
        return torch.from_numpy(boxes)

    def _draw(self, generator: Rng, count: int) -> tuple[int, int, int, int, int]:
        height, width = self.size
        log_aspect = math.log(self.aspect[0]), math.log(self.aspect[1])
        for _ in range(self.num_tries):
            pixels = generator.uniform(*self.area) * height * width / count
            ratio = math.exp(generator.uniform(*log_aspect))
            box_height = round(math.sqrt(pixels * ratio))
            box_width = round(math.sqrt(pixels / ratio))
            if box_height < height and box_width < width:
                top = int(generator.integers(0, height - box_height, endpoint=True))
                left = int(generator.integers(0, width - box_width, endpoint=True))
                seed = int(generator.integers(0, 2**31))
                return top, left, box_height, box_width, seed
        return 0, 0, 0, 0, 0


def erase(clips: Tensor, boxes: Tensor, mode: str = "pixel") -> Tensor:
    """Fill rectangles of normalized clips, in place.

    The noise depends only on the seed of the rectangle, not on the other clips of the batch.

    Args:
        clips: (B, C, T, H, W) float, normalized; modified in place.
        boxes: (B, n, 5) on the CPU, as drawn by `EraseSampler`.
        mode: "pixel": normal noise per pixel and frame; "rand": one normal number per channel;
            "const": zeros.

    Returns:
        The clips.
    """
    generator = torch.Generator(clips.device)
    for clip, of_clip in zip(clips, boxes.tolist(), strict=True):
        for top, left, height, width, seed in of_clip:
            area = clip[:, :, top : top + height, left : left + width]  # (C, T, h, w)
            if not area.numel():
                continue
            generator.manual_seed(seed)
            shape = {"pixel": area.shape, "rand": (len(area), 1, 1, 1), "const": (1,)}[mode]
            noise = torch.zeros(shape, device=clips.device)
            area.copy_(noise if mode == "const" else noise.normal_(generator=generator))
    return clips
