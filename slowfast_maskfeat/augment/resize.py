"""Resize of uint8 frames, antialiased where it shrinks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize(
    frames: Tensor, size: tuple[int, int], antialias: bool, interpolation: str = "bilinear"
) -> Tensor:
    """Resize (T, H, W, C) uint8 frames to `size` = (height, width).

    The antialiased forms are Pillow's to rounding.
    """
    if tuple(frames.shape[1:3]) == size:
        return frames
    shrinks = frames.shape[1] > size[0] or frames.shape[2] > size[1]
    planes = frames.permute(0, 3, 1, 2)  # (T, C, H, W), channels-last in memory: the fast path
    resized = F.interpolate(
        planes,
        size=size,
        mode=interpolation,
        align_corners=False,
        # torch's bicubic kernel is Pillow's in the antialiased form alone.
        antialias=antialias and (shrinks or interpolation == "bicubic"),
    )
    return resized.permute(0, 2, 3, 1)
