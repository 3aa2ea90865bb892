"""Crop, resize and flip on uint8 frames; normalization on the device.

One resize from the size of the file to the size of the clip. It is antialiased when it shrinks,
which the published code's is not; `antialias=False` gives the published form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat.augment.apply_operations import apply_operations, boxes_needed
from slowfast_maskfeat.augment.boxes import (
    Boxes,
    CropBox,
    clip_boxes,
    crop,
    flip_boxes,
    scale_boxes,
)
from slowfast_maskfeat.augment.color_jitter import ColorJitter
from slowfast_maskfeat.augment.crop_plan import CutPlan
from slowfast_maskfeat.augment.randaugment import Operation, RandAugment
from slowfast_maskfeat.augment.to_device import send

Rng = np.random.Generator

# Of the pixels of a clip: more are not sent to another process for a resize alone.
_MOST_HANDED_OVER = 4


@dataclass(frozen=True, kw_only=True)
class TrainTransform:
    """Random resized crop, or short-side jitter and crop, flip and colors: alike in all frames.

    Attributes:
        crop_size: height and width of the clip in pixels.
        area: range of the crop's share of the frame; None asks for short-side jitter instead.
        aspect: range of the crop's width over height.
        short_side: range of the short side in pixels before the crop, used without `area`.
        inverse_uniform: draw the inverse of the short side uniformly.
        flip: flip half of the clips left to right.
        antialias: antialias where the resize shrinks.
        interpolation: of the resize, "bilinear" or "bicubic".
        randaugment: operations on the frames, or None.
        augment_crop: these see the finished clip, as published for images; else the whole frames,
            as published for videos.
        jitter: of the colors of the finished clip, or None.
    """

    crop_size: int
    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    short_side: tuple[int, int] = (256, 320)
    inverse_uniform: bool = False
    flip: bool = True
    antialias: bool = True
    interpolation: str = "bilinear"
    randaugment: RandAugment | None = None
    augment_crop: bool = False
    jitter: ColorJitter | None = None

    def __call__(self, frames: Tensor, generator: Rng) -> Tensor:
        """Cut one clip: (T, H, W, C) uint8 -> (T, crop_size, crop_size, C) uint8."""
        return self._follow(self.plan(frames.shape[1], frames.shape[2], generator), frames)

    def with_boxes(self, frames: Tensor, boxes: Boxes, generator: Rng) -> tuple[Tensor, Boxes]:
        """Cut one clip, and take boxes along.

        Args:
            frames: (T, H, W, C) uint8.
            boxes: in pixels of these.
            generator: of the draws, which the boxes don't change.

        Returns:
            (T, crop_size, crop_size, C) uint8, and where the boxes are now; what leaves the clip is
            cut off, so that a box may have no area.
        """
        height, width = frames.shape[1:3]
        plan = self.plan(height, width, generator)
        return self._follow(plan, frames), plan.move_boxes(boxes, height, width)

    def _follow(self, plan: CutPlan, frames: Tensor) -> Tensor:
        """The clip of a plan."""
        clip = self._cut(self._resize(frames, plan.frame), plan)
        if plan.flip:
            clip = clip.flip(2)
        return apply_operations(clip, plan.after)

    def plan(self, height: int, width: int, generator: Rng) -> CutPlan:
        """Draw the cut of a clip from frames of (height, width)."""
        before: list[Operation] = []
        if self.randaugment is not None and not self.augment_crop:
            before = self.randaugment.draw(generator)
        if before and min(height, width) > self.short_side[0]:
            # The published loader has frames of this size here; larger ones only cost more time.
            height, width = short_side_size(height, width, self.short_side[0])
        size = self.crop_size, self.crop_size
        box, wanted = CropBox(0, 0, height, width), CropBox(0, 0, *size)
        if self.area is not None:
            box = random_resized_crop(height, width, self.area, self.aspect, generator)
        else:
            size = short_side_size(height, width, self._draw_short_side(generator))
            wanted = random_crop(size[0], size[1], self.crop_size, generator)
        flip = self.flip and bool(generator.random() < 0.5)
        after: list[Operation] = []
        if self.randaugment is not None and self.augment_crop:
            after = self.randaugment.draw(generator)
        if self.jitter is not None:
            after += self.jitter.draw(generator)
        return CutPlan(
            frame=(height, width),
            before=tuple(before),
            box=box,
            size=size,
            crop=wanted,
            flip=flip,
            after=tuple(after),
        )

    def hand_over(self, frames: Tensor, generator: Rng) -> tuple[Tensor, CutPlan]:
        """Draw the cut of a clip, and leave it to the device.

        Args:
            frames: (T, H, W, C) uint8.
            generator: gives the draws of `__call__`.

        Returns:
            the pixels (T, h, w, C) that the plan needs, and the plan. Where these would be too many
            and nothing comes before the resize they are resized here.
        """
        plan = self.plan(frames.shape[1], frames.shape[2], generator)
        frames = self._resize(frames, plan.frame)
        held = boxes_needed(plan.before, plan.box, *plan.frame)[0]
        if not plan.before and held.height * held.width > _MOST_HANDED_OVER * self.crop_size**2:
            size = self.crop_size, self.crop_size
            whole = CropBox(0, 0, *size)
            finished = replace(plan, frame=size, box=whole, size=size, crop=whole)
            return self._cut(frames, plan), finished
        return crop(frames, held), replace(plan, held=held)

    def _cut(self, frames: Tensor, plan: CutPlan) -> Tensor:
        """RandAugment of whole frames, crop and resize."""
        frames = apply_operations(frames, plan.before, plan.box)
        return crop(self._resize(frames, plan.size), plan.crop)

    def _resize(self, frames: Tensor, size: tuple[int, int]) -> Tensor:
        return resize(frames, size, self.antialias, self.interpolation)

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
        num_crops: 1 for the center, 3 for left or top, center, right or bottom.
        antialias: antialias where the resize shrinks.
        interpolation: of the resize, "bilinear" or "bicubic".
    """

    crop_size: int
    short_side: int
    num_crops: int = 1
    antialias: bool = True
    interpolation: str = "bilinear"

    def __call__(self, frames: Tensor) -> Tensor:
        """Cut all crops: (T, H, W, C) uint8 -> (num_crops, T, crop_size, crop_size, C) uint8."""
        height, width = frames.shape[1:3]
        size = short_side_size(height, width, self.short_side)
        frames = resize(frames, size, self.antialias, self.interpolation)
        height, width = frames.shape[1:3]
        positions = (1,) if self.num_crops == 1 else (0, 1, 2)
        boxes = [fixed_crop(height, width, self.crop_size, position) for position in positions]
        return torch.stack([crop(frames, box) for box in boxes])


@dataclass(frozen=True, kw_only=True)
class WholeFrameTransform:
    """Frames as they are, resized: what boxes are evaluated in, so that none is cut off.

    Attributes:
        short_side: in pixels.
        flip: mirror every clip.
        antialias: antialias where the resize shrinks.
        interpolation: of the resize, "bilinear" or "bicubic".
    """

    short_side: int
    flip: bool = False
    antialias: bool = True
    interpolation: str = "bilinear"

    def with_boxes(
        self, frames: Tensor, boxes: Boxes, generator: Rng | None = None
    ) -> tuple[Tensor, Boxes]:
        """Resize one clip, and take boxes along: (T, H, W, C) uint8 -> the same, and boxes.

        Nothing is drawn; the generator is there because training needs one.
        """
        old = (frames.shape[1], frames.shape[2])
        new = short_side_size(*old, self.short_side)
        frames = resize(frames, new, self.antialias, self.interpolation)
        boxes = scale_boxes(boxes, old, new)
        if self.flip:
            frames, boxes = frames.flip(2), flip_boxes(boxes, new[1])
        return frames, clip_boxes(boxes, *new)


def resize(
    frames: Tensor, size: tuple[int, int], antialias: bool, interpolation: str = "bilinear"
) -> Tensor:
    """Resize of (T, H, W, C) uint8 frames to `size` = (height, width).

    The antialiased forms are Pillow's to rounding.
    """
    if tuple(frames.shape[1:3]) == size:
        return frames
    shrinks = frames.shape[1] > size[0] or frames.shape[2] > size[1]
    planes = frames.permute(0, 3, 1, 2)  # (T, C, H, W), channels-last in memory: the fast path
    resized = F.interpolate(
        planes,
        size=size,
        mode=interpolation,
        align_corners=False,
        # torch's bicubic kernel is Pillow's in the antialiased form alone.
        antialias=antialias and (shrinks or interpolation == "bicubic"),
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

    Ten tries; if none fits into the frame, the largest center crop whose aspect is in range.
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
    """The square of `size` at `position` along the longer side: 0 first, 1 center, 2 last."""
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


def normalize(clips: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """From pixel values to the network's input, on the device of the clips.

    Args:
        clips: (B, C, T, H, W) uint8; float clips are normalized already and pass through.
        mean: per channel, subtracted from values in 0..1.
        std: per channel, divided by after that.

    Returns:
        (B, C, T, H, W) float32.
    """
    if clips.dtype != torch.uint8:
        return clips
    shape = (1, -1, 1, 1, 1)
    offset = send(mean, torch.float32, clips.device).view(shape)
    scale = send(std, torch.float32, clips.device).view(shape)
    return (clips.float() / 255 - offset) / scale
