"""Configuration -> what changes training clips: cut, RandAugment, colors, erasing, mixing."""

from __future__ import annotations

from fvcore.common.config import CfgNode

from slowfast_maskfeat import distributed
from slowfast_maskfeat.augment import (
    ColorJitter,
    EraseSampler,
    Mix,
    RandAugment,
    TrainTransform,
    parse_policy,
)
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.datasets import reverses_channels
from slowfast_maskfeat.builders.image_recipe import ClipRecipe, clip_recipe
from slowfast_maskfeat.clips import BatchTransform, DeviceCut


def num_clips_per_row(cfg: CfgNode) -> int:
    """Training clips of each video that is drawn."""
    data = cfg.DATA
    return data.TRAIN_CROP_NUM_TEMPORAL * data.TRAIN_CROP_NUM_SPATIAL * cfg.AUG.NUM_SAMPLE


def build_train_transform(cfg: CfgNode) -> TrainTransform:
    """The cut of a training clip, with RandAugment and colors.

    Args:
        cfg: configuration; it is only read.

    Raises:
        ValueError: a range is malformed, or AUG.AA_TYPE is not known.
    """
    data = cfg.DATA
    recipe = clip_recipe(cfg)
    area = pair("DATA.TRAIN_JITTER_SCALES_RELATIVE", data.TRAIN_JITTER_SCALES_RELATIVE)
    aspect = pair("DATA.TRAIN_JITTER_ASPECT_RELATIVE", data.TRAIN_JITTER_ASPECT_RELATIVE)
    low, high = pair("DATA.TRAIN_JITTER_SCALES", data.TRAIN_JITTER_SCALES) or (256, 320)
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


def build_erase_sampler(cfg: CfgNode) -> EraseSampler | None:
    """What draws the rectangles of random erasing; None without it.

    Args:
        cfg: configuration; it is only read.
    """
    if not cfg.AUG.ENABLE or not cfg.AUG.RE_PROB:
        return None
    return EraseSampler(
        size=(cfg.DATA.TRAIN_CROP_SIZE, cfg.DATA.TRAIN_CROP_SIZE),
        probability=cfg.AUG.RE_PROB,
        max_count=cfg.AUG.RE_COUNT,
        num_tries=clip_recipe(cfg).num_erase_tries,
    )


def build_batch_transform(cfg: CfgNode, *, data: DataSource | None = None) -> BatchTransform | None:
    """What happens to whole training batches on the device; None where nothing does.

    Args:
        cfg: configuration; it is only read.
        data: the data of the run, with what was read of it before; None reads it afresh.

    Raises:
        ValueError: mixup is asked for without labels, or of single clips.
    """
    mix, cut = _mix(cfg, data or DataSource(cfg)), build_device_cut(cfg)
    if mix is None and cut is None and build_erase_sampler(cfg) is None:
        return None
    return BatchTransform(
        mean=cfg.DATA.MEAN,
        std=cfg.DATA.STD,
        cut=cut,
        erase_mode=cfg.AUG.RE_MODE,
        mix=mix,
        seed=cfg.RNG_SEED,
    )


def build_device_cut(cfg: CfgNode) -> DeviceCut | None:
    """What cuts the clips that workers hand over uncut; None where workers cut them.

    Args:
        cfg: configuration; it is only read.

    Raises:
        ValueError: the clips have boxes.
    """
    if not cfg.AUG.ON_DEVICE:
        return None
    if cfg.DETECTION.ENABLE:
        raise ValueError(
            "AUG.ON_DEVICE: workers cut the clips of a detection, whose boxes move with them; "
            "False is right"
        )
    transform = build_train_transform(cfg)
    return DeviceCut(
        crop_size=transform.crop_size,
        antialias=transform.antialias,
        interpolation=transform.interpolation,
        reverse_channels=reverses_channels(cfg, "train"),
    )


def _mix(cfg: CfgNode, data: DataSource) -> Mix | None:
    mixup = cfg.MIXUP
    if not mixup.ENABLE:
        return None
    if cfg.DETECTION.ENABLE:
        raise ValueError(
            "MIXUP.ENABLE: boxes have labels of their own, which can't be mixed as those of clips "
            "can; False is right"
        )
    if cfg.MASK.ENABLE:
        raise ValueError("MIXUP.ENABLE: pre-training has no labels to mix; False is right")
    if min(mixup.ALPHA, mixup.CUTMIX_ALPHA) < 0:
        raise ValueError(
            f"MIXUP.ALPHA, MIXUP.CUTMIX_ALPHA: {mixup.ALPHA} and {mixup.CUTMIX_ALPHA} are wanted "
            "from 0 on"
        )
    batch_size = cfg.TRAIN.BATCH_SIZE * cfg.NUM_SHARDS * num_clips_per_row(cfg)
    if mixup.PROB and batch_size // distributed.world_size() < 2:
        raise ValueError(
            f"MIXUP.ENABLE: clips are mixed with others of their batch, but TRAIN.BATCH_SIZE "
            f"{cfg.TRAIN.BATCH_SIZE} gives each of {distributed.world_size()} processes one; at "
            "least 2 each are right, or MIXUP.PROB 0, which smooths labels alone"
        )
    return Mix(
        num_classes=data.num_classes,
        mixup_alpha=mixup.ALPHA,
        cutmix_alpha=mixup.CUTMIX_ALPHA,
        probability=mixup.PROB,
        switch_probability=mixup.SWITCH_PROB,
        label_smoothing=mixup.LABEL_SMOOTH_VALUE,
    )


def _randaugment(cfg: CfgNode, recipe: ClipRecipe) -> RandAugment | None:
    if not cfg.AUG.ENABLE or not cfg.AUG.AA_TYPE:
        return None
    return parse_policy(cfg.AUG.AA_TYPE, interpolation=cfg.AUG.INTERPOLATION, fill=recipe.fill)


def _color_jitter(cfg: CfgNode, recipe: ClipRecipe) -> ColorJitter | None:
    if not cfg.AUG.ENABLE or not (recipe.color_jitter or cfg.AUG.GRAY_PROB):
        return None
    return ColorJitter(strength=recipe.color_jitter, gray_probability=cfg.AUG.GRAY_PROB)


def pair(key: str, values: list[float]) -> tuple[float, float] | None:
    """Two ascending numbers, or None for an empty list."""
    if not values:
        return None
    if len(values) != 2 or values[0] > values[1]:
        raise ValueError(f"{key}: {values}: two ascending numbers are wanted")
    return values[0], values[1]
