"""Crop plans applied to a batch on the device: operations, resize, flip, operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from slowfast_maskfeat.augment.apply_operations import apply_to_batch
from slowfast_maskfeat.augment.batch_resize import AxisResize, resize_batch
from slowfast_maskfeat.augment.crop import Region
from slowfast_maskfeat.augment.crop_plan import CropPlan
from slowfast_maskfeat.augment.to_device import to_device
from slowfast_maskfeat.augment.transforms import TrainTransform
from slowfast_maskfeat.clips.batch import ClipBatch

# Clips to resize at a time, which bounds the memory of intermediate results.
_MAX_CLIPS = 8


@dataclass(frozen=True, kw_only=True)
class DeviceCrop:
    """Crops the clips of one kind of views.

    The result equals that of a worker up to the rounding of the resize. It does not depend on the
    other clips of the batch.

    Attributes:
        crop_size: height and width of the clips in pixels.
        antialias: antialias when downsampling.
        interpolation: interpolation of the resize: "bilinear", "bicubic" or "lanczos".
        reverse_channels: return channels as blue, green, red.
    """

    crop_size: int
    antialias: bool = True
    interpolation: str = "bilinear"
    reverse_channels: bool = False

    @classmethod
    def of(cls, transform: TrainTransform, *, reverse_channels: bool = False) -> DeviceCrop:
        """Return the crop that applies the plans of a worker's transform."""
        return cls(
            crop_size=transform.crop_size,
            antialias=transform.antialias,
            interpolation=transform.interpolation,
            reverse_channels=reverse_channels,
        )

    def __post_init__(self) -> None:
        if self.interpolation == "bicubic" and not self.antialias:
            raise ValueError(
                "antialias must be True with bicubic interpolation on the device, got False"
            )

    @torch.no_grad()
    def __call__(self, batch: ClipBatch) -> ClipBatch:
        """Crop the uint8 clips on the device of the batch."""
        if batch.plans is None:
            return batch
        pixels = batch.clips.permute(0, 2, 3, 4, 1)  # (B, T, H, W, C), the memory layout
        clips = self._crop(pixels, batch.plans)
        return replace(batch, clips=clips.permute(0, 4, 1, 2, 3), plans=None)

    def _crop(self, pixels: Tensor, plans: Sequence[CropPlan]) -> Tensor:
        """Crop padded (B, T, H, W, C) pixels to (B, T, crop_size, crop_size, C)."""
        pixels, regions = apply_to_batch(
            pixels,
            [plan.before for plan in plans],
            [plan.region for plan in plans],
            [plan.box for plan in plans],
        )
        starts = range(0, len(plans), _MAX_CLIPS)
        parts = [slice(start, start + _MAX_CLIPS) for start in starts]
        clips = torch.cat([self._resize(pixels[p], regions[p], plans[p]) for p in parts])
        flips = to_device([plan.flip for plan in plans], torch.bool, clips.device)
        clips = torch.where(flips[:, None, None, None, None], clips.flip(3), clips)
        whole = Region.whole(self.crop_size, self.crop_size)
        after = [plan.after for plan in plans]
        clips, _ = apply_to_batch(clips, after, [whole] * len(plans), [whole.box] * len(plans))
        return clips.flip(-1) if self.reverse_channels else clips

    def _resize(
        self, pixels: Tensor, regions: Sequence[Region], plans: Sequence[CropPlan]
    ) -> Tensor:
        """Resize and crop as the plans specify."""
        rows, columns = [], []
        for region, plan in zip(regions, plans, strict=True):
            box = plan.box.within(region.box)
            rows.append(AxisResize(box.top, box.height, plan.size[0], plan.crop.top))
            columns.append(AxisResize(box.left, box.width, plan.size[1], plan.crop.left))
        return resize_batch(
            pixels,
            rows,
            columns,
            (self.crop_size, self.crop_size),
            antialias=self.antialias,
            interpolation=self.interpolation,
        )


def crop_views(batch: ClipBatch, crops: Sequence[DeviceCrop]) -> ClipBatch:
    """Crop the clips of all kinds of views of a batch, on its device.

    Args:
        batch: uint8 clips, with plans.
        crops: of each kind.
    """
    first, *further = (crop(kind) for crop, kind in zip(crops, batch.views, strict=True))
    return replace(first, further=tuple(further))
