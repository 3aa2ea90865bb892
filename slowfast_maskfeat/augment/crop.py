"""Crop boxes: random and fixed crops of frames."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor

Rng = np.random.Generator


class CropBox(NamedTuple):
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int

    def overlap(self, height: int, width: int) -> CropBox:
        """Return the part inside frames of (height, width), at least one pixel."""
        top, left = min(max(self.top, 0), height - 1), min(max(self.left, 0), width - 1)
        bottom = min(max(self.top + self.height, top + 1), height)
        right = min(max(self.left + self.width, left + 1), width)
        return CropBox(top, left, bottom - top, right - left)

    def grown(self, margin: int, height: int, width: int) -> CropBox:
        """Return the rectangle with a margin, clipped to frames of (height, width)."""
        box = CropBox(
            self.top - margin, self.left - margin, self.height + 2 * margin, self.width + 2 * margin
        )
        return box.overlap(height, width)

    def within(self, outer: CropBox) -> CropBox:
        """Return the same rectangle in the coordinates of another one that contains it."""
        return CropBox(self.top - outer.top, self.left - outer.left, self.height, self.width)


class Region(NamedTuple):
    """The part of a frame whose pixels are available.

    Attributes:
        box: the available part of the frame.
        height: height of the frame.
        width: width of the frame.
    """

    box: CropBox
    height: int
    width: int

    @classmethod
    def whole(cls, height: int, width: int) -> Region:
        """Return the region of a whole frame."""
        return cls(CropBox(0, 0, height, width), height, width)


def crop(frames: Tensor, box: CropBox) -> Tensor:
    """Crop (..., H, W, C) frames to a rectangle, as a view."""
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    return frames[..., rows, columns, :]


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return the (height, width) with the given short side; the other side is rounded down."""
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
    """Draw a crop by its fraction of the area and its aspect ratio (width over height).

    If none of ten draws fits into the frame, return the largest center crop whose aspect ratio is
    in range.
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
    """Draw a square of `size` at a uniformly random position in the frame."""
    _check_fits(height, width, size)
    top = int(generator.integers(height - size, endpoint=True))
    left = int(generator.integers(width - size, endpoint=True))
    return CropBox(top, left, size, size)


def fixed_crop(height: int, width: int, size: int, position: int) -> CropBox:
    """Return the square of `size` at `position` of the longer side: 0 first, 1 center, 2 last."""
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
            f"DATA.TRAIN_JITTER_SCALES must be >= the crop size {size}, got frames of "
            f"{height}x{width} after the resize"
        )
