"""Builders of training augmentation of batches: erasing, mixing, and crops on the device."""

from __future__ import annotations

from fvcore.common.config import CfgNode

from slowfast_maskfeat import distributed
from slowfast_maskfeat.augment import EraseSampler, Mix
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.datasets import reverses_channels
from slowfast_maskfeat.builders.image_recipe import clip_recipe
from slowfast_maskfeat.builders.methods import find_method, method_name
from slowfast_maskfeat.builders.train_view import build_train_transform
from slowfast_maskfeat.clips import BatchTransform, DeviceCrop


def num_clips_per_row(cfg: CfgNode) -> int:
    """Return the number of training clips per sampled video."""
    data = cfg.DATA
    return data.TRAIN_CROP_NUM_TEMPORAL * data.TRAIN_CROP_NUM_SPATIAL * cfg.AUG.NUM_SAMPLE


def build_erase_sampler(cfg: CfgNode) -> EraseSampler | None:
    """Build the sampler of random erasing; None if it is disabled.

    Args:
        cfg: configuration; not modified.
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
    """Build the transform of whole training batches on the device; None if nothing applies.

    Args:
        cfg: configuration; not modified.
        data: the run's data source, which caches files; None reads them again.

    Raises:
        ValueError: MIXUP.ENABLE without labels, with boxes, or with fewer than 2 clips per process.
    """
    mix, crops = _mix(cfg, data or DataSource(cfg)), build_device_crops(cfg)
    if mix is None and not crops and build_erase_sampler(cfg) is None:
        return None
    return BatchTransform(
        mean=cfg.DATA.MEAN,
        std=cfg.DATA.STD,
        crops=crops,
        erase_mode=cfg.AUG.RE_MODE,
        mix=mix,
        seed=cfg.RNG_SEED,
    )


def build_device_crops(cfg: CfgNode) -> tuple[DeviceCrop, ...]:
    """Build the crop of each kind of views that runs on the device (AUG.ON_DEVICE).

    Args:
        cfg: configuration; not modified.

    Returns:
        A crop for each kind, in the order of `ClipBatch.views`; empty if workers crop.

    Raises:
        ValueError: the clips have boxes.
    """
    if not cfg.AUG.ON_DEVICE:
        return ()
    method = find_method(cfg)
    if method.has_boxes:
        raise ValueError(
            "AUG.ON_DEVICE must be False for detection, got True: workers crop clips together with "
            "their boxes"
        )
    specs = method.views(cfg)
    transforms = [spec.augmentation for spec in specs] or [build_train_transform(cfg)]
    reverses = reverses_channels(cfg, "train")
    return tuple(DeviceCrop.of(transform, reverse_channels=reverses) for transform in transforms)


def _mix(cfg: CfgNode, data: DataSource) -> Mix | None:
    mixup = cfg.MIXUP
    if not mixup.ENABLE:
        return None
    if not find_method(cfg).has_labels:
        raise ValueError(
            f"MIXUP.ENABLE must be False for {method_name(cfg)}, which uses no labels, got True"
        )
    if min(mixup.ALPHA, mixup.CUTMIX_ALPHA) < 0:
        raise ValueError(
            "MIXUP.ALPHA and MIXUP.CUTMIX_ALPHA must be >= 0, got "
            f"{mixup.ALPHA} and {mixup.CUTMIX_ALPHA}"
        )
    batch_size = cfg.TRAIN.BATCH_SIZE * cfg.NUM_SHARDS * num_clips_per_row(cfg)
    if mixup.PROB and batch_size // distributed.world_size() < 2:
        raise ValueError(
            "TRAIN.BATCH_SIZE must give each process at least 2 clips with MIXUP.ENABLE, got "
            f"{cfg.TRAIN.BATCH_SIZE} for {distributed.world_size()} processes; MIXUP.PROB 0 "
            "smooths labels without mixup and cutmix"
        )
    return Mix(
        num_classes=data.num_classes,
        mixup_alpha=mixup.ALPHA,
        cutmix_alpha=mixup.CUTMIX_ALPHA,
        probability=mixup.PROB,
        switch_probability=mixup.SWITCH_PROB,
        label_smoothing=mixup.LABEL_SMOOTH_VALUE,
    )
