"""Pixel values of clips, for networks with a normalization of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slowfast_maskfeat.augment.to_device import to_device


def pixel_values(clips: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Convert clips to pixel values in [0, 1].

    Args:
        clips: (B, C, T, H, W): uint8, or float and normalized.
        mean: per channel, of the normalization of float clips.
        std: per channel, of the normalization of float clips.

    Returns:
        (B, C, T, H, W) float32.
    """
    if clips.dtype == torch.uint8:
        return clips.float() / 255
    return clips.float() * per_channel(std, clips) + per_channel(mean, clips)


def per_channel(values: Sequence[float], clips: Tensor) -> Tensor:
    """Return one value per channel, (1, C, 1, 1, 1) on the device of the clips."""
    return to_device(values, torch.float32, clips.device).view(1, -1, 1, 1, 1)
