"""Drawn operations applied to frames: of one clip in a worker, or of a whole batch on a device.

Both share the same code. A worker computes in each step only the pixels that later steps need; in a
batch, clips with the same next operation are processed together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat.augment import colors, operations
from slowfast_maskfeat.augment.affine import affine
from slowfast_maskfeat.augment.colors import blur_radius
from slowfast_maskfeat.augment.crop import CropBox, Region, crop
from slowfast_maskfeat.augment.randaugment import Operation
from slowfast_maskfeat.augment.to_device import to_device

# Clips to process at a time, which bounds the memory of intermediate results.
_MAX_CLIPS = 8


def apply_operations(
    frames: Tensor, drawn: Sequence[Operation], box: CropBox | None = None
) -> Tensor:
    """Apply operations to whole frames and crop the result to a rectangle.

    The result equals applying the operations first and cropping afterwards, but pixels that the
    rectangle does not depend on are not computed.

    Args:
        frames: (T, H, W, C) uint8.
        drawn: operations, such as those of `RandAugment.draw`.
        box: the rectangle; None for the whole frame.

    Returns:
        (T, box.height, box.width, C) uint8.
    """
    height, width = frames.shape[1:3]
    boxes = boxes_needed(drawn, box or CropBox(0, 0, height, width), height, width)
    clips = crop(frames, boxes[0])[None]
    for operation, here, after in zip(drawn, boxes, boxes[1:], strict=False):
        regions = [Region(here, height, width)]
        clips = _apply(clips, [operation], regions, [after[:2]], after[2:])
    return clips[0]


def boxes_needed(
    drawn: Sequence[Operation], box: CropBox, height: int, width: int
) -> list[CropBox]:
    """Return the rectangle that each operation must read, followed by `box`."""
    boxes = [box]
    for operation in reversed(drawn):
        boxes.insert(0, operation.region_needed(boxes[0], height, width))
    return boxes


def apply_to_batch(
    clips: Tensor,
    drawn: Sequence[Sequence[Operation]],
    regions: Sequence[Region],
    boxes: Sequence[CropBox],
) -> tuple[Tensor, list[Region]]:
    """Apply separate operations to each clip of a batch.

    Args:
        clips: (B, T, H, W, C) uint8, the pixels of each clip's region, padded below and to the
            right.
        drawn: operations of each clip.
        regions: region of each clip; it must contain the rectangle that `boxes_needed` returns.
        boxes: rectangle of each clip in which the result must equal that of `apply_operations`.

    Returns:
        The padded clips and the region of each that they now hold; pixels outside of its box are
        undefined.
    """
    steps = [
        _regions_after(of_clip, region, box)
        for of_clip, region, box in zip(drawn, regions, boxes, strict=True)
    ]
    held = [region.box for of_clip in steps for region in of_clip]
    below = max(box.height for box in held) - clips.shape[2]
    right = max(box.width for box in held) - clips.shape[3]
    clips = F.pad(clips, (0, 0, 0, max(right, 0), 0, max(below, 0)))
    for step in range(max(map(len, drawn))):
        groups = defaultdict(list)
        for number, of_clip in enumerate(drawn):
            if step < len(of_clip):
                groups[of_clip[step].kind, of_clip[step].interpolation].append(number)
        for group in groups.values():
            for start in range(0, len(group), _MAX_CLIPS):
                numbers = group[start : start + _MAX_CLIPS]
                index = to_device(numbers, torch.int64, clips.device)
                changed = _apply(
                    clips.index_select(0, index),
                    [drawn[number][step] for number in numbers],
                    [steps[number][step] for number in numbers],
                    [steps[number][step + 1].box[:2] for number in numbers],
                )
                clips.index_copy_(0, index, changed)
    return clips, [of_clip[-1] for of_clip in steps]


def _regions_after(drawn: Sequence[Operation], region: Region, box: CropBox) -> list[Region]:
    """Return the region of a clip before the first and after each operation.

    Operations that move pixels compute only what the next one reads. The others keep the region,
    since cropping it would only add a copy.
    """
    regions = [region]
    needed = boxes_needed(drawn, box, region.height, region.width)
    for operation, after in zip(drawn, needed[1:], strict=True):
        last = regions[-1]
        regions.append(last._replace(box=after) if operation.moves_pixels else last)
    return regions


def _apply(
    frames: Tensor,
    group: Sequence[Operation],
    regions: Sequence[Region],
    corners: Sequence[tuple[int, int]],
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Apply operations of one kind and interpolation, one to each clip.

    Args:
        frames: (G, T, H, W, C) uint8, the padded pixels of each clip's region.
        group: operation of each clip.
        regions: region of each clip.
        corners: (top, left) of the result of each clip in its frame. With padding, it must be the
            corner of the region, unless pixels move.
        size: (height, width) of the result; None for the size of the frames.
    """
    kind = group[0].kind
    size = size or (frames.shape[2], frames.shape[3])
    if group[0].moves_pixels:
        return affine(
            frames,
            [op.matrix(*region[1:]) for op, region in zip(group, regions, strict=True)],
            regions,
            corners,
            size,
            interpolation=group[0].interpolation,
            fills=[op.fill for op in group],
        )
    box = CropBox(*corners[0], *size).within(regions[0].box)
    cropped = crop(frames, box)
    argument = to_device([op.argument for op in group], torch.float32, frames.device)
    inside = _non_padding(frames, regions)
    match kind:
        case "AutoContrast":
            tables = operations.auto_contrast_tables(frames, inside)
            return operations.apply_tables(cropped, tables)
        case "Equalize":
            return operations.apply_tables(cropped, operations.equalize_tables(frames, inside))
        case "Invert":
            return operations.invert(cropped)
        case "Posterize":
            return operations.posterize(cropped, argument.int())
        case "Solarize":
            return operations.solarize(cropped, argument.int())
        case "SolarizeAdd":
            return operations.solarize_add(cropped, argument.int())
        case "Color":
            return operations.blend(operations.gray(cropped), cropped, argument)
        case "Contrast":
            return operations.blend(operations.mean_brightness(frames, inside), cropped, argument)
        case "Brightness":
            return operations.blend(0.0, cropped, argument)
        case "Sharpness":
            return crop(operations.sharpness(frames, argument, inside), box)
        case "BrightnessShift":
            return colors.shift_brightness(cropped, argument)
        case "ChannelContrast":
            return crop(colors.channel_contrast(frames, argument, inside), box)
        case "Saturation":
            return colors.saturate(cropped, argument)
        case "Hue":
            return colors.rotate_hue(cropped, argument)
        case "FrameDifference":
            return colors.frame_difference(cropped)
        case "GaussianBlur":
            radius = max(blur_radius(op.argument) for op in group)
            return crop(colors.gaussian_blur(frames, argument, radius, inside), box)
    raise AssertionError(kind)


def _non_padding(frames: Tensor, regions: Sequence[Region]) -> Tensor | None:
    """Return which pixels are not padding, (G, 1, H, W, 1) bool; None without padding."""
    height, width = frames.shape[2:4]
    if all(region.box[2:] == (height, width) for region in regions):
        return None
    sizes = to_device([region.box[2:] for region in regions], torch.int64, frames.device)
    rows = torch.arange(height, device=frames.device) < sizes[:, :1]  # (G, H)
    columns = torch.arange(width, device=frames.device) < sizes[:, 1:]
    return (rows[:, :, None] & columns[:, None])[:, None, :, :, None]
