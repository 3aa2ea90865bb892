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
