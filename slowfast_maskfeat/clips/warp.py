"""Affine resampling of all frames of a clip at once, with Pillow's kernels.

Every output pixel is a weighted sum of a few input pixels, the same ones in all frames. So the
input is a table with one row per pixel, which holds that pixel in all frames and channels, and one
`embedding_bag` sums the rows of every output pixel. Only the pixels that are asked for are made.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat.clips.boxes import CropBox

INTERPOLATIONS = ("bicubic", "bilinear")


class Affine(NamedTuple):
    """Where output pixels come from: x_in = a*x + b*y + c, y_in = d*x + e*y + f.

    Coordinates are in pixels, with the centre of the first one at (0.5, 0.5).
    """

    a: float
    b: float
    c: float
    d: float
    e: float
    f: float


def rotation(degrees: float, height: int, width: int) -> Affine:
    """Turn the picture about its centre, counter-clockwise as people see it."""
    angle = -math.radians(degrees)
    # Rounded as Pillow does, so that right angles are exact.
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return Affine(cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y)


def affine(
    frames: Tensor,
    matrix: Affine,
    box: CropBox,
    *,
    interpolation: str = "bicubic",
    fill: tuple[int, ...] = (128, 128, 128),
) -> Tensor:
    """Resample frames; the result has the pixels of `box` alone.

    Args:
        frames: (T, H, W, C) uint8, the whole picture.
        matrix: from output to input coordinates.
        box: in output coordinates, which are those of the frames.
        interpolation: "bicubic" (Catmull-Rom's form with the slope -1) or "bilinear".
        fill: per channel, where the input has no pixel.

    Returns:
        (T, box.height, box.width, C) uint8.
    """
    num_frames, height, width, channels = frames.shape
    device = frames.device
    y = torch.arange(box.top, box.top + box.height, device=device, dtype=torch.float64) + 0.5
    x = torch.arange(box.left, box.left + box.width, device=device, dtype=torch.float64) + 0.5
    x_in = matrix.a * x + matrix.b * y[:, None] + matrix.c  # (h, w)
    y_in = matrix.d * x + matrix.e * y[:, None] + matrix.f
    outside = (x_in < 0) | (x_in >= width) | (y_in < 0) | (y_in >= height)
    columns, column_weights = _taps(x_in.flatten(), width, interpolation)  # (h*w, taps)
    rows, row_weights = _taps(y_in.flatten(), height, interpolation)
    indices = rows[:, :, None] * width + columns[:, None, :]  # (h*w, taps of y, taps of x)
    weights = row_weights[:, :, None] * column_weights[:, None, :]
    table = frames.permute(1, 2, 0, 3).reshape(height * width, num_frames * channels).float()
    sums = F.embedding_bag(
        indices.flatten(1).to(torch.int32),
        table,
        per_sample_weights=weights.flatten(1).float(),
        mode="sum",
    )  # (h*w, T*C)
    # Pillow cuts the fraction off; the small number keeps a sum that is whole from falling short.
    values = sums.add_(2e-4).clamp_(0, 255).to(torch.uint8)
    values = values.view(box.height * box.width, num_frames, channels)
    values[outside.flatten()] = torch.tensor(fill, dtype=torch.uint8, device=device)
    values = values.view(box.height, box.width, num_frames, channels)
    return values.permute(2, 0, 1, 3).contiguous()  # (T, h, w, C)


def _taps(position: Tensor, size: int, interpolation: str) -> tuple[Tensor, Tensor]:
    """Pixels along one axis that make up each output pixel, and their weights: (h*w, taps)."""
    position = position - 0.5
    start = position.floor()
    fraction = position - start
    if bool((fraction == 0).all()):  # the axis is shifted by whole pixels, or not at all
        index = start.long()[:, None]
        return index.clamp(0, size - 1), torch.ones_like(fraction)[:, None]
    weights = _bicubic(fraction) if interpolation == "bicubic" else _bilinear(fraction)
    first = -1 if interpolation == "bicubic" else 0
    offsets = torch.arange(first, first + weights.shape[1], device=position.device)
    index = start.long()[:, None] + offsets
    return index.clamp(0, size - 1), weights


def _bicubic(fraction: Tensor) -> Tensor:
    """Weights of the pixels at -1, 0, 1, 2: (n, 4)."""
    d = fraction
    before, after = -d * (1 - d) ** 2, -(d**2) * (1 - d)
    here = 1 - 2 * d**2 + d**3
    return torch.stack([before, here, 1 - before - here - after, after], dim=1)


def _bilinear(fraction: Tensor) -> Tensor:
    """Weights of the pixels at 0, 1: (n, 2)."""
    return torch.stack([1 - fraction, fraction], dim=1)
