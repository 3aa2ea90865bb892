"""Configuration -> masks, clips and loaders."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial

import numpy as np
from fvcore.common.config import CfgNode
from torch import Tensor

from slowfast_maskfeat.build.augment import (
    build_erase_sampler,
    build_train_transform,
    is_image_data,
    resize_interpolation,
)
from slowfast_maskfeat.build.classes import class_names, num_classes
from slowfast_maskfeat.build.model import prediction_grids
from slowfast_maskfeat.build.readers import (
    READERS,
    SEGMENTED,
    WITH_BOXES,
    data_folder,
    data_set,
    find_reader,
    reverses_channels,
    shard_patterns,
)
from slowfast_maskfeat.clips import (
    ClipDataset,
    ClipLoader,
    KeyFrameView,
    RandomView,
    TestTransform,
    UniformViews,
    WholeFrameTransform,
)
from slowfast_maskfeat.engine import distributed
from slowfast_maskfeat.files import is_address
from slowfast_maskfeat.masks import block_mask, cube_mask, frame_mask, random_mask, tube_mask
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.videos.index import VideoList

__all__ = [
    "READERS",
    "build_key_frame_view",
    "build_loader",
    "build_mask_sampler",
    "build_test_views",
    "build_validation_view",
    "mask_grid",
    "num_clips_per_video",
    "read_videos",
]

MaskSampler = Callable[[np.random.Generator], Tensor]


def build_mask_sampler(cfg: CfgNode) -> MaskSampler:
    """What draws the masks of pre-training.

    Args:
        cfg: configuration; it is only read.

    Returns:
        sampler(generator) -> bool (t, h, w), True where masked.

    Raises:
        ValueError: AUG.MASK_WINDOW_SIZE contradicts the model, the ratio can't be masked, or
            MASK.MAE_ON meets masks that hide more of one clip than of another, or all of it.
    """
    grid, ratio = mask_grid(cfg), cfg.AUG.MASK_RATIO
    if not 0 < ratio < 1:
        raise ValueError(f"AUG.MASK_RATIO: {ratio} is wanted between 0 and 1; MaskFeat has 0.4")
    sampler, is_exact = _mask_sampler(cfg, grid, ratio)
    if cfg.MASK.MAE_ON and not is_exact:
        raise ValueError(
            "MASK.MAE_ON: the encoder takes the same number of visible tokens of every clip, but "
            "masks made of boxes differ in size; set MASK.MAE_RND_MASK True (with AUG.MASK_TUBE "
            "or MASK.PER_FRAME_MASKING, if wanted), or AUG.MASK_FRAMES True"
        )
    if cfg.MASK.MAE_ON and bool(sampler(np.random.default_rng(0)).all()):
        raise ValueError(
            f"AUG.MASK_RATIO: {ratio} of {grid} tokens leaves none that the encoder of "
            "MASK.MAE_ON could see; a smaller one does"
        )
    return sampler


def _mask_sampler(cfg: CfgNode, grid: Grid, ratio: float) -> tuple[MaskSampler, bool]:
    """The sampler that the configuration names, and whether it always hides the same number."""
    block = tuple(cfg.MASK.RANDOM_BLOCK)
    if block and not cfg.MASK.MAE_RND_MASK:
        raise ValueError(f"MASK.RANDOM_BLOCK: {block} is of random masks: MASK.MAE_RND_MASK True")
    if cfg.MASK.MAE_RND_MASK:
        return _random_sampler(cfg, grid, ratio, block or (1, 1, 1)), True
    if grid.t == 1:
        max_block = cfg.AUG.MAX_MASK_PATCHES_PER_BLOCK
        return partial(block_mask, grid, ratio, max_block=max_block), False
    if cfg.AUG.MASK_TUBE:
        return partial(tube_mask, grid, ratio), False
    if cfg.AUG.MASK_FRAMES:
        return partial(frame_mask, grid, ratio), True
    return partial(cube_mask, grid, ratio), False


def _random_sampler(cfg: CfgNode, grid: Grid, ratio: float, block: tuple[int, ...]) -> MaskSampler:
    if len(block) != 3:
        raise ValueError(f"MASK.RANDOM_BLOCK: {list(block)}: (t, h, w) in tokens is wanted")
    tube, per_frame = cfg.AUG.MASK_TUBE, cfg.MASK.PER_FRAME_MASKING
    try:
        random_mask(grid, ratio, np.random.default_rng(0), block=block)
    except ValueError as error:
        raise ValueError(f"MASK.RANDOM_BLOCK: {error}") from error
    return partial(random_mask, grid, ratio, tube=tube, per_frame=per_frame, block=block)


def mask_grid(cfg: CfgNode) -> Grid:
    """The grid of the masks: AUG.MASK_WINDOW_SIZE, or that of the last prediction.

    Random masks (MASK.MAE_RND_MASK) are of single tokens, whatever the window, as published.

    Raises:
        ValueError: AUG.MASK_WINDOW_SIZE does not divide the grids of the predictions, or these do
            not cover the clips.
    """
    grids = prediction_grids(cfg)
    window = cfg.AUG.MASK_WINDOW_SIZE
    # The published files for images leave the default window of video in; it is not meant there.
    if not window or grids[-1].t == 1:
        return grids[-1]
    if len(window) == 2:
        window = [grids[-1].t, *window]
    if len(window) != 3 or min(window) < 1:
        raise ValueError(f"AUG.MASK_WINDOW_SIZE: {window}: (t, h, w) is wanted")
    grid = Grid(*window)
    for predicted in grids:
        if not grid.divides(predicted):
            raise ValueError(
                f"AUG.MASK_WINDOW_SIZE: masks of {grid} do not divide the {predicted} tokens that "
                f"the model predicts for clips of {cfg.DATA.NUM_FRAMES} frames of "
                f"{cfg.DATA.TRAIN_CROP_SIZE} pixels; leave it empty to derive it"
            )
    return grids[-1] if cfg.MASK.MAE_RND_MASK else grid


def build_loader(
    cfg: CfgNode, split: str, *, num_views: int | None = None, for_features: bool = False
) -> ClipLoader:
    """Loader of this process's share of a list.

    Args:
        cfg: configuration; it is only read.
        split: "train", "val" (one centre view of each video) or "test" (all views).
        num_views: clips along the time in "test", see `num_clips_of_tests`; None for
            TEST.NUM_ENSEMBLE_VIEWS.
        for_features: "train" too gives the centre view of each row once, in order, nothing is
            masked, and labels may be absent or of classes that the model does not know.

    Returns:
        The loader. Masks come with the clips when MASK.ENABLE.

    Raises:
        ValueError: the list is missing, malformed or has labels outside the classes.
    """
    if split not in ("train", "val", "test"):
        raise ValueError(f"split: {split!r} is not one of 'train', 'val', 'test'")
    videos = read_videos(cfg, split, for_features=for_features)
    is_trained = split == "train" and not for_features
    is_masked = cfg.MASK.ENABLE and split != "test" and not for_features
    views: RandomView | UniformViews | KeyFrameView
    if data_set(cfg, split) in WITH_BOXES:
        views = build_key_frame_view(cfg, split)
    elif is_trained:
        views = _random_view(cfg)
    else:
        views = _uniform_views(cfg, split, num_views)
    dataset = ClipDataset(
        videos,
        views,
        mask_sampler=build_mask_sampler(cfg) if is_masked else None,
        erase_sampler=build_erase_sampler(cfg) if is_trained else None,
        seed=cfg.RNG_SEED,
        backend=cfg.DATA.DECODING_BACKEND.replace("torchvision", "auto"),
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
    """Clips along the time of a video, a number for each test: `num_views` of a loader."""
    if _is_tested_once(cfg):
        return (1,)
    return tuple(cfg.TEST.NUM_TEMPORAL_CLIPS) or (cfg.TEST.NUM_ENSEMBLE_VIEWS,)


def num_crops(cfg: CfgNode, split: str) -> int:
    """Crops of each clip in space: 1 in validation."""
    return 1 if split != "test" or _is_tested_once(cfg) else cfg.TEST.NUM_SPATIAL_CROPS


def _num_views(cfg: CfgNode, split: str, num_views: int | None) -> int:
    if split != "test" or _is_tested_once(cfg):
        return 1
    return num_views or cfg.TEST.NUM_ENSEMBLE_VIEWS


def _is_tested_once(cfg: CfgNode) -> bool:
    """Pictures of ImageNet and key frames with boxes have one centre view, whatever TEST says."""
    return cfg.TEST.DATASET == "imagenet" or cfg.DETECTION.ENABLE


def build_validation_view(cfg: CfgNode) -> UniformViews:
    """The centre view of a validation, for a single video.

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


def _random_view(cfg: CfgNode) -> RandomView:
    data = cfg.DATA
    return RandomView(
        transform=build_train_transform(cfg),
        num_frames=data.NUM_FRAMES,
        sampling_rate=data.SAMPLING_RATE,
        target_fps=data.TARGET_FPS,
        jitter_fps=data.TRAIN_JITTER_FPS,
        segments=data_set(cfg, "train") in SEGMENTED,
        num_times=data.TRAIN_CROP_NUM_TEMPORAL,
        num_samples=data.TRAIN_CROP_NUM_SPATIAL * cfg.AUG.NUM_SAMPLE,
        on_device=cfg.AUG.ON_DEVICE,
    )


def build_key_frame_view(cfg: CfgNode, split: str) -> KeyFrameView:
    """What is cut about a key frame.

    Training cuts boxes as it cuts frames; otherwise frames are whole, so that no box is lost.

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
        interpolation=resize_interpolation(cfg),
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
    short_side = max(data.TRAIN_JITTER_SCALES[0], crop_size)
    if is_image_data(cfg):
        short_side = max(math.floor(crop_size / data.IN_VAL_CROP_RATIO), crop_size)
    transform = TestTransform(
        crop_size=crop_size,
        short_side=crop_size if crops == 3 else short_side,
        num_crops=crops,
        antialias=data.ANTIALIAS or is_image_data(cfg),
        interpolation=resize_interpolation(cfg),
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
