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
    shape = (1, -1, 1, 1, 1)
    offset = to_device(mean, torch.float32, clips.device).view(shape)
    scale = to_device(std, torch.float32, clips.device).view(shape)
    return (clips.float() / 255 - offset) / scale
