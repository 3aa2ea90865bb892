"""Resize of one rectangle per clip, for all clips of a batch at once, with Pillow's kernels.

The rectangles differ while the output size is the same, so `interpolate` would need one call per
clip. Here every output column is a weighted sum of input columns and every output row a weighted
sum of input rows, with one `embedding_bag` for each axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat.augment.to_device import to_device

# Radius of the kernels in pixels, without downsampling.
_RADIUS = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}
# Pillow rounds its weights to multiples of 1 / 2**22, whose sums are exact in float64. That matters
# for the negative weights of Lanczos, which amplify the rounding between the two passes.
_LANCZOS_STEPS = 1 << 22


class AxisResize(NamedTuple):
    """Resize along one axis of a clip: `length` pixels starting at `start` become `size`.

    The result starts at pixel `first` of these.
    """

    start: int
    length: int
    size: int
    first: int


def resize_batch(
    clips: Tensor,
    rows: Sequence[AxisResize],
    columns: Sequence[AxisResize],
    size: tuple[int, int],
    *,
    antialias: bool,
    interpolation: str,
) -> Tensor:
    """Resize and crop each clip of a batch.

    Args:
        clips: (B, T, H, W, C) uint8.
        rows: resize of each clip along its height.
        columns: resize of each clip along its width.
        size: (height, width) of the result.
        antialias: antialias when downsampling.
        interpolation: Pillow's kernels: "bilinear", "bicubic" (a = -0.5) or "lanczos" (3 lobes).

    Returns:
        (B, T, *size, C) uint8. The result of a clip does not depend on the other clips.
    """
    device = clips.device
    # As Pillow does: columns first, rounding to integers in between.
    taps = _taps(columns, size[1], antialias, interpolation, device)
    narrow = _resize_axis(clips.permute(0, 3, 1, 2, 4), *taps)  # (B, w, T, H, C)
    taps = _taps(rows, size[0], antialias, interpolation, device)
    resized = _resize_axis(narrow.permute(0, 3, 2, 1, 4), *taps)  # (B, h, T, w, C)
    return resized.permute(0, 2, 1, 3, 4).to(torch.uint8)


def _resize_axis(lines: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Compute output lines from their taps: (B, L, ...) -> (B, size, ...) integer-valued floats."""
    num_clips, length = lines.shape[:2]
    index = index.clamp_(0, length - 1)
    index += torch.arange(num_clips, device=lines.device)[:, None, None] * length
    sums = F.embedding_bag(
        index.flatten(0, 1).to(torch.int32),
        lines.flatten(2).flatten(0, 1).to(weights.dtype),
        per_sample_weights=weights.flatten(0, 1),
        mode="sum",
    )
    return sums.add_(0.5).floor_().clamp_(0, 255).view(num_clips, -1, *lines.shape[2:])


def _taps(
    axes: Sequence[AxisResize],
    size: int,
    antialias: bool,
    interpolation: str,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return the input pixels of each output pixel and their weights: (B, size, taps) each.

    Weights outside of the rectangle are zero and those inside sum to one. They are float32, and
    float64 for Lanczos.
    """
    reach = _RADIUS[interpolation]
    factors = [axis.length / axis.size for axis in axes]
    stretches = [max(factor, 1.0) if antialias else 1.0 for factor in factors]
    num_taps = 2 * int(reach * max(stretches) + 1) + 1
    numbers = to_device(axes, torch.float64, device)
    start, length, _, first = numbers.T[..., None, None]  # (B, 1, 1)
    factor, stretch = to_device([factors, stretches], torch.float64, device)[..., None, None]
    output = torch.arange(size, device=device, dtype=torch.float64)[:, None] + first
    center = (output + 0.5) * factor  # (B, size, 1)
    tap = (center - reach * stretch).floor() + torch.arange(num_taps, device=device)
    weights = _kernel((tap + 0.5 - center) / stretch, interpolation)
    weights = torch.where((tap >= 0) & (tap < length), weights, 0.0)
    weights = weights / weights.sum(-1, keepdim=True)
    if interpolation == "lanczos":
        weights = (weights * _LANCZOS_STEPS).round() / _LANCZOS_STEPS
    else:
        weights = weights.float()
    return (tap + start).long(), weights


def _kernel(distance: Tensor, interpolation: str) -> Tensor:
    """Return the weight of a pixel at a distance in pixels."""
    d = distance.abs()
    if interpolation == "bilinear":
        return (1 - d).clamp_(min=0)
    if interpolation == "lanczos":
        return torch.where(d < 3, torch.sinc(d) * torch.sinc(d / 3), 0.0)
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return torch.where(d < 1, near, torch.where(d < 2, far, 0.0))
