"""Resize of uint8 frames, antialiased when downsampling."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat.augment.batch_resize import AxisResize, resize_batch


def resize(
    frames: Tensor, size: tuple[int, int], antialias: bool, interpolation: str = "bilinear"
) -> Tensor:
    """Resize (T, H, W, C) uint8 frames.

    Args:
        frames: (T, H, W, C) uint8.
        size: (height, width) of the result.
        antialias: antialias when downsampling, as Pillow always does.
        interpolation: "bilinear", "bicubic" or "lanczos".

    Returns:
        (T, *size, C) uint8. With antialiasing it equals Pillow's two passes, columns first, up to
        rounding ("lanczos" exactly). From version 13 on, Pillow itself resizes rows first if the
        height shrinks most.
    """
    height, width = frames.shape[1:3]
    if (height, width) == size:
        return frames
    if interpolation == "lanczos" or frames.device.type != "cpu":  # torch has no such kernels
        rows, columns = AxisResize(0, height, size[0], 0), AxisResize(0, width, size[1], 0)
        return resize_batch(
            frames[None], [rows], [columns], size, antialias=antialias, interpolation=interpolation
        )[0]
    shrinks = height > size[0] or width > size[1]
    planes = frames.permute(0, 3, 1, 2)  # (T, C, H, W), channels-last in memory: the fast path
    resized = F.interpolate(
        planes,
        size=size,
        mode=interpolation,
        align_corners=False,
        # torch's bicubic kernel equals Pillow's only when antialiased.
        antialias=antialias and (shrinks or interpolation == "bicubic"),
    )
    return resized.permute(0, 2, 3, 1)
