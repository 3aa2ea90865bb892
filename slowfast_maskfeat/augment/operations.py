"""Operations of RandAugment and color jitter on uint8 frames of many clips, equal to Pillow's.

Operations on values take (G, T, H, W, C) uint8 frames of G clips, each with its own argument, and
give the same shape. Statistics of an image are measured in every frame by itself, as published.
Where clips differ in size `inside` (G, 1, H, W, 1) says which pixels are theirs, the others being
padding; None means all. Results are the same on any device, and nothing waits for a device.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Share of red, green and blue in the brightness, times 2**16 (ITU-R 601, as Pillow rounds it).
_LUMA = (19595, 38470, 7471)


def invert(frames: Tensor) -> Tensor:
    """255 minus the value."""
    return ~frames


def posterize(frames: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest bits (G,) of each value; 0 makes everything black."""
    kept = (255 << (8 - bits)) & 255
    return frames & _per_clip(kept.to(torch.uint8))


def solarize(frames: Tensor, threshold: Tensor) -> Tensor:
    """Invert the values from `threshold` (G,) on; 256 inverts none."""
    flipped = _per_clip((threshold < 256).to(torch.uint8).mul_(255))
    lowest = _per_clip(threshold.clamp(max=255).to(torch.uint8))
    return frames ^ (frames >= lowest).to(torch.uint8).mul_(flipped)


def solarize_add(frames: Tensor, addend: Tensor) -> Tensor:
    """Add `addend` (G,) to the values below 128, up to 255."""
    added = torch.minimum(255 - frames, _per_clip(addend.to(torch.uint8)))
    return frames + (frames < 128).to(torch.uint8).mul_(added)


def auto_contrast_tables(frames: Tensor, inside: Tensor | None = None) -> Tensor:
    """Tables that stretch the values of each channel to 0..255: (G, T, C, 256) uint8."""
    low = _filled(frames, inside, 255).amin((2, 3)).double()[..., None]
    high = _filled(frames, inside, 0).amax((2, 3)).double()[..., None]
    values = torch.arange(256, device=frames.device, dtype=torch.float64)
    # A number divided by a tensor is a product with its reciprocal, which rounds otherwise.
    scale = torch.full_like(high, 255.0) / (high - low).clamp(min=1)
    stretched = (values * scale + -low * scale).trunc().clamp(0, 255)
    return torch.where(high > low, stretched, values).to(torch.uint8)


def equalize_tables(frames: Tensor, inside: Tensor | None = None) -> Tensor:
    """Tables that spread the values of each channel evenly: (G, T, C, 256) uint8."""
    counts = _histograms(frames, inside)
    values = torch.arange(256, device=frames.device)
    highest = torch.where(counts > 0, values, 0).amax(-1, keepdim=True)
    step = (counts.sum(-1, keepdim=True) - counts.gather(-1, highest)) // 255
    below = counts.cumsum(-1) - counts
    spread = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, spread, values).to(torch.uint8)


def _histograms(frames: Tensor, inside: Tensor | None) -> Tensor:
    """Counts of each value, by frame and channel: (G, T, C, 256) int64."""
    num_clips, num_frames, _, _, channels = frames.shape
    num_bins = num_clips * num_frames * channels * 256
    keys = frames.int() + _first_entries(frames)
    if inside is not None:
        keys = torch.where(inside, keys, num_bins)  # an extra bin, which is dropped
    count = torch.bincount if keys.is_cpu else _count_without_waiting
    counts = count(keys.flatten(), minlength=num_bins)
    return counts[:num_bins].view(num_clips, num_frames, channels, 256)


def _count_without_waiting(keys: Tensor, *, minlength: int) -> Tensor:
    """As `torch.bincount` of keys up to `minlength`, which is faster on the CPU but reads a GPU."""
    counts = torch.zeros(minlength + 1, dtype=torch.int64, device=keys.device)
    return counts.scatter_add_(0, keys.long(), torch.ones_like(keys, dtype=torch.int64))


def apply_tables(frames: Tensor, tables: Tensor) -> Tensor:
    """Look up every value in the table (G, T, C, 256) of its frame and channel."""
    keys = frames.int() + _first_entries(frames)
    return tables.flatten().index_select(0, keys.flatten()).view(frames.shape)


def _first_entries(frames: Tensor) -> Tensor:
    """Where the table of each frame and channel starts: (G, T, 1, 1, C) int32."""
    num_clips, num_frames, _, _, channels = frames.shape
    num_tables = num_clips * num_frames * channels
    tables = torch.arange(num_tables, device=frames.device, dtype=torch.int32) * 256
    return tables.view(num_clips, num_frames, 1, 1, channels)


def gray(frames: Tensor) -> Tensor:
    """Brightness of each pixel: (G, T, H, W, 1) float32, whole numbers."""
    # Every sum is below 2**24, so float32 holds it exactly. No product of matrices: GPUs may
    # shorten its factors.
    red, green, blue = frames.unbind(-1)
    sums = torch.mul(red, float(_LUMA[0]))
    sums = sums.add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])
    return sums.add_(0x8000).div_(0x10000).floor_().unsqueeze(-1)


def mean_brightness(frames: Tensor, inside: Tensor | None = None) -> Tensor:
    """Mean brightness of each frame, rounded: (G, T, 1, 1, 1) float32."""
    brightness = _filled(gray(frames), inside, 0)
    # The sum is whole, and exact in whatever order it is made.
    total = brightness.sum(dim=(2, 3, 4), keepdim=True, dtype=torch.float64)
    num_pixels = frames.shape[2] * frames.shape[3]
    if inside is not None:
        total = total / inside.sum(dim=(2, 3, 4), keepdim=True)
    else:
        total = total / num_pixels
    return (total + 0.5).floor().float()


def blend(plain: Tensor | float, frames: Tensor, factor: Tensor) -> Tensor:
    """From a plainer picture (factor 0) to the frames (1) and beyond.

    Args:
        plain: float32 that broadcasts to the frames.
        frames: (G, T, H, W, C) uint8.
        factor: (G,) float32; above 1 the difference is exaggerated.
    """
    # Pillow truncates.
    mixed = frames.float().sub_(plain).mul_(_per_clip(factor)).add_(plain)
    return mixed.clamp_(0, 255).to(torch.uint8)


def sharpness(frames: Tensor, factor: Tensor, inside: Tensor | None = None) -> Tensor:
    """Change the sharpness by (G,); 0 is smoothed by 3x3 pixels, whose outermost ones stay."""
    if min(frames.shape[2:4]) < 3:
        return frames
    wide = frames.to(torch.int16)
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    middle = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    sums = rows[:, :, :, :-2] + rows[:, :, :, 1:-1] + rows[:, :, :, 2:] + 4 * wide[middle]
    smoothed = (sums.float() / 13 + 0.5).floor_()
    smooth = frames.float()
    if inside is not None:  # where a clip ends at the right or below, its outermost pixels stay too
        followed = inside[:, :, 1:-1, 2:] & inside[:, :, 2:, 1:-1]
        smoothed = torch.where(followed, smoothed, smooth[middle])
    smooth[middle] = smoothed
    return blend(smooth, frames, factor)


def _per_clip(values: Tensor) -> Tensor:
    """(G,) as (G, 1, 1, 1, 1)."""
    return values[:, None, None, None, None]


def _filled(frames: Tensor, inside: Tensor | None, value: int) -> Tensor:
    """The frames with another value in the padding."""
    return frames if inside is None else frames.masked_fill(~inside, value)
