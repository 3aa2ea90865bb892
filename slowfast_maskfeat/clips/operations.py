"""What RandAugment and colour jitter do to uint8 frames: Pillow's results, all frames at once.

Operations on values take (T, H, W, C) uint8 frames and give the same shape. What depends on the
content of a picture is measured in every frame by itself, as published.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Share of red, green and blue in the brightness, times 2**16 (ITU-R 601, as Pillow rounds it).
_LUMA = (19595, 38470, 7471)


def invert(frames: Tensor) -> Tensor:
    """255 minus the value."""
    return ~frames


def posterize(frames: Tensor, bits: int) -> Tensor:
    """Keep the highest bits of each value; 0 makes everything black."""
    return frames & (0xFF << (8 - bits) & 0xFF)


def solarize(frames: Tensor, threshold: int) -> Tensor:
    """Invert the values from `threshold` on."""
    if threshold > 255:
        return frames
    return frames ^ (frames >= threshold).to(torch.uint8).mul_(255)


def solarize_add(frames: Tensor, addend: int) -> Tensor:
    """Add to the values below 128, up to 255."""
    return frames + (frames < 128).to(torch.uint8).mul_((255 - frames).clamp_(max=addend))


def auto_contrast_tables(frames: Tensor) -> Tensor:
    """What stretches the values of each channel to 0..255: (T, C, 256) uint8."""
    planes = frames.flatten(1, 2)  # (T, H*W, C)
    low, high = planes.amin(1).double()[..., None], planes.amax(1).double()[..., None]
    values = torch.arange(256, device=frames.device, dtype=torch.float64)
    # A number divided by a tensor is a product with its reciprocal, which rounds otherwise.
    scale = torch.full_like(high, 255.0) / (high - low).clamp(min=1)
    stretched = (values * scale + -low * scale).trunc().clamp(0, 255)
    return torch.where(high > low, stretched, values).to(torch.uint8)


def equalize_tables(frames: Tensor) -> Tensor:
    """What spreads the values of each channel evenly: (T, C, 256) uint8."""
    num_frames, _, _, channels = frames.shape
    planes = torch.arange(num_frames * channels, device=frames.device, dtype=torch.int32)
    keys = frames.int() + planes.view(num_frames, 1, 1, channels) * 256
    counts = torch.bincount(keys.flatten(), minlength=num_frames * channels * 256)
    counts = counts.view(num_frames, channels, 256)
    highest = frames.flatten(1, 2).amax(1).long()[..., None]  # (T, C, 1)
    step = (counts.sum(-1, keepdim=True) - counts.gather(-1, highest)) // 255
    below = counts.cumsum(-1) - counts
    spread = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    values = torch.arange(256, device=frames.device)
    return torch.where(step > 0, spread, values).to(torch.uint8)


def apply_tables(frames: Tensor, tables: Tensor) -> Tensor:
    """Look up every value in the table (T, C, 256) of its frame and channel."""
    num_frames, _, _, channels = frames.shape
    planes = torch.arange(num_frames * channels, device=frames.device, dtype=torch.int32)
    keys = frames.int() + planes.view(num_frames, 1, 1, channels) * 256
    return tables.flatten().index_select(0, keys.flatten()).view(frames.shape)


def gray(frames: Tensor) -> Tensor:
    """Brightness of each pixel: (T, H, W, 1) float32, whole numbers."""
    weights = torch.tensor(_LUMA, dtype=torch.float32, device=frames.device)
    # Every sum is below 2**24, so float32 holds it exactly.
    return ((frames.float() @ weights + 0x8000) / 0x10000).floor_().unsqueeze(-1)


def mean_brightness(frames: Tensor) -> Tensor:
    """Mean brightness of each frame, rounded: (T, 1, 1, 1) float32."""
    mean = gray(frames).mean(dim=(1, 2, 3), keepdim=True, dtype=torch.float64)
    return (mean + 0.5).floor().float()


def blend(plain: Tensor | float, frames: Tensor, factor: float) -> Tensor:
    """From a plainer picture (factor 0) to the frames (1) and beyond.

    Args:
        plain: float32 that broadcasts to the frames.
        frames: (T, H, W, C) uint8.
        factor: above 1 the difference is exaggerated.
    """
    # Pillow cuts the fraction off.
    mixed = frames.float().sub_(plain).mul_(factor).add_(plain)
    return mixed.clamp_(0, 255).to(torch.uint8)


def sharpness(frames: Tensor, factor: float) -> Tensor:
    """Change the sharpness; 0 is smoothed by 3x3 pixels, whose outermost ones stay."""
    if min(frames.shape[1:3]) < 3:
        return frames
    wide = frames.to(torch.int16)
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    sums = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * wide[:, 1:-1, 1:-1]
    smooth = frames.float()
    smooth[:, 1:-1, 1:-1] = (sums.float() / 13 + 0.5).floor_()
    return blend(smooth, frames, factor)
