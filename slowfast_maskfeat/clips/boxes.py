"""A rectangle of a frame."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class CropBox(NamedTuple):
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int

    def grown(self, margin: int, height: int, width: int) -> CropBox:
        """The rectangle with a margin, as far as frames of (height, width) reach."""
        top, left = max(self.top - margin, 0), max(self.left - margin, 0)
        bottom = min(self.top + self.height + margin, height)
        right = min(self.left + self.width + margin, width)
        return CropBox(top, left, bottom - top, right - left)

    def within(self, outer: CropBox) -> CropBox:
        """The same rectangle in the coordinates of another that holds it."""
        return CropBox(self.top - outer.top, self.left - outer.left, self.height, self.width)


def crop(frames: Tensor, box: CropBox) -> Tensor:
    """Cut a rectangle out of (T, H, W, C) frames, as a view."""
    return frames[:, box.top : box.top + box.height, box.left : box.left + box.width]
