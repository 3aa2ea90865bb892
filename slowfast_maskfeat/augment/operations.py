"""Operations of RandAugment and color jitter on uint8 frames of many clips, equal to Pillow's.

Operations on values take (G, T, H, W, C) uint8 frames of G clips, with one argument per clip, and
return the same shape. Image statistics are computed separately for every frame, as published. If
clips differ in size, `inside` (G, 1, H, W, 1) is False for padding; None means no padding. Results
are the same on any device, and nothing synchronizes with the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Weights of red, green and blue in the luma, times 2**16 (ITU-R 601, rounded as in Pillow).
_LUMA_WEIGHTS = (19595, 38470, 7471)


def invert(frames: Tensor) -> Tensor:
    """Invert values: 255 minus the value."""
    return ~frames


def posterize(frames: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest bits (G,) of each value; 0 makes everything black."""
    kept = (255 << (8 - bits)) & 255
    return frames & _per_clip(kept.to(torch.uint8))


def solarize(frames: Tensor, threshold: Tensor) -> Tensor:
    """Invert the values >= `threshold` (G,); 256 inverts none."""
    flipped = _per_clip((threshold < 256).to(torch.uint8).mul_(255))
    lowest = _per_clip(threshold.clamp(max=255).to(torch.uint8))
    return frames ^ (frames >= lowest).to(torch.uint8).mul_(flipped)


def solarize_add(frames: Tensor, addend: Tensor) -> Tensor:
    """Add `addend` (G,) to the values below 128, up to 255."""
    added = torch.minimum(255 - frames, _per_clip(addend.to(torch.uint8)))
    return frames + (frames < 128).to(torch.uint8).mul_(added)


def auto_contrast_tables(frames: Tensor, inside: Tensor | None = None) -> Tensor:
    """Build lookup tables that stretch each channel to 0..255: (G, T, C, 256) uint8."""
    low = _fill_padding(frames, inside, 255).amin((2, 3)).double()[..., None]
    high = _fill_padding(frames, inside, 0).amax((2, 3)).double()[..., None]
    values = torch.arange(256, device=frames.device, dtype=torch.float64)
    # torch computes number / tensor as a product with the reciprocal, which rounds differently.
    scale = torch.full_like(high, 255.0) / (high - low).clamp(min=1)
    stretched = (values * scale + -low * scale).trunc().clamp(0, 255)
    return torch.where(high > low, stretched, values).to(torch.uint8)


def equalize_tables(frames: Tensor, inside: Tensor | None = None) -> Tensor:
    """Build lookup tables that equalize each channel's histogram: (G, T, C, 256) uint8."""
    counts = _histograms(frames, inside)
    values = torch.arange(256, device=frames.device)
    highest = torch.where(counts > 0, values, 0).amax(-1, keepdim=True)
    step = (counts.sum(-1, keepdim=True) - counts.gather(-1, highest)) // 255
    below = counts.cumsum(-1) - counts
    spread = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, spread, values).to(torch.uint8)


def _histograms(frames: Tensor, inside: Tensor | None) -> Tensor:
    """Count each value by frame and channel: (G, T, C, 256) int64."""
    num_clips, num_frames, _, _, channels = frames.shape
    num_bins = num_clips * num_frames * channels * 256
    keys = frames.int() + _table_offsets(frames)
    if inside is not None:
        keys = torch.where(inside, keys, num_bins)  # padding goes to an extra bin, dropped below
    count = torch.bincount if keys.is_cpu else _count_without_waiting
    counts = count(keys.flatten(), minlength=num_bins)
    return counts[:num_bins].view(num_clips, num_frames, channels, 256)


def _count_without_waiting(keys: Tensor, *, minlength: int) -> Tensor:
    """Like `torch.bincount` for keys up to `minlength`, without synchronizing with a GPU.

    On the CPU `torch.bincount` is faster.
    """
    counts = torch.zeros(minlength + 1, dtype=torch.int64, device=keys.device)
    return counts.scatter_add_(0, keys.long(), torch.ones_like(keys, dtype=torch.int64))


def apply_tables(frames: Tensor, tables: Tensor) -> Tensor:
    """Look up every value in the lookup table (G, T, C, 256) of its frame and channel."""
    keys = frames.int() + _table_offsets(frames)
    return tables.flatten().index_select(0, keys.flatten()).view(frames.shape)


def _table_offsets(frames: Tensor) -> Tensor:
    """Return the offset of the table of each frame and channel: (G, T, 1, 1, C) int32."""
    num_clips, num_frames, _, _, channels = frames.shape
    num_tables = num_clips * num_frames * channels
    tables = torch.arange(num_tables, device=frames.device, dtype=torch.int32) * 256
    return tables.view(num_clips, num_frames, 1, 1, channels)


def gray(frames: Tensor) -> Tensor:
    """Return the luma of each pixel: (G, T, H, W, 1) float32, integer values."""
    # Every sum is below 2**24 and therefore exact in float32. A matrix product may not be: GPUs may
    # reduce the precision of its factors.
    red, green, blue = frames.unbind(-1)
    sums = torch.mul(red, float(_LUMA_WEIGHTS[0]))
    sums = sums.add_(green, alpha=_LUMA_WEIGHTS[1]).add_(blue, alpha=_LUMA_WEIGHTS[2])
    return sums.add_(0x8000).div_(0x10000).floor_().unsqueeze(-1)


def mean_brightness(frames: Tensor, inside: Tensor | None = None) -> Tensor:
    """Return the mean luma of each frame, rounded: (G, T, 1, 1, 1) float32."""
    brightness = _fill_padding(gray(frames), inside, 0)
    # The sum of integers is exact in any order.
    total = brightness.sum(dim=(2, 3, 4), keepdim=True, dtype=torch.float64)
    num_pixels = frames.shape[2] * frames.shape[3]
    if inside is not None:
        total = total / inside.sum(dim=(2, 3, 4), keepdim=True)
    else:
        total = total / num_pixels
    return (total + 0.5).floor().float()


def blend(plain: Tensor | float, frames: Tensor, factor: Tensor) -> Tensor:
    """Interpolate from a degenerate image (factor 0) to the frames (factor 1) and beyond.

    Args:
        plain: float32, broadcastable to the frames.
        frames: (G, T, H, W, C) uint8.
        factor: (G,) float32; values above 1 extrapolate.
    """
    # Pillow truncates.
    mixed = frames.float().sub_(plain).mul_(_per_clip(factor)).add_(plain)
    return mixed.clamp_(0, 255).to(torch.uint8)


def sharpness(frames: Tensor, factor: Tensor, inside: Tensor | None = None) -> Tensor:
    """Change the sharpness by `factor` (G,); 0 is a 3x3 smoothing that keeps the border pixels."""
    if min(frames.shape[2:4]) < 3:
        return frames
    wide = frames.to(torch.int16)
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    middle = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    sums = rows[:, :, :, :-2] + rows[:, :, :, 1:-1] + rows[:, :, :, 2:] + 4 * wide[middle]
    smoothed = (sums.float() / 13 + 0.5).floor_()
    smooth = frames.float()
    if inside is not None:  # keep the right and bottom border pixels of padded clips, too
        followed = inside[:, :, 1:-1, 2:] & inside[:, :, 2:, 1:-1]
        smoothed = torch.where(followed, smoothed, smooth[middle])
    smooth[middle] = smoothed
    return blend(smooth, frames, factor)


def _per_clip(values: Tensor) -> Tensor:
    """Reshape (G,) to (G, 1, 1, 1, 1)."""
    return values[:, None, None, None, None]


def _fill_padding(frames: Tensor, inside: Tensor | None, value: int) -> Tensor:
    """Return the frames with the padding set to a value."""
    return frames if inside is None else frames.masked_fill(~inside, value)
