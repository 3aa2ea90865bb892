"""Differences between the published recipes for images and for videos.

A clip of one frame is an image. Builders of augmentations, masks and views read this record instead
of distinguishing images from videos. Source: PySlowFast's data loaders of images and of videos.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fvcore.common.config import CfgNode


@dataclass(frozen=True, kw_only=True)
class ClipRecipe:
    """Settings that depend on whether clips are images or videos.

    Attributes:
        interpolation: interpolation of the resize of whole clips: "bilinear" or "bicubic".
        antialias: antialias when downsampling.
        default_area: range of the area fraction of random resized crops, used if the configuration
            has none; None for short-side jitter instead.
        augment_crop: RandAugment is applied to the crop instead of whole frames.
        fill: red, green, blue in 0..255 of pixels that RandAugment moves in from outside.
        color_jitter: strength of the jitter by AUG.COLOR_JITTER; 0 for none.
        num_erase_tries: tries per rectangle of random erasing.
        short_side: (crop size) -> short side in pixels before the center crop of a test.
        num_views: default number of temporal views of a test.
        num_crops: spatial crops of a test.
        has_mask_window: AUG.MASK_WINDOW_SIZE applies to the masks.
    """

    interpolation: str
    antialias: bool
    default_area: tuple[float, float] | None
    augment_crop: bool
    fill: tuple[int, int, int]
    color_jitter: float
    num_erase_tries: int
    short_side: Callable[[int], int]
    num_views: int
    num_crops: int
    has_mask_window: bool


def clip_recipe(cfg: CfgNode) -> ClipRecipe:
    """Return the image recipe for clips of one frame, else the video recipe.

    Args:
        cfg: configuration; not modified.

    Raises:
        ValueError: the color jitter of images is below 0.
    """
    return _image_recipe(cfg) if cfg.DATA.NUM_FRAMES == 1 else _video_recipe(cfg)


def has_color_first(cfg: CfgNode) -> bool:
    """Whether predicted pixels are ordered (color, row, column) instead of colors last.

    That is the published order for images, used by the published configurations, which have no
    MASK.TARGET. With MASK.TARGET set, images and videos share one order.

    Args:
        cfg: configuration; not modified.
    """
    return bool(cfg.MVIT.PATCH_2D and not cfg.MASK.TARGET)


def _image_recipe(cfg: CfgNode) -> ClipRecipe:
    aug = cfg.AUG
    red, green, blue = (min(round(255 * value), 255) for value in cfg.DATA.MEAN)

    def short_side(crop_size: int) -> int:
        return max(math.floor(crop_size / cfg.DATA.IN_VAL_CROP_RATIO), crop_size)

    return ClipRecipe(
        interpolation="bilinear" if aug.INTERPOLATION == "bilinear" else "bicubic",
        antialias=True,
        default_area=(0.08, 1.0),
        augment_crop=True,
        fill=(red, green, blue),  # the data set's mean
        color_jitter=0.0
        if aug.AA_TYPE
        else _non_negative("AUG.COLOR_JITTER", aug.COLOR_JITTER or 0.0),
        num_erase_tries=10,
        short_side=short_side,
        # All temporal views of an image are the same frame.
        num_views=1,
        num_crops=1,
        has_mask_window=False,
    )


def _video_recipe(cfg: CfgNode) -> ClipRecipe:
    def short_side(crop_size: int) -> int:
        return max(cfg.DATA.TRAIN_JITTER_SCALES[0], crop_size)

    return ClipRecipe(
        interpolation="bilinear",
        antialias=cfg.DATA.ANTIALIAS,
        default_area=None,
        augment_crop=False,
        fill=(128, 128, 128),
        color_jitter=0.0,
        num_erase_tries=100,
        short_side=short_side,
        num_views=cfg.TEST.NUM_ENSEMBLE_VIEWS,
        num_crops=cfg.TEST.NUM_SPATIAL_CROPS,
        has_mask_window=True,
    )


def _non_negative(key: str, value: float) -> float:
    if value < 0:
        raise ValueError(f"{key} must be >= 0, got {value}")
    return value
