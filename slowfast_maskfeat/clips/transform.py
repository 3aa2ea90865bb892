"""Crop, resize and flip on uint8 frames; normalisation on the device.

One resize from the size of the file to the size of the clip. It is antialiased when it shrinks,
which the published code's is not; `antialias=False` gives the published form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Rng = np.random.Generator


class CropBox(NamedTuple):
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class TrainTransform:
    """Random resized crop, or short-side jitter and crop, and flip: the same for all frames.

    Attributes:
        crop_size: height and width of the clip in pixels.
        area: range of the crop's share of the frame; None asks for short-side jitter instead.
        aspect: range of the crop's width over height.
        short_side: range of the short side in pixels before the crop, used without `area`.
        inverse_uniform: draw the inverse of the short side uniformly.
        flip: flip half of the clips left to right.
        antialias: antialias where the resize shrinks.
    """

    crop_size: int
    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    short_side: tuple[int, int] = (256, 320)
    inverse_uniform: bool = False
    flip: bool = True
    antialias: bool = True

    def __call__(self, frames: Tensor, generator: Rng) -> Tensor:
        """Cut one clip: (T, H, W, C) uint8 -> (T, crop_size, crop_size, C) uint8."""
        height, width = frames.shape[1:3]
        if self.area is not None:
            box = random_resized_crop(height, width, self.area, self.aspect, generator)
            frames = resize(crop(frames, box), (self.crop_size, self.crop_size), self.antialias)
        else:
            side = self._draw_short_side(generator)
            frames = resize(frames, short_side_size(height, width, side), self.antialias)
            height, width = frames.shape[1:3]
            frames = crop(frames, random_crop(height, width, self.crop_size, generator))
        if self.flip and generator.random() < 0.5:
            frames = frames.flip(2)
        return frames

    def _draw_short_side(self, generator: Rng) -> int:
        low, high = self.short_side
        if self.inverse_uniform:
            return round(1 / generator.uniform(1 / high, 1 / low))
        return round(generator.uniform(low, high))


@dataclass(frozen=True, kw_only=True)
class TestTransform:
    """The fixed crops of evaluation.

    Attributes:
        crop_size: height and width of the clip in pixels.
        short_side: short side in pixels before the crop.
        num_crops: 1 for the centre, 3 for left or top, centre, right or bottom.
        antialias: antialias where the resize shrinks.
    """

    crop_size: int
    short_side: int
    num_crops: int = 1
    antialias: bool = True

    def __call__(self, frames: Tensor) -> Tensor:
        """Cut all crops: (T, H, W, C) uint8 -> (num_crops, T, crop_size, crop_size, C) uint8."""
        height, width = frames.shape[1:3]
        frames = resize(frames, short_side_size(height, width, self.short_side), self.antialias)
        height, width = frames.shape[1:3]
        positions = (1,) if self.num_crops == 1 else (0, 1, 2)
        boxes = [fixed_crop(height, width, self.crop_size, position) for position in positions]
        return torch.stack([crop(frames, box) for box in boxes])


def crop(frames: Tensor, box: CropBox) -> Tensor:
    """Cut a rectangle out of (T, H, W, C) frames, as a view."""
    return frames[:, box.top : box.top + box.height, box.left : box.left + box.width]


def resize(frames: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    """Bilinear resize of (T, H, W, C) uint8 frames to `size` = (height, width)."""
    if tuple(frames.shape[1:3]) == size:
        return frames
    shrinks = frames.shape[1] > size[0] or frames.shape[2] > size[1]
    planes = frames.permute(0, 3, 1, 2)  # (T, C, H, W), channels-last in memory: the fast path
    resized = F.interpolate(
        planes, size=size, mode="bilinear", align_corners=False, antialias=antialias and shrinks
    )
    return resized.permute(0, 2, 3, 1)


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Size (height, width) at which the short side is `short_side`; the other is rounded down."""
    if height < width:
        return short_side, math.floor(width / height * short_side)
    return math.floor(height / width * short_side), short_side


def random_resized_crop(
    height: int,
    width: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
    generator: Rng,
) -> CropBox:
    """Draw a crop by its share of the area and its aspect ratio.

    Ten tries; if none fits into the frame, the largest centre crop whose aspect is in range.
    """
    log_aspect = math.log(aspect[0]), math.log(aspect[1])
    for _ in range(10):
        pixels = generator.uniform(*area) * height * width
        ratio = math.exp(generator.uniform(*log_aspect))
        box_width = round(math.sqrt(pixels * ratio))
        box_height = round(math.sqrt(pixels / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(generator.integers(height - box_height, endpoint=True))
            left = int(generator.integers(width - box_width, endpoint=True))
            return CropBox(top, left, box_height, box_width)
    ratio = min(max(width / height, aspect[0]), aspect[1])
    box_height = min(height, round(width / ratio))
    box_width = min(width, round(height * ratio))
    return CropBox((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


def random_crop(height: int, width: int, size: int, generator: Rng) -> CropBox:
    """Draw a square of `size` inside the frame; every position is equally likely."""
    _check_fits(height, width, size)
    top = int(generator.integers(height - size, endpoint=True))
    left = int(generator.integers(width - size, endpoint=True))
    return CropBox(top, left, size, size)


def fixed_crop(height: int, width: int, size: int, position: int) -> CropBox:
    """The square of `size` at `position` along the longer side: 0 first, 1 centre, 2 last."""
    _check_fits(height, width, size)
    top, left = math.ceil((height - size) / 2), math.ceil((width - size) / 2)
    if height > width:
        top = (0, top, height - size)[position]
    else:
        left = (0, left, width - size)[position]
    return CropBox(top, left, size, size)


def _check_fits(height: int, width: int, size: int) -> None:
    if min(height, width) < size:
        raise ValueError(
            f"a crop of {size} does not fit into frames of {height}x{width}: "
            "DATA.TRAIN_JITTER_SCALES must not be below the crop size"
        )


def normalise(clips: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """From pixel values to the network's input, on the device of the clips.

    Args:
        clips: (B, C, T, H, W) uint8; float clips are normalised already and pass through.
        mean: per channel, subtracted from values in 0..1.
        std: per channel, divided by after that.

    Returns:
        (B, C, T, H, W) float32.
    """
    if clips.dtype != torch.uint8:
        return clips
    shape = (1, -1, 1, 1, 1)
    offset = torch.tensor(mean, device=clips.device).view(shape)
    scale = torch.tensor(std, device=clips.device).view(shape)
    return (clips.float() / 255 - offset) / scale
