"""Normalization of pixel values, on the device of the clips."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slowfast_maskfeat.augment.to_device import to_device


def normalize(clips: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Convert pixel values to the network's input.

    Args:
        clips: (B, C, T, H, W) uint8; float clips are already normalized and pass through.
        mean: per-channel mean of values in 0..1.
        std: per-channel standard deviation of values in 0..1.

    Returns:
        (B, C, T, H, W) float32.
    """
    if clips.dtype != torch.uint8:
        return clips
    # (x / 255 - mean) / std in one pass: x * factor + offset.
    factors = [[1 / (255 * deviation) for deviation in std]]
    factors.append([-center / deviation for center, deviation in zip(mean, std, strict=True)])
    factor, offset = to_device(factors, torch.float32, clips.device).view(2, 1, -1, 1, 1, 1)
    return torch.addcmul(offset, clips, factor)
