"""Transforms of uint8 frames to clips: crop, resize, flip and color operations.

Frames are resized once, from the video's resolution to that of the clip. The resize is antialiased
when downsampling, unlike in the published code; `antialias=False` reproduces the published resize.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from slowfast_maskfeat.augment.apply_operations import apply_operations, boxes_needed
from slowfast_maskfeat.augment.boxes import Boxes, clip_boxes, flip_boxes, scale_boxes
from slowfast_maskfeat.augment.color_recipe import ColorRecipe
from slowfast_maskfeat.augment.crop import (
    CropBox,
    crop,
    fixed_crop,
    random_crop,
    random_resized_crop,
    short_side_size,
)
from slowfast_maskfeat.augment.crop_plan import CropPlan
from slowfast_maskfeat.augment.randaugment import Operation, RandAugment
from slowfast_maskfeat.augment.resize import resize

Rng = np.random.Generator

# Multiple of the pixels of a finished clip: with more source pixels than that, a worker does the
# resize, since copying them to another process would cost more.
_MAX_SOURCE_PIXELS = 4


@dataclass(frozen=True, kw_only=True)
class TrainTransform:
    """Random resized crop or short-side jitter, flip and colors, the same for all frames of a clip.

    Attributes:
        crop_size: height and width of the clip in pixels.
        area: range of the crop's fraction of the frame area; None for short-side jitter instead.
        aspect: range of the crop's width over height.
        short_side: range of the short side in pixels before the crop, used without `area`.
        inverse_uniform: draw the inverse of the short side uniformly.
        flip: flip clips horizontally with probability 0.5.
        antialias: antialias when downsampling.
        interpolation: interpolation of the resize: "bilinear", "bicubic" or "lanczos".
        randaugment: RandAugment, or None.
        augment_crop: apply RandAugment to the finished clip, as published for images; if False, to
            whole frames, as published for videos.
        colors: color operations of the finished clip, or None.
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
    colors: ColorRecipe | None = None

    def __call__(self, frames: Tensor, generator: Rng) -> Tensor:
        """Draw and apply a crop: (T, H, W, C) uint8 -> (T, crop_size, crop_size, C) uint8."""
        return self.apply(self.plan(frames.shape[1], frames.shape[2], generator), frames)

    def with_boxes(self, frames: Tensor, boxes: Boxes, generator: Rng) -> tuple[Tensor, Boxes]:
        """Draw and apply a crop, and transform boxes with it.

        Args:
            frames: (T, H, W, C) uint8.
            boxes: boxes in pixels of the frames.
            generator: random generator; the draws do not depend on the boxes.

        Returns:
            (T, crop_size, crop_size, C) uint8, and the boxes in its pixels, clipped to it; a box
            may have no area.
        """
        height, width = frames.shape[1:3]
        plan = self.plan(height, width, generator)
        return self.apply(plan, frames), plan.move_boxes(boxes, height, width)

    def apply(self, plan: CropPlan, frames: Tensor) -> Tensor:
        """Apply a plan: (T, H, W, C) uint8 -> (T, crop_size, crop_size, C) uint8."""
        clip = self._resized_crop(self._resize(frames, plan.frame), plan)
        if plan.flip:
            clip = clip.flip(2)
        return apply_operations(clip, plan.after)

    def plan(self, height: int, width: int, generator: Rng) -> CropPlan:
        """Draw the crop, flip and operations of a clip from frames of (height, width)."""
        before: list[Operation] = []
        if self.randaugment is not None and not self.augment_crop:
            before = self.randaugment.draw(generator)
        if before and min(height, width) > self.short_side[0]:
            # The published loader augments frames of this size; larger ones only take longer.
            height, width = short_side_size(height, width, self.short_side[0])
        size = self.crop_size, self.crop_size
        box, kept = CropBox(0, 0, height, width), CropBox(0, 0, *size)
        if self.area is not None:
            box = random_resized_crop(height, width, self.area, self.aspect, generator)
        else:
            size = short_side_size(height, width, self._draw_short_side(generator))
            kept = random_crop(size[0], size[1], self.crop_size, generator)
        flip = self.flip and bool(generator.random() < 0.5)
        after: list[Operation] = []
        if self.randaugment is not None and self.augment_crop:
            after = self.randaugment.draw(generator)
        if self.colors is not None:
            after += self.colors.draw(generator)
        return CropPlan(
            frame=(height, width),
            before=tuple(before),
            box=box,
            size=size,
            crop=kept,
            flip=flip,
            after=tuple(after),
        )

    def source_pixels(self, plan: CropPlan, frames: Tensor) -> tuple[Tensor, CropPlan]:
        """Cut out what the device needs to apply a plan (`clips.device_crop`).

        Args:
            plan: of `plan`, for these frames.
            frames: (T, H, W, C) uint8.

        Returns:
            The source pixels (T, h, w, C), and the plan from them. If there are too many pixels and
            no operations before the resize, the pixels are already cropped and resized.
        """
        frames = self._resize(frames, plan.frame)
        held = boxes_needed(plan.before, plan.box, *plan.frame)[0]
        is_large = held.height * held.width > _MAX_SOURCE_PIXELS * self.crop_size**2
        if is_large and not plan.before and frames.device.type == "cpu":
            size = self.crop_size, self.crop_size
            whole = CropBox(0, 0, *size)
            finished = replace(plan, frame=size, box=whole, size=size, crop=whole)
            return self._resized_crop(frames, plan), finished
        return crop(frames, held), replace(plan, held=held)

    def _resized_crop(self, frames: Tensor, plan: CropPlan) -> Tensor:
        """Apply the operations on whole frames, then crop and resize."""
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
    """Fixed spatial crops for evaluation.

    Attributes:
        crop_size: height and width of the clip in pixels.
        short_side: short side in pixels before the crop.
        num_crops: 1 for the center; 3 for left (or top), center, right (or bottom).
        antialias: antialias when downsampling.
        interpolation: interpolation of the resize: "bilinear", "bicubic" or "lanczos".
    """

    crop_size: int
    short_side: int
    num_crops: int = 1
    antialias: bool = True
    interpolation: str = "bilinear"

    def __call__(self, frames: Tensor) -> Tensor:
        """Return all crops: (T, H, W, C) uint8 -> (num_crops, T, crop_size, crop_size, C) uint8."""
        plans = self.plans(frames.shape[1], frames.shape[2])
        frames = resize(frames, plans[0].size, self.antialias, self.interpolation)
        return torch.stack([crop(frames, plan.crop) for plan in plans])

    def plans(self, height: int, width: int) -> list[CropPlan]:
        """Return the plan of each crop of frames of (height, width)."""
        size = short_side_size(height, width, self.short_side)
        positions = (1,) if self.num_crops == 1 else (0, 1, 2)
        boxes = [fixed_crop(*size, self.crop_size, position) for position in positions]
        frame, whole = (height, width), CropBox(0, 0, height, width)
        return [CropPlan(frame=frame, box=whole, size=size, crop=box) for box in boxes]


@dataclass(frozen=True, kw_only=True)
class WholeFrameTransform:
    """Resize of whole frames without a crop, which keeps all boxes: for evaluation of detection.

    Attributes:
        short_side: short side of the clip in pixels.
        flip: flip every clip horizontally.
        antialias: antialias when downsampling.
        interpolation: interpolation of the resize: "bilinear", "bicubic" or "lanczos".
    """

    short_side: int
    flip: bool = False
    antialias: bool = True
    interpolation: str = "bilinear"

    def with_boxes(
        self, frames: Tensor, boxes: Boxes, generator: Rng | None = None
    ) -> tuple[Tensor, Boxes]:
        """Resize (T, H, W, C) uint8 frames and scale their boxes.

        Deterministic; `generator` only matches the signature of training transforms.
        """
        old = (frames.shape[1], frames.shape[2])
        new = short_side_size(*old, self.short_side)
        frames = resize(frames, new, self.antialias, self.interpolation)
        boxes = scale_boxes(boxes, old, new)
        if self.flip:
            frames, boxes = frames.flip(2), flip_boxes(boxes, new[1])
        return frames, clip_boxes(boxes, *new)
