"""Location and reader of a data set."""

from __future__ import annotations

import os
from functools import partial

from fvcore.common.config import CfgNode

from slowfast_maskfeat import datasets as index
from slowfast_maskfeat import distributed
from slowfast_maskfeat.datasets import (
    AvaFolder,
    AvaMedia,
    DataFolder,
    DataSetKind,
    Shards,
    VideoList,
    find_dataset,
)
from slowfast_maskfeat.log import Progress


def data_set(cfg: CfgNode, split: str) -> str:
    """Return the data set name of a split."""
    name: str = cfg.TEST.DATASET if split == "test" else cfg.TRAIN.DATASET
    return name


def dataset_kind(cfg: CfgNode, split: str) -> DataSetKind:
    """Return the registry row that TRAIN.DATASET or TEST.DATASET names for a split.

    Raises:
        ValueError: the name is unknown.
    """
    key = "TEST.DATASET" if split == "test" else "TRAIN.DATASET"
    return find_dataset(data_set(cfg, split), key)


def find_reader(cfg: CfgNode, split: str) -> DataSetKind:
    """Return the registry row that reads a split: `webdataset` if shards are configured.

    Raises:
        ValueError: TRAIN.DATASET or TEST.DATASET is unknown.
    """
    kind = dataset_kind(cfg, split)
    pattern_key = f"DATA.{split.upper()}_SHARDS"
    return find_dataset("webdataset", pattern_key) if shard_patterns(cfg)[split] else kind


def reverses_channels(cfg: CfgNode, split: str) -> bool:
    """Whether the network receives the channels of a split as blue, green, red."""
    kind = dataset_kind(cfg, split)
    if kind.has_boxes:
        return bool(cfg.AVA.BGR)
    return bool(cfg.DATA.REVERSE_INPUT_CHANNEL) and not kind.blue_first


def read_list_file(cfg: CfgNode, path: str, prefix: str) -> VideoList:
    """Read any annotation file; a space as the separator stands for the one that its lines show.

    Args:
        cfg: configuration; uses DATA.PATH_LABEL_SEPARATOR.
        path: path of the annotation file.
        prefix: folder in front of each path.

    Raises:
        ValueError: see `read_list`.
    """
    separator = index.separator_of(path, cfg.DATA.PATH_LABEL_SEPARATOR)
    return index.read_list(path, separator=separator, prefix=prefix)


def shard_patterns(cfg: CfgNode) -> dict[str, str]:
    """Return the shard pattern of each split; empty for splits without shards."""
    data = cfg.DATA
    return {"train": data.TRAIN_SHARDS, "val": data.VAL_SHARDS, "test": data.TEST_SHARDS}


def data_folder(cfg: CfgNode) -> DataFolder:
    """Build the location of the data set.

    Raises:
        ValueError: DATA.OFFICIAL_SPLIT is not 1, 2 or 3, or DATA.SHUFFLE_BUFFER is below 1.
    """
    if cfg.DATA.SHUFFLE_BUFFER < 1:
        raise ValueError(f"DATA.SHUFFLE_BUFFER must be at least 1, got {cfg.DATA.SHUFFLE_BUFFER}")
    if cfg.DATA.OFFICIAL_SPLIT not in (1, 2, 3):
        raise ValueError(f"DATA.OFFICIAL_SPLIT must be 1, 2 or 3, got {cfg.DATA.OFFICIAL_SPLIT}")
    if any(dataset_kind(cfg, split).has_boxes for split in ("train", "test")):
        return _ava_folder(cfg)
    return DataFolder(
        cfg.DATA.PATH_TO_DATA_DIR,
        prefix=cfg.DATA.PATH_PREFIX,
        separator=cfg.DATA.PATH_LABEL_SEPARATOR,
        official_split=cfg.DATA.OFFICIAL_SPLIT,
        frame_rate=float(cfg.DATA.TARGET_FPS),
        shards=Shards(
            patterns=shard_patterns(cfg),
            label=cfg.DATA.SHARD_LABEL,
            buffer=cfg.DATA.SHUFFLE_BUFFER,
            cache=cfg.DATA.SHARD_CACHE,
        ),
        progress=partial(Progress, enabled=distributed.is_main()),
    )


def video_begin(cfg: CfgNode) -> float | None:
    """Return the time in AVA's annotations at which videos begin; None: determined by file."""
    begin: float = cfg.AVA.VIDEO_BEGIN
    return None if begin < 0 else begin


def _ava_folder(cfg: CfgNode) -> AvaFolder:
    ava = cfg.AVA
    folder = ava.ANNOTATION_DIR or cfg.DATA.PATH_TO_DATA_DIR
    lists = ava.FRAME_LIST_DIR or folder
    return AvaFolder(
        folder,
        media=AvaMedia(
            video_folder=ava.VIDEO_DIR,
            video_begin=video_begin(cfg),
            frame_folder=ava.FRAME_DIR,
            train_frames=tuple(os.path.join(lists, name) for name in ava.TRAIN_LISTS),
            test_frames=tuple(os.path.join(lists, name) for name in ava.TEST_LISTS),
            frame_begin=ava.FRAME_BEGIN,
            frame_rate=ava.FRAME_RATE,
        ),
        label_map=ava.LABEL_MAP_FILE,
        ground_truth=tuple(ava.TRAIN_GT_BOX_LISTS),
        train_boxes=tuple(ava.TRAIN_PREDICT_BOX_LISTS),
        test_boxes=tuple(ava.TEST_PREDICT_BOX_LISTS),
        score_threshold=ava.DETECTION_SCORE_THRESH,
        # Validation uses every fourth second, as published.
        every=1 if ava.FULL_TEST_ON_VAL else 4,
        multi_label=ava.MULTI_LABEL,
    )
