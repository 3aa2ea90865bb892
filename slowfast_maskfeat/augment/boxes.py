"""Transforms of boxes that match those of their frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.augment.crop import CropBox

# (R, 4) float64: x1, y1, x2, y2 in pixels of the frames.
Boxes = NDArray[np.float64]


def scale_boxes(boxes: Boxes, old: tuple[int, int], new: tuple[int, int]) -> Boxes:
    """Scale boxes with frames that are resized from (height, width) `old` to `new`."""
    y, x = new[0] / old[0], new[1] / old[1]
    return boxes * np.array([x, y, x, y])


def crop_boxes(boxes: Boxes, box: CropBox) -> Boxes:
    """Move boxes into the coordinates of a crop; they may reach beyond it."""
    return boxes - np.array([box.left, box.top, box.left, box.top])


def flip_boxes(boxes: Boxes, width: int) -> Boxes:
    """Flip boxes with their frames: x becomes width - x - 1, as published."""
    x1, y1, x2, y2 = boxes.T
    return np.stack([width - x2 - 1, y1, width - x1 - 1, y2], axis=1)


def clip_boxes(boxes: Boxes, height: int, width: int) -> Boxes:
    """Clip boxes to the frame: up to the last pixel, height - 1 and width - 1."""
    return boxes.clip(0, np.array([width - 1, height - 1] * 2))


def has_area(boxes: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which of the boxes (R, 4) have an area above 0: (R,) bool."""
    return np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
