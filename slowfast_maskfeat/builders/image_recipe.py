"""Configuration -> what the published recipes of images and of videos do otherwise.

A clip of one frame is an image. Whatever makes readers, augmentations, masks or views asks this
record, and not which of the two it has.
Source: PySlowFast, whose readers of images and of videos differ in these points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fvcore.common.config import CfgNode


@dataclass(frozen=True, kw_only=True)
class ClipRecipe:
    """The choices that hang on whether clips are images, made.

    Attributes:
        interpolation: Of the resize of whole clips, "bilinear" or "bicubic".
        antialias: Whether it antialiases where it shrinks.
        default_area: Shares of the area that random resized crops take where the configuration
            names none; None: the short side is resized instead.
        augment_crop: RandAugment sees the crop, not whole frames.
        fill: Red, green, blue, 0 to 255, of what RandAugment moves into sight.
        color_jitter: Strength of the jitter of colors; 0: none.
        num_erase_tries: Tries for each rectangle of random erasing.
        short_side: (crop size) -> short side in pixels of which a test takes the center.
        num_views: Clips along time of a test that does not say how many.
        num_crops: Crops in space of a test.
        has_mask_window: AUG.MASK_WINDOW_SIZE is of its masks.
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
    """The recipe of images for clips of one frame, else that of videos.

    Args:
        cfg: configuration; it is only read.

    Raises:
        ValueError: a strength of jitter is below 0, or that of videos is asked of images.
    """
    return _of_images(cfg) if cfg.DATA.NUM_FRAMES == 1 else _of_videos(cfg)


def has_color_first(cfg: CfgNode) -> bool:
    """Whether predicted pixels have the order (color, row, column) and not colors last.

    That is the published order of images. It stands behind the configurations that know no
    MASK.TARGET, which are the published ones; where it is named there is one order for images and
    video.

    Args:
        cfg: configuration; it is only read.
    """
    return bool(cfg.MVIT.PATCH_2D and not cfg.MASK.TARGET)


def _of_images(cfg: CfgNode) -> ClipRecipe:
    aug = cfg.AUG
    if aug.ENABLE and aug.VIDEO_COLOR_JITTER:
        raise ValueError(
            f"AUG.VIDEO_COLOR_JITTER: {aug.VIDEO_COLOR_JITTER} is of videos; with "
            "DATA.NUM_FRAMES 1 AUG.COLOR_JITTER, without AUG.AA_TYPE, is right"
        )
    red, green, blue = (min(round(255 * value), 255) for value in cfg.DATA.MEAN)

    def short_side(crop_size: int) -> int:
        return max(math.floor(crop_size / cfg.DATA.IN_VAL_CROP_RATIO), crop_size)

    return ClipRecipe(
        interpolation="bilinear" if aug.INTERPOLATION == "bilinear" else "bicubic",
        antialias=True,
        default_area=(0.08, 1.0),
        augment_crop=True,
        fill=(red, green, blue),  # the data set's mean
        color_jitter=0.0 if aug.AA_TYPE else _strength("AUG.COLOR_JITTER", aug.COLOR_JITTER or 0.0),
        num_erase_tries=10,
        short_side=short_side,
        # The frames of all its views would be the same one.
        num_views=1,
        num_crops=1,
        has_mask_window=False,
    )


def _of_videos(cfg: CfgNode) -> ClipRecipe:
    aug = cfg.AUG

    def short_side(crop_size: int) -> int:
        return max(cfg.DATA.TRAIN_JITTER_SCALES[0], crop_size)

    return ClipRecipe(
        interpolation="bilinear",
        antialias=cfg.DATA.ANTIALIAS,
        default_area=None,
        augment_crop=False,
        fill=(128, 128, 128),
        color_jitter=_strength("AUG.VIDEO_COLOR_JITTER", aug.VIDEO_COLOR_JITTER),
        num_erase_tries=100,
        short_side=short_side,
        num_views=cfg.TEST.NUM_ENSEMBLE_VIEWS,
        num_crops=cfg.TEST.NUM_SPATIAL_CROPS,
        has_mask_window=True,
    )


def _strength(key: str, value: float) -> float:
    if value < 0:
        raise ValueError(f"{key}: {value} is wanted from 0 on")
    return value
