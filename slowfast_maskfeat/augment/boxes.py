"""Rectangles: what is cut out of a frame, and what a detector is asked about."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# Rectangles x1, y1, x2, y2 in pixels of the frames: float64 (R, 4).
Boxes = NDArray[np.float64]


class CropBox(NamedTuple):
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int

    def overlap(self, height: int, width: int) -> CropBox:
        """The part inside frames of (height, width), at least one pixel of them."""
        top, left = min(max(self.top, 0), height - 1), min(max(self.left, 0), width - 1)
        bottom = min(max(self.top + self.height, top + 1), height)
        right = min(max(self.left + self.width, left + 1), width)
        return CropBox(top, left, bottom - top, right - left)

    def grown(self, margin: int, height: int, width: int) -> CropBox:
        """The rectangle with a margin, as far as frames of (height, width) reach."""
        box = CropBox(
            self.top - margin, self.left - margin, self.height + 2 * margin, self.width + 2 * margin
        )
        return box.overlap(height, width)

    def within(self, outer: CropBox) -> CropBox:
        """The same rectangle in the coordinates of another that holds it."""
        return CropBox(self.top - outer.top, self.left - outer.left, self.height, self.width)


def crop(frames: Tensor, box: CropBox) -> Tensor:
    """Cut a rectangle out of (..., H, W, C) frames, as a view."""
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    return frames[..., rows, columns, :]


class Region(NamedTuple):
    """The part of a frame whose pixels are at hand.

    Attributes:
        box: in the frame.
        height: of the frame.
        width: of the frame.
    """

    box: CropBox
    height: int
    width: int

    @classmethod
    def whole(cls, height: int, width: int) -> Region:
        """All of a frame."""
        return cls(CropBox(0, 0, height, width), height, width)


def scale_boxes(boxes: Boxes, old: tuple[int, int], new: tuple[int, int]) -> Boxes:
    """Boxes in frames that are resized from one (height, width) to another."""
    y, x = new[0] / old[0], new[1] / old[1]
    return boxes * np.array([x, y, x, y])


def crop_boxes(boxes: Boxes, box: CropBox) -> Boxes:
    """Boxes in a rectangle that is cut out; they may reach beyond it."""
    return boxes - np.array([box.left, box.top, box.left, box.top])


def flip_boxes(boxes: Boxes, width: int) -> Boxes:
    """Boxes in frames that are mirrored: x becomes width - x - 1, as published."""
    x1, y1, x2, y2 = boxes.T
    return np.stack([width - x2 - 1, y1, width - x1 - 1, y2], axis=1)


def clip_boxes(boxes: Boxes, height: int, width: int) -> Boxes:
    """The part of boxes that is in the frame: up to the last pixel, height - 1 and width - 1."""
    return boxes.clip(0, np.array([width - 1, height - 1] * 2))


def has_area(boxes: Boxes) -> NDArray[np.bool_]:
    """Which boxes have any."""
    return np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
