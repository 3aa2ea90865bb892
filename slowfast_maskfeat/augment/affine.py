"""Affine resampling of the frames of many clips at once, with Pillow's kernels.

Every output pixel is a weighted sum of a few input pixels, which are the same in all frames of a
clip. The input is therefore a table with one row per pixel, holding that pixel in all frames and
channels, and one `embedding_bag` sums the rows of every output pixel. Only the requested output
pixels are computed, and only the input pixels that they need are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat.augment.crop import CropBox, Region
from slowfast_maskfeat.augment.to_device import to_device

INTERPOLATIONS = ("bicubic", "bilinear")


class Affine(NamedTuple):
    """Affine map from output to input coordinates: x_in = a*x + b*y + c, y_in = d*x + e*y + f.

    Coordinates are in pixels; the center of the first pixel is (0.5, 0.5).
    """

    a: float
    b: float
    c: float
    d: float
    e: float
    f: float

    def source(self, box: CropBox, height: int, width: int) -> CropBox:
        """Return the box of input pixels, in frames of (height, width), that `box` depends on."""
        x = (box.left, box.left + box.width)
        y = (box.top, box.top + box.height)
        across = [self.a * x_out + self.b * y_out + self.c for x_out in x for y_out in y]
        down = [self.d * x_out + self.e * y_out + self.f for x_out in x for y_out in y]
        left, top = math.floor(min(across)), math.floor(min(down))
        needed = CropBox(top, left, math.ceil(max(down)) - top, math.ceil(max(across)) - left)
        return needed.grown(2, height, width)  # the radius of the bicubic kernel


def rotation(degrees: float, height: int, width: int) -> Affine:
    """Return the counter-clockwise rotation about the center, as displayed."""
    angle = -math.radians(degrees)
    # Rounded as Pillow does, so that right angles are exact.
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return Affine(cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y)


def inverse(matrix: Affine) -> Affine:
    """Return the inverse map, from input to output coordinates."""
    a, b, c, d, e, f = matrix
    size = a * e - b * d
    return Affine(
        e / size, -b / size, (b * f - e * c) / size, -d / size, a / size, (d * c - a * f) / size
    )


def affine(
    frames: Tensor,
    matrices: Sequence[Affine],
    regions: Sequence[Region],
    corners: Sequence[tuple[int, int]],
    size: tuple[int, int],
    *,
    interpolation: str,
    fills: Sequence[Sequence[int]],
) -> Tensor:
    """Resample frames and compute one rectangle of the result of each clip.

    Args:
        frames: (G, T, H, W, C) uint8, the pixels of each clip's region, padded below and to the
            right if others are larger.
        matrices: affine map of each clip, from output to input coordinates of the whole frame.
        regions: region of each clip; it must contain the `Affine.source` of the rectangle.
        corners: (top, left) of each clip's rectangle in the whole frame.
        size: (height, width) of the rectangles.
        interpolation: "bicubic" (cubic convolution with a = -1) or "bilinear".
        fills: per-channel fill value of each clip for pixels outside of the frame.

    Returns:
        (G, T, *size, C) uint8.
    """
    num_clips, num_frames, rows_held, columns_held, channels = frames.shape
    height, width = size
    device = frames.device
    numbers = [
        (*matrix, *region.box[:2], region.height, region.width, *corner)
        for matrix, region, corner in zip(matrices, regions, corners, strict=True)
    ]
    # Each is (G, 1, 1).
    a, b, c, d, e, f, top, left, frame_height, frame_width, out_top, out_left = to_device(
        numbers, torch.float64, device
    ).T[..., None, None]
    y = torch.arange(height, device=device, dtype=torch.float64)[:, None] + out_top + 0.5
    x = torch.arange(width, device=device, dtype=torch.float64) + out_left + 0.5
    x_in = a * x + b * y + c  # (G, h, w)
    y_in = d * x + e * y + f
    outside = (x_in < 0) | (x_in >= frame_width) | (y_in < 0) | (y_in >= frame_height)
    moves_rows = not all(_is_shift(m.e, m.d, m.f) for m in matrices)
    moves_columns = not all(_is_shift(m.a, m.b, m.c) for m in matrices)
    columns, column_weights = _taps(x_in, interpolation if moves_columns else "")
    rows, row_weights = _taps(y_in, interpolation if moves_rows else "")  # (G, h, w, taps)
    columns = _to_available(columns, left, frame_width, columns_held)
    rows = _to_available(rows, top, frame_height, rows_held)
    clip = torch.arange(num_clips, device=device, dtype=torch.int32).view(-1, 1, 1, 1)
    # Pixels outside of the frame read one of the last rows of the table, which hold the fills.
    rows = torch.where(outside[..., None], num_clips * rows_held, rows + clip * rows_held)
    columns = torch.where(outside[..., None], clip, columns)
    indices = rows[..., :, None] * columns_held + columns[..., None, :]  # (G, h, w, taps, taps)
    weights = row_weights[..., :, None] * column_weights[..., None, :]
    sums = F.embedding_bag(
        indices.flatten(3).flatten(0, 2),
        _table(frames, fills),
        per_sample_weights=weights.flatten(3).flatten(0, 2),
        mode="sum",
    )  # (G*h*w, C*T)
    # Pillow truncates; the small offset keeps rounding errors from lowering an exact integer.
    values = sums.add_(2e-4).clamp_(0, 255).to(torch.uint8)
    values = values.view(num_clips, height, width, channels, num_frames)
    return values.permute(0, 4, 1, 2, 3).contiguous()  # (G, T, h, w, C)


def _table(frames: Tensor, fills: Sequence[Sequence[int]]) -> Tensor:
    """Build the table of pixels, then fills: (G*H*W + G, C*T) float32."""
    num_clips, num_frames, height, width, channels = frames.shape
    num_pixels = num_clips * height * width
    table = torch.empty((num_pixels + num_clips, channels * num_frames), device=frames.device)
    pixels = table[:num_pixels].view(num_clips, height, width, channels, num_frames)
    pixels.copy_(frames.permute(0, 2, 3, 4, 1))
    fill = to_device(fills, torch.float32, frames.device)
    table[num_pixels:] = fill.repeat_interleave(num_frames, dim=1)
    return table


def _is_shift(along: float, across: float, offset: float) -> bool:
    """Whether a coordinate is shifted by an integer number of pixels (or zero)."""
    return along == 1 and across == 0 and float(offset).is_integer()


def _to_available(index: Tensor, first: Tensor, size: Tensor, num_held: int) -> Tensor:
    """Clamp pixel indices to the frame and convert them to indices into the available pixels."""
    last = (size[..., None] - 1).int()
    index = torch.minimum(index.clamp_(min=0), last) - first[..., None].int()
    return index.clamp_(0, num_held - 1)


def _taps(position: Tensor, interpolation: str) -> tuple[Tensor, Tensor]:
    """Return the input pixels along one axis and their weights: (..., taps) each.

    An empty `interpolation` means that positions are pixel centers: each has a single tap.
    """
    position = position - 0.5
    start = position.floor()
    whole = start.int()[..., None]
    if not interpolation:
        return whole, torch.ones_like(whole, dtype=torch.float32)
    fraction = (position - start).float()
    weights = _bicubic(fraction) if interpolation == "bicubic" else _bilinear(fraction)
    first = -1 if interpolation == "bicubic" else 0
    taps = torch.arange(weights.shape[-1], device=position.device, dtype=torch.int32)
    return whole + (taps + first), weights


def _bicubic(fraction: Tensor) -> Tensor:
    """Return the weights of the pixels at -1, 0, 1, 2: (..., 4)."""
    d = fraction
    before, after = -d * (1 - d) ** 2, -(d**2) * (1 - d)
    here = 1 - 2 * d**2 + d**3
    return torch.stack([before, here, 1 - before - here - after, after], dim=-1)


def _bilinear(fraction: Tensor) -> Tensor:
    """Return the weights of the pixels at 0, 1: (..., 2)."""
    return torch.stack([1 - fraction, fraction], dim=-1)
