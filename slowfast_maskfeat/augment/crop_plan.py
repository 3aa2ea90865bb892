"""The drawn crop, flip and operations of one training clip, without its pixels.

A worker either applies the plan, or returns it with its source pixels, to be applied on the device
(`clips.device_crop`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from slowfast_maskfeat.augment.boxes import Boxes, clip_boxes, crop_boxes, flip_boxes, scale_boxes
from slowfast_maskfeat.augment.crop import CropBox, Region
from slowfast_maskfeat.augment.randaugment import Operation, move_boxes


@dataclass(frozen=True, kw_only=True)
class CropPlan:
    """The steps from frames to one clip, in order.

    Attributes:
        frame: (height, width) of the first resize, of whole frames.
        before: operations on the resized frames.
        box: rectangle of the result to resize next.
        size: (height, width) of the second resize, of `box`.
        crop: rectangle of the resized `box` that becomes the clip.
        flip: flip horizontally.
        after: operations on the clip.
        held: rectangle of the frames (of size `frame`) whose pixels are available; None for all.
    """

    frame: tuple[int, int]
    before: tuple[Operation, ...] = ()
    box: CropBox
    size: tuple[int, int]
    crop: CropBox
    flip: bool = False
    after: tuple[Operation, ...] = ()
    held: CropBox | None = None

    @property
    def region(self) -> Region:
        """The part of the frames whose pixels are available."""
        whole = Region.whole(*self.frame)
        return whole if self.held is None else whole._replace(box=self.held)

    @property
    def fractions(self) -> tuple[float, float, float, float]:
        """Top, left, height and width of the clip as fractions of the frames.

        Operations that move pixels, and the flip, do not count.
        """
        scale_y, scale_x = self.box.height / self.size[0], self.box.width / self.size[1]
        height, width = self.frame
        return (
            (self.box.top + self.crop.top * scale_y) / height,
            (self.box.left + self.crop.left * scale_x) / width,
            self.crop.height * scale_y / height,
            self.crop.width * scale_x / width,
        )

    def resized(self, crop_size: int) -> CropPlan:
        """Return the same crop, flip and operations for another crop size."""
        assert self.crop == CropBox(0, 0, *self.size), "the crop must be the whole resized box"
        size = crop_size, crop_size
        return replace(self, size=size, crop=CropBox(0, 0, *size))

    def move_boxes(self, boxes: Boxes, height: int, width: int) -> Boxes:
        """Transform boxes of frames of (height, width) to the clip, and clip them to it."""
        boxes = scale_boxes(boxes, (height, width), self.frame)
        boxes = move_boxes(boxes, self.before, *self.frame)
        boxes = scale_boxes(crop_boxes(boxes, self.box), self.box[2:], self.size)
        boxes = crop_boxes(boxes, self.crop)
        if self.flip:
            boxes = flip_boxes(boxes, self.crop.width)
        boxes = move_boxes(boxes, self.after, *self.crop[2:])
        return clip_boxes(boxes, *self.crop[2:])


def pad_together(groups: Sequence[Tensor], new: Callable[..., Tensor] | None = None) -> Tensor:
    """Join clips of several sizes, padded with zeros below and to the right.

    Args:
        groups: (V, T, H, W, C) each.
        new: allocates the result, given its shape; None allocates it like `groups`.

    Returns:
        (B, T, H, W, C): all clips of all groups.
    """
    first = groups[0]
    height, width = (max(clips.shape[axis] for clips in groups) for axis in (2, 3))
    shape = (sum(map(len, groups)), first.shape[1], height, width, first.shape[4])
    padded = first.new_empty(shape) if new is None else new(*shape)
    for canvas, clips in zip(padded.split([len(clips) for clips in groups]), groups, strict=True):
        canvas[:, :, clips.shape[2] :] = 0
        canvas[:, :, :, clips.shape[3] :] = 0
        canvas[:, :, : clips.shape[2], : clips.shape[3]] = clips
    return padded
