"""Configuration -> clips and loaders."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fvcore.common.config import CfgNode

from slowfast_maskfeat import distributed
from slowfast_maskfeat.augment import TestTransform, WholeFrameTransform
from slowfast_maskfeat.builders.augment import build_erase_sampler, build_train_transform
from slowfast_maskfeat.builders.datasets import (
    IMAGES_ONLY,
    READERS,
    SEGMENTED,
    WITH_BOXES,
    class_names,
    data_folder,
    data_set,
    find_reader,
    num_classes,
    reverses_channels,
    shard_patterns,
)
from slowfast_maskfeat.builders.image_recipe import clip_recipe
from slowfast_maskfeat.builders.masks import build_mask_sampler
from slowfast_maskfeat.clips import (
    ClipDataset,
    ClipLoader,
    KeyFrameView,
    MultiView,
    RandomFrames,
    RandomView,
    UniformViews,
    Views,
    ViewSpec,
)
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.files import is_address
from slowfast_maskfeat.masks import MaskSampler

__all__ = [
    "READERS",
    "build_key_frame_view",
    "build_loader",
    "build_random_frames",
    "build_test_views",
    "build_validation_view",
    "num_clips_per_video",
    "read_videos",
]


def build_loader(
    cfg: CfgNode,
    split: str,
    *,
    num_views: int | None = None,
    for_features: bool = False,
    view_specs: Sequence[ViewSpec] | None = None,
    mask_samplers: Sequence[MaskSampler | None] = (),
) -> ClipLoader:
    """Loader of this process's share of a list.

    Args:
        cfg: configuration; it is only read.
        split: "train", "val" (one center view of each video) or "test" (all views).
        num_views: clips along the time in "test", see `num_clips_of_tests`; None for
            TEST.NUM_ENSEMBLE_VIEWS of videos, 1 of images.
        for_features: "train" too gives the center view of each row once, in order, nothing is
            masked, and labels may be absent or of classes that the model does not know.
        view_specs: kinds of views of a sample in "train" and "val" (without `for_features`), for
            methods that take several; None for one view. Random erasing and mixup apply to samples
            of one view only.
        mask_samplers: with `view_specs`, the sampler of each kind; empty for no masks.

    Returns:
        The loader. Without `view_specs` masks come with the clips when MASK.ENABLE.

    Raises:
        ValueError: the list is missing, malformed or has labels outside the classes; AUG.ON_DEVICE
            with `view_specs`.
    """
    if split not in ("train", "val", "test"):
        raise ValueError(f"split: {split!r} is not one of 'train', 'val', 'test'")
    videos = read_videos(cfg, split, for_features=for_features)
    is_trained = split == "train" and not for_features
    if split == "test" or for_features:
        view_specs, mask_samplers = None, ()
    elif view_specs is None and cfg.MASK.ENABLE:
        mask_samplers = (build_mask_sampler(cfg),)
    views: Views
    if view_specs is not None:
        views = _multi_view(cfg, view_specs)
    elif data_set(cfg, split) in WITH_BOXES:
        views = build_key_frame_view(cfg, split)
    elif is_trained:
        views = _random_view(cfg)
    else:
        views = _uniform_views(cfg, split, num_views)
    has_one_view = [kind.views_per_sample for kind in views.kinds] == [1]
    dataset = ClipDataset(
        videos,
        views,
        mask_samplers=mask_samplers,
        erase_sampler=build_erase_sampler(cfg) if is_trained and has_one_view else None,
        seed=cfg.RNG_SEED,
        backend=cfg.DATA.DECODING_BACKEND,
        num_threads=cfg.DATA.DECODING_THREADS,
        replace_lost=is_trained,
        reverse_channels=reverses_channels(cfg, split),
        # Half of it: a server that stops sending is then left without ending a worker.
        read_timeout=cfg.DATA.DECODE_TIMEOUT / 2,
    )
    if is_trained:
        batch_size = cfg.TRAIN.BATCH_SIZE * cfg.NUM_SHARDS
        _check_batch_size(cfg, batch_size)
    else:
        num_clips = num_clips_per_video(cfg, split, num_views)
        rows = cfg.TEST.BATCH_SIZE * cfg.NUM_SHARDS // num_clips
        batch_size = max(rows, distributed.world_size())
    return ClipLoader(
        dataset,
        batch_size,
        shuffle=is_trained,
        seed=cfg.RNG_SEED,
        rank=distributed.rank(),
        world=distributed.world_size(),
        num_workers=cfg.DATA_LOADER.NUM_WORKERS,
        prefetch=cfg.DATA_LOADER.PREFETCH_FACTOR,
        decode_timeout=cfg.DATA.DECODE_TIMEOUT,
        pin_memory=cfg.DATA_LOADER.PIN_MEMORY
        and distributed.choose_device(cfg.NUM_GPUS).type == "cuda",
    )


def num_clips_per_video(cfg: CfgNode, split: str, num_views: int | None = None) -> int:
    """Views in time times crops in space: 1 in validation."""
    return _num_views(cfg, split, num_views) * num_crops(cfg, split)


def num_clips_of_tests(cfg: CfgNode) -> tuple[int, ...]:
    """Clips along the time of a video, a number for each test: `num_views` of a loader.

    Clips of one frame are images, of which one view is all; TEST.NUM_TEMPORAL_CLIPS takes several
    single frames of each video all the same.
    """
    if _has_one_view(cfg):
        return (1,)
    return tuple(cfg.TEST.NUM_TEMPORAL_CLIPS) or (clip_recipe(cfg).num_views,)


def num_crops(cfg: CfgNode, split: str) -> int:
    """Crops of each clip in space: 1 in validation."""
    return 1 if split != "test" or _has_one_view(cfg) else clip_recipe(cfg).num_crops


def _num_views(cfg: CfgNode, split: str, num_views: int | None) -> int:
    if split != "test" or _has_one_view(cfg):
        return 1
    return num_views or clip_recipe(cfg).num_views


def _has_one_view(cfg: CfgNode) -> bool:
    """Data sets of images alone and key frames with boxes have one view, whatever TEST says."""
    return cfg.TEST.DATASET in IMAGES_ONLY or cfg.DETECTION.ENABLE


def build_validation_view(cfg: CfgNode) -> UniformViews:
    """The center view of a validation, for a single video.

    Args:
        cfg: configuration; it is only read.
    """
    return _uniform_views(cfg, "val", None)


def build_test_views(cfg: CfgNode) -> UniformViews:
    """The views of a test, for a single video.

    Args:
        cfg: configuration; it is only read.
    """
    return _uniform_views(cfg, "test", None)


def read_videos(cfg: CfgNode, split: str, *, for_features: bool = False) -> VideoList:
    """The rows of a split, by the reader that TRAIN.DATASET or TEST.DATASET names.

    Args:
        cfg: configuration; it is only read.
        split: "train", "val" or "test".
        for_features: labels may be absent or of classes that the model does not know.

    Raises:
        MissingListError: there is nothing to read in DATA.PATH_TO_DATA_DIR.
        ValueError: what there is is malformed, or a label is outside the classes.
    """
    reader = find_reader(cfg, split)
    with_boxes = data_set(cfg, split) in WITH_BOXES
    if with_boxes != cfg.DETECTION.ENABLE:
        raise ValueError(
            f"DETECTION.ENABLE is {cfg.DETECTION.ENABLE} and the data set {data_set(cfg, split)!r} "
            f"(TRAIN.DATASET, TEST.DATASET): boxes come with {', '.join(map(repr, WITH_BOXES))}"
        )
    key = "AVA.ANNOTATION_DIR" if with_boxes and cfg.AVA.ANNOTATION_DIR else "DATA.PATH_TO_DATA_DIR"
    folder = data_folder(cfg).path
    if not folder and not shard_patterns(cfg)[split]:
        wanted = "the annotations" if with_boxes else "train.csv, val.csv and test.csv"
        raise ValueError(f"{key}: empty; the folder of {wanted} is wanted")
    if folder and not os.path.isdir(folder) and not is_address(folder):
        raise ValueError(f"{key}: {folder}: there is no such folder")
    videos = reader.read(data_folder(cfg), split, class_names(cfg) or None)
    if (not cfg.MASK.ENABLE or for_features) and not with_boxes:
        if videos.class_names is not None and not class_names(cfg):
            raise ValueError(
                f"{videos.source}: its labels are names, of which a list may lack some; write "
                f"those of all classes, one a line, into {os.path.join(folder, 'classes.txt')}"
            )
        if not for_features:
            _check_labels(cfg, videos)
    return videos


def _check_labels(cfg: CfgNode, videos: VideoList) -> None:
    if videos.labels is None:
        raise ValueError(
            f"{videos.source}: the rows have no labels; `path label` is wanted, or MASK.ENABLE True"
        )
    classes = num_classes(cfg)
    if len(videos) and videos.labels.max() >= classes:
        row = int(videos.labels.argmax())
        raise ValueError(
            f"{videos.source}: {videos.path(row)} has the label {videos.labels[row]}; with "
            f"{classes} classes (MODEL.NUM_CLASSES) labels go from 0 to {classes - 1}"
        )


def _check_batch_size(cfg: CfgNode, batch_size: int) -> None:
    world = distributed.world_size()
    parts = world * cfg.TRAIN.ACCUMULATION_STEPS
    if batch_size % parts:
        raise ValueError(
            f"TRAIN.BATCH_SIZE: {batch_size} clips of a step can't be shared equally by {world} "
            f"processes in {cfg.TRAIN.ACCUMULATION_STEPS} parts (TRAIN.ACCUMULATION_STEPS)"
        )


def build_random_frames(cfg: CfgNode) -> RandomFrames:
    """Build the random temporal sampling of training clips.

    Args:
        cfg: configuration; it is only read.
    """
    data = cfg.DATA
    return RandomFrames(
        sampling_rate=data.SAMPLING_RATE,
        target_fps=data.TARGET_FPS,
        jitter_fps=data.TRAIN_JITTER_FPS,
        segments=data_set(cfg, "train") in SEGMENTED,
    )


def _multi_view(cfg: CfgNode, specs: Sequence[ViewSpec]) -> MultiView:
    if cfg.AUG.ON_DEVICE:
        raise ValueError(
            "AUG.ON_DEVICE must be False with a method that takes several views of a sample, got "
            "True: workers crop them"
        )
    return MultiView(tuple(specs))


def _random_view(cfg: CfgNode) -> RandomView:
    data = cfg.DATA
    return RandomView(
        transform=build_train_transform(cfg),
        num_frames=data.NUM_FRAMES,
        temporal=build_random_frames(cfg),
        num_times=data.TRAIN_CROP_NUM_TEMPORAL,
        num_samples=data.TRAIN_CROP_NUM_SPATIAL * cfg.AUG.NUM_SAMPLE,
        on_device=cfg.AUG.ON_DEVICE,
    )


def build_key_frame_view(cfg: CfgNode, split: str) -> KeyFrameView:
    """Build the view of key frames.

    Training crops boxes with the frames; evaluation takes whole frames, so that no box is lost.

    Args:
        cfg: configuration; it is only read.
        split: "train", "val" or "test".
    """
    data = cfg.DATA
    crop_size = data.TEST_CROP_SIZE if split == "test" else data.TRAIN_CROP_SIZE
    is_training = split == "train"
    whole = WholeFrameTransform(
        short_side=crop_size,
        flip=cfg.AVA.TEST_FORCE_FLIP,
        antialias=data.ANTIALIAS,
        interpolation=clip_recipe(cfg).interpolation,
    )
    return KeyFrameView(
        transform=build_train_transform(cfg) if is_training else whole,
        crop_size=crop_size,
        num_frames=data.NUM_FRAMES,
        sampling_rate=data.SAMPLING_RATE,
        target_fps=data.TARGET_FPS,
        num_samples=cfg.AUG.NUM_SAMPLE if is_training else 1,
        keep_all=not is_training,
    )


def _uniform_views(cfg: CfgNode, split: str, num_views: int | None) -> UniformViews:
    data = cfg.DATA
    crops = num_crops(cfg, split)
    views = _num_views(cfg, split, num_views)
    segments = data_set(cfg, split) in SEGMENTED
    if segments and views > 1:
        raise ValueError(
            f"TEST.NUM_ENSEMBLE_VIEWS, TEST.NUM_TEMPORAL_CLIPS: {views}: clips of "
            f"{data_set(cfg, split)} have a frame of each part of the video, so that there is 1"
        )
    # Validation sees clips of the training's size: the model may have no other positions.
    crop_size = data.TEST_CROP_SIZE if split == "test" else data.TRAIN_CROP_SIZE
    recipe = clip_recipe(cfg)
    transform = TestTransform(
        crop_size=crop_size,
        short_side=crop_size if crops == 3 else recipe.short_side(crop_size),
        num_crops=crops,
        antialias=recipe.antialias,
        interpolation=recipe.interpolation,
    )
    return UniformViews(
        transform=transform,
        num_frames=data.NUM_FRAMES,
        sampling_rate=data.SAMPLING_RATE,
        target_fps=data.TARGET_FPS,
        num_views=views,
        use_offset=data.USE_OFFSET_SAMPLING or split != "test",
        segments=segments,
    )
