"""Resize of uint8 frames, antialiased where it shrinks."""

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
        antialias: antialias where the resize shrinks; Pillow always does.
        interpolation: "bilinear", "bicubic" or "lanczos".

    Returns:
        (T, *size, C) uint8. Antialiased it is that of Pillow's two passes, columns first, to
        rounding ("lanczos" without any difference). From version 13 on Pillow itself takes rows
        first where the height shrinks most.
    """
    height, width = frames.shape[1:3]
    if (height, width) == size:
        return frames
    if interpolation == "lanczos":  # torch has no such kernel
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
        # torch's bicubic kernel is Pillow's in the antialiased form alone.
        antialias=antialias and (shrinks or interpolation == "bicubic"),
    )
    return resized.permute(0, 2, 3, 1)
