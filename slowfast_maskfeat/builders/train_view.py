"""Builders of a training view: its frames, crop, RandAugment and colors."""

from __future__ import annotations

from fvcore.common.config import CfgNode

from slowfast_maskfeat.augment import ColorRecipe, RandAugment, TrainTransform, parse_policy
from slowfast_maskfeat.builders.datasets import dataset_kind
from slowfast_maskfeat.builders.image_recipe import ClipRecipe, clip_recipe
from slowfast_maskfeat.clips import RandomFrames, ViewSpec

# Of DATA.SSL_MOCOV2_AUG, in PySlowFast's, MoCo's, BYOL's and DINO's code.
_MOCOV2_JITTER_PROBABILITY = 0.8


def build_train_transform(cfg: CfgNode) -> TrainTransform:
    """Build the crop of a training clip, with RandAugment and color operations.

    Args:
        cfg: configuration; not modified.

    Raises:
        ValueError: a range is malformed, or AUG.AA_TYPE is not a RandAugment policy.
    """
    data = cfg.DATA
    recipe = clip_recipe(cfg)
    area = pair_of_key("DATA.TRAIN_JITTER_SCALES_RELATIVE", data.TRAIN_JITTER_SCALES_RELATIVE)
    aspect = pair_of_key("DATA.TRAIN_JITTER_ASPECT_RELATIVE", data.TRAIN_JITTER_ASPECT_RELATIVE)
    low, high = pair_of_key("DATA.TRAIN_JITTER_SCALES", data.TRAIN_JITTER_SCALES) or (256, 320)
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
        colors=_colors(cfg, recipe),
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


def _colors(cfg: CfgNode, recipe: ClipRecipe) -> ColorRecipe | None:
    strength = recipe.color_jitter if cfg.AUG.ENABLE else 0.0
    if not cfg.DATA.SSL_COLOR_JITTER:
        colors = ColorRecipe(
            brightness=strength,
            contrast=strength,
            saturation=strength,
            difference_probability=_difference_probability(cfg),
        )
        return None if colors == ColorRecipe() else colors
    if strength:
        raise ValueError(
            f"AUG.COLOR_JITTER must be null with DATA.SSL_COLOR_JITTER True, got {strength}"
        )
    return build_color_recipe(cfg)


def build_color_recipe(
    cfg: CfgNode,
    *,
    blur_probability: float | None = None,
    solarize_probability: float | None = None,
) -> ColorRecipe:
    """Build the color recipe of a view of self-supervised methods (DATA.SSL_COLOR_JITTER).

    Args:
        cfg: configuration; not modified.
        blur_probability: of this view; None for the first of DATA.SSL_BLUR_PROB.
        solarize_probability: likewise, of DATA.SSL_SOLARIZE_PROB.

    Raises:
        ValueError: keys of DATA.SSL_* are out of range.
    """
    data = cfg.DATA
    low, high = data.SSL_BLUR_SIGMA_MIN, data.SSL_BLUR_SIGMA_MAX
    if low[0] or high[0]:
        raise ValueError(
            "DATA.SSL_BLUR_SIGMA_MIN and SSL_BLUR_SIGMA_MAX must begin with 0, the deviation in "
            f"time, along which clips are not blurred, got {low} and {high}"
        )
    if low[1] > high[1]:
        raise ValueError(
            f"DATA.SSL_BLUR_SIGMA_MIN must not exceed SSL_BLUR_SIGMA_MAX, got {low} and {high}"
        )
    brightness, contrast, saturation = data.SSL_COLOR_BRI_CON_SAT
    for key in ("SSL_BLUR_PROB", "SSL_SOLARIZE_PROB"):
        if not data[key]:
            raise ValueError(f"DATA.{key} must have at least one probability, got []")
    if blur_probability is None:
        blur_probability = data.SSL_BLUR_PROB[0]
    if solarize_probability is None:
        solarize_probability = data.SSL_SOLARIZE_PROB[0]
    is_mocov2 = data.SSL_MOCOV2_AUG
    return ColorRecipe(
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=data.SSL_COLOR_HUE,
        form=data.SSL_COLOR_FORM,
        jitter_probability=_MOCOV2_JITTER_PROBABILITY if is_mocov2 else 1.0,
        gray_probability=data.COLOR_RND_GRAYSCALE,
        blur_probability=blur_probability if is_mocov2 else 0.0,
        blur_sigma=(low[1], high[1]),
        solarize_probability=solarize_probability if is_mocov2 else 0.0,
        difference_probability=_difference_probability(cfg),
    )


def _difference_probability(cfg: CfgNode) -> float:
    return float(cfg.DATA.TIME_DIFF_PROB) if cfg.DATA.NUM_FRAMES > 1 else 0.0


def pair_of_key(key: str, values: list[float]) -> tuple[float, float] | None:
    """Return the two ascending numbers of a key, or None if its list is empty.

    Raises:
        ValueError: they are not two, or descending.
    """
    if not values:
        return None
    if len(values) != 2 or values[0] > values[1]:
        raise ValueError(f"{key} must be two ascending numbers or empty, got {values}")
    return values[0], values[1]
