"""Builders of views, datasets and loaders."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

from fvcore.common.config import CfgNode

from slowfast_maskfeat import distributed
from slowfast_maskfeat.augment import TestTransform, WholeFrameTransform
from slowfast_maskfeat.builders.augment import build_erase_sampler
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.datasets import (
    data_set,
    dataset_kind,
    reverses_channels,
)
from slowfast_maskfeat.builders.image_recipe import clip_recipe
from slowfast_maskfeat.builders.label_maps import build_label_maps
from slowfast_maskfeat.builders.methods import find_method, method_name
from slowfast_maskfeat.builders.task import takes_label_sets
from slowfast_maskfeat.builders.train_view import build_random_frames, build_train_transform
from slowfast_maskfeat.clips import (
    ClipDataset,
    ClipLoader,
    KeyFrameView,
    MultiView,
    RandomView,
    UniformViews,
    Views,
    ViewSpec,
)
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.videos.decode_options import DecodeOptions

__all__ = [
    "build_feature_loader",
    "build_key_frame_view",
    "build_loader",
    "build_prediction_loader",
    "build_test_views",
    "build_validation_view",
    "clip_seconds",
    "clips_at_once",
    "num_clips_per_video",
    "read_videos",
]


def build_loader(
    cfg: CfgNode,
    split: str,
    *,
    num_views: int | None = None,
    data: DataSource | None = None,
) -> ClipLoader:
    """Build the loader of this process's part of a split.

    Args:
        cfg: configuration; not modified.
        split: "train", "val" (one center view of each video) or "test" (all views).
        num_views: temporal views in "test"; None for the last of `num_clips_of_tests`.
        data: the run's data source, which caches files; None reads them again.

    Returns:
        The loader. "train" and "val" use the views and masks of the training method; random erasing
        and mixup apply only to samples with one view.

    Raises:
        ValueError: the annotation file is missing, malformed or has labels outside the classes; or
            the label maps of a method that reads them do not fit the images, see
            `build_label_maps`.
    """
    if split not in ("train", "val", "test"):
        raise ValueError(f"split must be 'train', 'val' or 'test', got {split!r}")
    data = data or DataSource(cfg)
    videos = read_videos(cfg, split, data)
    is_trained = split == "train"
    method = None if split == "test" else find_method(cfg)
    views: Views
    if method is not None and (specs := method.views(cfg)):
        views = _multi_view(cfg, specs, counts_crops=method.counts_crops, is_trained=is_trained)
    elif dataset_kind(cfg, split).has_boxes:
        views = build_key_frame_view(cfg, split)
    else:
        views = _random_view(cfg) if is_trained else _uniform_views(cfg, split, num_views)
    maps = "" if method is None else method.label_maps(cfg)
    has_one_view = [kind.views_per_sample for kind in views.kinds] == [1]
    dataset = ClipDataset(
        videos,
        views,
        mask_samplers=() if method is None else method.masks(cfg),
        erase_sampler=build_erase_sampler(cfg) if is_trained and has_one_view else None,
        seed=cfg.RNG_SEED,
        replace_lost=is_trained,
        label_maps=build_label_maps(cfg, maps, videos, split) if maps else None,
        num_classes=data.num_classes,
        reverse_channels=reverses_channels(cfg, split),
        decoding=_decoding(cfg),
    )
    num_clips = num_clips_per_video(cfg, split, num_views)
    batch_size = _train_batch_size(cfg) if is_trained else _test_batch_size(cfg, num_clips)
    return _loader_of_process(cfg, dataset, batch_size, shuffle=is_trained)


def build_feature_loader(
    cfg: CfgNode, split: str, *, data: DataSource, videos: VideoList | None = None
) -> ClipLoader:
    """Build the loader of this process's part of the samples whose features are taken.

    Every sample comes once, in order, without masks.

    Args:
        cfg: configuration; not modified.
        split: whose views: all of the test, else the center view.
        data: the run's data source.
        videos: the samples; None: those of the split, whose labels may be absent or outside the
            model's classes.

    Raises:
        ValueError: see `read_videos`.
    """
    dataset = ClipDataset(
        read_videos(cfg, split, data, for_features=True) if videos is None else videos,
        _uniform_views(cfg, split, None),
        seed=cfg.RNG_SEED,
        reverse_channels=reverses_channels(cfg, split),
        decoding=_decoding(cfg),
    )
    batch_size = _test_batch_size(cfg, num_clips_per_video(cfg, split))
    return _loader_of_process(cfg, dataset, batch_size, shuffle=False)


def _loader_of_process(
    cfg: CfgNode, dataset: ClipDataset, batch_size: int, *, shuffle: bool
) -> ClipLoader:
    return ClipLoader(
        dataset,
        batch_size,
        shuffle=shuffle,
        seed=cfg.RNG_SEED,
        rank=distributed.rank(),
        world=distributed.world_size(),
        num_workers=cfg.DATA_LOADER.NUM_WORKERS,
        prefetch=cfg.DATA_LOADER.PREFETCH_FACTOR,
        decode_timeout=cfg.DATA.DECODE_TIMEOUT,
        pin_memory=cfg.DATA_LOADER.PIN_MEMORY
        and distributed.choose_device(cfg.NUM_GPUS).type == "cuda",
    )


def build_prediction_loader(cfg: CfgNode, videos: VideoList, split: str = "test") -> ClipLoader:
    """Build the loader of samples without labels, in one process.

    Args:
        cfg: configuration of a clip classifier; not modified.
        videos: samples.
        split: whose views: "test", all views of the test, or "val", the center view.
    """
    return ClipLoader(
        ClipDataset(
            videos,
            _uniform_views(cfg, split, None),
            reverse_channels=reverses_channels(cfg, split),
            decoding=_decoding(cfg),
        ),
        max(cfg.TEST.BATCH_SIZE // num_clips_per_video(cfg, split), 1),
        shuffle=False,
        num_workers=min(cfg.DATA_LOADER.NUM_WORKERS, len(videos) - 1),  # none for a single video
        prefetch=cfg.DATA_LOADER.PREFETCH_FACTOR,
        decode_timeout=cfg.DATA.DECODE_TIMEOUT,
    )


def _decoding(cfg: CfgNode) -> DecodeOptions:
    return DecodeOptions(
        backend=cfg.DATA.DECODING_BACKEND,
        num_threads=cfg.DATA.DECODING_THREADS,
        # Half of the timeout: a server that stops sending fails before its worker is terminated.
        read_timeout=cfg.DATA.DECODE_TIMEOUT / 2,
        max_image_pixels=cfg.DATA.MAX_IMAGE_PIXELS,
    )


def _train_batch_size(cfg: CfgNode) -> int:
    """Return the samples of a step, of all processes."""
    batch_size: int = cfg.TRAIN.BATCH_SIZE * cfg.NUM_SHARDS
    _check_batch_size(cfg, batch_size)
    return batch_size


def _test_batch_size(cfg: CfgNode, num_clips: int) -> int:
    """Return the number of samples, of `num_clips` clips each, that all processes read at once."""
    rows = cfg.TEST.BATCH_SIZE * cfg.NUM_SHARDS // num_clips
    return int(max(rows, distributed.world_size()))


def clips_at_once(cfg: CfgNode) -> int:
    """Return how many clips a process evaluates in one pass, however many a sample has."""
    return int(max(cfg.TEST.BATCH_SIZE * cfg.NUM_SHARDS // distributed.world_size(), 1))


def num_clips_per_video(cfg: CfgNode, split: str, num_views: int | None = None) -> int:
    """Return the temporal views times spatial crops of a video: 1 in validation."""
    return _num_views(cfg, split, num_views) * num_crops(cfg, split)


def clip_seconds(cfg: CfgNode, split: str) -> float:
    """Return the seconds that a clip spans; 0 if it spans the whole video, however long."""
    if dataset_kind(cfg, split).segmented:
        return 0.0
    return float(cfg.DATA.NUM_FRAMES * cfg.DATA.SAMPLING_RATE / cfg.DATA.TARGET_FPS)


def num_clips_of_tests(cfg: CfgNode) -> tuple[int, ...]:
    """Return the temporal views of each test, `num_views` of `build_loader`.

    Without tests, as in a prediction, the last of them count.

    Clips of one frame are images with one view by default, but TEST.NUM_TEMPORAL_CLIPS takes
    several single frames of each video even then.
    """
    if _has_one_view(cfg):
        return (1,)
    return tuple(cfg.TEST.NUM_TEMPORAL_CLIPS) or (clip_recipe(cfg).num_views,)


def num_crops(cfg: CfgNode, split: str) -> int:
    """Return the spatial crops of each clip: 1 in validation."""
    return 1 if split != "test" or _has_one_view(cfg) else clip_recipe(cfg).num_crops


def _num_views(cfg: CfgNode, split: str, num_views: int | None) -> int:
    if split != "test" or _has_one_view(cfg):
        return 1
    return num_views or num_clips_of_tests(cfg)[-1]


def _has_one_view(cfg: CfgNode) -> bool:
    """Whether a data set has one view regardless of the TEST keys: images only, or boxes."""
    kind = dataset_kind(cfg, "test")
    return kind.images_only or kind.has_boxes


def build_validation_view(cfg: CfgNode) -> UniformViews:
    """Build the center view of validation, for a single video.

    Args:
        cfg: configuration; not modified.
    """
    return _uniform_views(cfg, "val", None)


def build_test_views(cfg: CfgNode) -> UniformViews:
    """Build the views of a test, for a single video.

    Args:
        cfg: configuration; not modified.
    """
    return _uniform_views(cfg, "test", None)


def read_videos(
    cfg: CfgNode, split: str, data: DataSource, *, for_features: bool = False
) -> VideoList:
    """Read the samples of a split and check that they fit the training method.

    Args:
        cfg: configuration; not modified.
        split: "train", "val" or "test".
        data: the run's data source.
        for_features: labels may be absent or outside the model's classes.

    Raises:
        MissingListError: DATA.PATH_TO_DATA_DIR has no such split.
        ValueError: the files are malformed, a label is outside the classes, or the data set has
            boxes and the method does not use them, or the reverse.
    """
    has_boxes = dataset_kind(cfg, split).has_boxes
    if has_boxes != (not for_features and find_method(cfg).has_boxes):
        raise ValueError(
            f"{'TEST' if split == 'test' else 'TRAIN'}.DATASET must be a data set "
            f"{'without' if has_boxes else 'with'} boxes for "
            f"{'feature extraction' if for_features else method_name(cfg)}, got "
            f"{data_set(cfg, split)!r}"
        )
    videos = data.videos(split)
    if has_boxes or not (for_features or find_method(cfg).has_labels):
        return videos
    if videos.class_names is not None and not data.class_names:
        raise ValueError(
            f"{os.path.join(data.folder.path, 'classes.txt')} must hold the names of all classes, "
            f"one per line: the labels of {videos.source} are names, and a split may not contain "
            "all classes"
        )
    if not for_features:
        _check_labels(cfg, videos, data.num_classes)
    return videos


def _check_labels(cfg: CfgNode, videos: VideoList, num_classes: int) -> None:
    sets = videos.label_sets
    if sets is not None:
        if not takes_label_sets(cfg):
            raise ValueError(
                f"MODEL.LOSS_FUNC must be 'bce_logit' for {videos.source}, whose rows have several "
                f"labels, got {cfg.MODEL.LOSS_FUNC!r}; set MODEL.HEAD_ACT sigmoid with it"
            )
        if len(sets.numbers) and sets.numbers.max() >= num_classes:
            place = int(sets.numbers.argmax())
            raise ValueError(
                f"{videos.source}: labels must be in [0, {num_classes}) (MODEL.NUM_CLASSES), got "
                f"{sets.numbers[place]} for {videos.path(sets.row_of(place))}"
            )
        return
    if videos.labels is None:
        raise ValueError(
            f"{videos.source}: rows must be `path label` for {method_name(cfg)}, got paths without "
            "labels"
        )
    if len(videos) and videos.labels.max() >= num_classes:
        row = int(videos.labels.argmax())
        raise ValueError(
            f"{videos.source}: labels must be in [0, {num_classes}) (MODEL.NUM_CLASSES), got "
            f"{videos.labels[row]} for {videos.path(row)}"
        )


def _check_batch_size(cfg: CfgNode, batch_size: int) -> None:
    world = distributed.world_size()
    parts = world * cfg.TRAIN.ACCUMULATION_STEPS
    if batch_size % parts:
        raise ValueError(
            f"TRAIN.BATCH_SIZE times NUM_SHARDS must be a multiple of {world} processes times "
            f"TRAIN.ACCUMULATION_STEPS {cfg.TRAIN.ACCUMULATION_STEPS}, got {batch_size}"
        )


def _multi_view(
    cfg: CfgNode, specs: Sequence[ViewSpec], *, counts_crops: bool, is_trained: bool
) -> MultiView:
    single = {
        "MIXUP.ENABLE": (cfg.MIXUP.ENABLE, False),
        "AUG.NUM_SAMPLE": (cfg.AUG.NUM_SAMPLE, 1),
    }
    if not counts_crops:
        single["DATA.TRAIN_CROP_NUM_TEMPORAL"] = (cfg.DATA.TRAIN_CROP_NUM_TEMPORAL, 1)
        single["DATA.TRAIN_CROP_NUM_SPATIAL"] = (cfg.DATA.TRAIN_CROP_NUM_SPATIAL, 1)
    for key, (value, only) in single.items():
        if value != only:
            raise ValueError(
                f"{key} must be {only} for a method with several views per sample, got {value}"
            )
    if cfg.AUG.ENABLE and cfg.AUG.RE_PROB and sum(spec.count for spec in specs) > 1:
        warnings.warn(
            f"AUG.RE_PROB {cfg.AUG.RE_PROB} has no effect with several views of a sample",
            UserWarning,
            stacklevel=3,
        )
    return MultiView(tuple(specs), on_device=is_trained and cfg.AUG.ON_DEVICE)


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

    Training crops frames and boxes; evaluation uses whole frames, so that no box is lost.

    Args:
        cfg: configuration; not modified.
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
    segments = dataset_kind(cfg, split).segmented
    if segments and views > 1:
        raise ValueError(
            "TEST.NUM_ENSEMBLE_VIEWS and all of TEST.NUM_TEMPORAL_CLIPS must be 1 for "
            f"{data_set(cfg, split)}, whose clips span the whole video, got {views}"
        )
    # Validation uses the training crop size: the model may have no positions for other sizes.
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
