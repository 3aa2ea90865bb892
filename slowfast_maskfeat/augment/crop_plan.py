"""What was drawn for one training clip, apart from its pixels: how it is cut out of its video.

A worker that follows the plan gives a finished clip. It may also hand over the pixels that the
plan needs, for `clips.on_device` to follow it there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from slowfast_maskfeat.augment.boxes import (
    Boxes,
    CropBox,
    Region,
    clip_boxes,
    crop_boxes,
    flip_boxes,
    scale_boxes,
)
from slowfast_maskfeat.augment.randaugment import Operation, move_boxes


@dataclass(frozen=True, kw_only=True)
class CutPlan:
    """One clip, in the order in which it is made.

    Attributes:
        frame: (height, width) that the frames are brought to first.
        before: operations on these.
        box: rectangle of the result that is resized.
        size: (height, width) that it is resized to.
        crop: rectangle of that which is the clip.
        flip: left to right.
        after: operations on the clip.
        held: rectangle of the frames of that size whose pixels are at hand; None for all.
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
        """What is at hand."""
        whole = Region.whole(*self.frame)
        return whole if self.held is None else whole._replace(box=self.held)

    def move_boxes(self, boxes: Boxes, height: int, width: int) -> Boxes:
        """Where boxes of frames of (height, width) are in the clip; what leaves it is cut off."""
        boxes = scale_boxes(boxes, (height, width), self.frame)
        boxes = move_boxes(boxes, self.before, *self.frame)
        boxes = scale_boxes(crop_boxes(boxes, self.box), self.box[2:], self.size)
        boxes = crop_boxes(boxes, self.crop)
        if self.flip:
            boxes = flip_boxes(boxes, self.crop.width)
        boxes = move_boxes(boxes, self.after, *self.crop[2:])
        return clip_boxes(boxes, *self.crop[2:])


class UncutClips(NamedTuple):
    """Clips that a device is to cut, of one video or a whole batch.

    Attributes:
        pixels: (V, T, H, W, C) uint8: of each clip those that its plan holds, padded below and to
            the right where others are larger.
        plans: of each clip.
    """

    pixels: Tensor
    plans: tuple[CutPlan, ...]


def pad_together(groups: Sequence[Tensor], new: Callable[..., Tensor] | None = None) -> Tensor:
    """Put clips of several sizes on one canvas, which is zero below and to the right of each.

    Args:
        groups: (V, T, H, W, C) each.
        new: makes the canvas of a shape; None for as `groups` are.

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
