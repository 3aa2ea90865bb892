"""Builders of a training view: its frames, crop, RandAugment and colors."""

from __future__ import annotations

from fvcore.common.config import CfgNode

from slowfast_maskfeat.augment import ColorJitter, RandAugment, TrainTransform, parse_policy
from slowfast_maskfeat.builders.datasets import dataset_kind
from slowfast_maskfeat.builders.image_recipe import ClipRecipe, clip_recipe
from slowfast_maskfeat.clips import RandomFrames, ViewSpec


def build_train_transform(cfg: CfgNode) -> TrainTransform:
    """Build the crop of a training clip, with RandAugment and color operations.

    Args:
        cfg: configuration; not modified.

    Raises:
        ValueError: a range is malformed, or AUG.AA_TYPE is not a RandAugment policy.
    """
    data = cfg.DATA
    recipe = clip_recipe(cfg)
    area = _pair("DATA.TRAIN_JITTER_SCALES_RELATIVE", data.TRAIN_JITTER_SCALES_RELATIVE)
    aspect = _pair("DATA.TRAIN_JITTER_ASPECT_RELATIVE", data.TRAIN_JITTER_ASPECT_RELATIVE)
    low, high = _pair("DATA.TRAIN_JITTER_SCALES", data.TRAIN_JITTER_SCALES) or (256, 320)
    return TrainTransform(
        crop_size=data.TRAIN_CROP_SIZE,
        area=area or recipe.default_area,
        aspect=aspect or (3 / 4, 4 / 3),
        short_side=(round(low), round(high)),
        inverse_uniform=data.INV_UNIFORM_SAMPLE,
        flip=data.RANDOM_FLIP,
        antialias=recipe.antialias,
        interpolation=recipe.interpolation,
        randaugment=_randaugment(cfg, recipe),
        augment_crop=recipe.augment_crop,
        jitter=_color_jitter(cfg, recipe),
    )


def build_random_frames(cfg: CfgNode) -> RandomFrames:
    """Build the random temporal sampling of training clips.

    Args:
        cfg: configuration; not modified.
    """
    data = cfg.DATA
    return RandomFrames(
        sampling_rate=data.SAMPLING_RATE,
        target_fps=data.TARGET_FPS,
        jitter_fps=data.TRAIN_JITTER_FPS,
        segments=dataset_kind(cfg, "train").segmented,
    )


def build_view_spec(cfg: CfgNode) -> ViewSpec:
    """Build the one view of most methods as a specification, for methods that add others.

    Args:
        cfg: configuration; not modified.
    """
    return ViewSpec(
        augmentation=build_train_transform(cfg),
        crop_size=cfg.DATA.TRAIN_CROP_SIZE,
        num_frames=cfg.DATA.NUM_FRAMES,
        temporal=build_random_frames(cfg),
    )


def _randaugment(cfg: CfgNode, recipe: ClipRecipe) -> RandAugment | None:
    if not cfg.AUG.ENABLE or not cfg.AUG.AA_TYPE:
        return None
    return parse_policy(cfg.AUG.AA_TYPE, interpolation=cfg.AUG.INTERPOLATION, fill=recipe.fill)


def _color_jitter(cfg: CfgNode, recipe: ClipRecipe) -> ColorJitter | None:
    if not cfg.AUG.ENABLE or not (recipe.color_jitter or cfg.AUG.GRAY_PROB):
        return None
    return ColorJitter(strength=recipe.color_jitter, gray_probability=cfg.AUG.GRAY_PROB)


def _pair(key: str, values: list[float]) -> tuple[float, float] | None:
    """Return two ascending numbers, or None for an empty list."""
    if not values:
        return None
    if len(values) != 2 or values[0] > values[1]:
        raise ValueError(f"{key} must be two ascending numbers or empty, got {values}")
    return values[0], values[1]
