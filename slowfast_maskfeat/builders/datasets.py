"""Configuration -> where a data set lies, and what reads it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from fvcore.common.config import CfgNode

from slowfast_maskfeat import datasets as index
from slowfast_maskfeat import distributed
from slowfast_maskfeat.datasets import (
    AvaFolder,
    AvaMedia,
    DataFolder,
    KeyFrames,
    Shards,
    VideoList,
    read_class_names,
)
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.metrics.ava_map import (
    GroundTruth,
    check_overlap,
    read_ground_truth,
    read_labelmap,
)


class Reader(NamedTuple):
    """What reads one kind of data set.

    Attributes:
        read: (folder, split, class names or None) -> the rows of a split.
        class_names: folder -> names of the classes, or None where the data set does not say.
    """

    read: Callable[[DataFolder, str, Sequence[str] | None], VideoList]
    class_names: Callable[[DataFolder], tuple[str, ...] | None]


# How a data set is read (TRAIN.DATASET, TEST.DATASET).
READERS = {
    "kinetics": Reader(index.read_kinetics, index.list_class_names),
    "csv": Reader(index.read_csv, index.list_class_names),
    "ssv2": Reader(index.read_ssv2, index.ssv2_class_names),
    "ucf101": Reader(index.read_ucf101, index.ucf101_class_names),
    "hmdb51": Reader(index.read_hmdb51, index.hmdb51_class_names),
    "imagenet": Reader(index.read_imagenet, index.imagenet_class_names),
    "folder": Reader(index.read_folder, index.folder_class_names),
    "webdataset": Reader(index.read_webdataset, index.webdataset_class_names),
    "ava": Reader(index.read_ava, index.ava_class_names),
}
# Their rows are key frames with boxes.
WITH_BOXES = frozenset({"ava"})
# They have no videos.
IMAGES_ONLY = frozenset({"imagenet"})
# Their clips have a frame of each of T equal parts of the video, as in the published code.
SEGMENTED = frozenset({"ssv2"})
# Their published readers give blue first and their files turn it; decoders here give red first.
PUBLISHED_BLUE_FIRST = frozenset({"ssv2"})


def data_set(cfg: CfgNode, split: str) -> str:
    """Name of the data set that a split is of."""
    name: str = cfg.TEST.DATASET if split == "test" else cfg.TRAIN.DATASET
    return name


def reverses_channels(cfg: CfgNode, split: str) -> bool:
    """Whether the network is fed blue, green, red of a split."""
    if data_set(cfg, split) in WITH_BOXES:
        return bool(cfg.AVA.BGR)
    blue_first = data_set(cfg, split) in PUBLISHED_BLUE_FIRST
    return bool(cfg.DATA.REVERSE_INPUT_CHANNEL) and not blue_first


def find_reader(cfg: CfgNode, split: str) -> Reader:
    """What reads a split: shards, where they are named, whatever data set is in them.

    Raises:
        ValueError: TRAIN.DATASET or TEST.DATASET is unknown.
    """
    name = data_set(cfg, split)
    if name not in READERS:
        key = "TEST.DATASET" if split == "test" else "TRAIN.DATASET"
        raise ValueError(
            f"{key}: there is no reader of {name!r} lists, only of {', '.join(map(repr, READERS))}"
        )
    return READERS["webdataset" if shard_patterns(cfg)[split] else name]


def read_list_file(cfg: CfgNode, path: str) -> VideoList:
    """The rows of any list file, read as one of training would be.

    Args:
        cfg: configuration; DATA.PATH_LABEL_SEPARATOR, DATA.PATH_PREFIX and TRAIN.DATASET are read.
        path: of the list.

    Raises:
        ValueError: see `read_list`.
    """
    separator = cfg.DATA.PATH_LABEL_SEPARATOR
    if data_set(cfg, "train") != "kinetics":  # the others' lists show theirs in the first line
        separator = index.separator_of(path, separator)
    return index.read_list(path, separator=separator, prefix=cfg.DATA.PATH_PREFIX)


def shard_patterns(cfg: CfgNode) -> dict[str, str]:
    """What names the shards of each split; empty where nothing does."""
    data = cfg.DATA
    return {"train": data.TRAIN_SHARDS, "val": data.VAL_SHARDS, "test": data.TEST_SHARDS}


def data_folder(cfg: CfgNode) -> DataFolder:
    """Where the data lies.

    Raises:
        ValueError: DATA.OFFICIAL_SPLIT is none of the three, or DATA.SHUFFLE_BUFFER too small.
    """
    if cfg.DATA.SHUFFLE_BUFFER < 1:
        raise ValueError(f"DATA.SHUFFLE_BUFFER: {cfg.DATA.SHUFFLE_BUFFER}: 1 or more is wanted")
    if cfg.DATA.OFFICIAL_SPLIT not in (1, 2, 3):
        raise ValueError(f"DATA.OFFICIAL_SPLIT: {cfg.DATA.OFFICIAL_SPLIT}: 1, 2 or 3 is wanted")
    if WITH_BOXES & {cfg.TRAIN.DATASET, cfg.TEST.DATASET}:
        return _ava_folder(cfg)
    return DataFolder(
        cfg.DATA.PATH_TO_DATA_DIR,
        prefix=cfg.DATA.PATH_PREFIX,
        separator=cfg.DATA.PATH_LABEL_SEPARATOR,
        official_split=cfg.DATA.OFFICIAL_SPLIT,
        shards=Shards(
            patterns=shard_patterns(cfg),
            label=cfg.DATA.SHARD_LABEL,
            buffer=cfg.DATA.SHUFFLE_BUFFER,
            cache=cfg.DATA.SHARD_CACHE,
        ),
        progress=partial(Progress, enabled=distributed.is_main()),
    )


def _ava_folder(cfg: CfgNode) -> AvaFolder:
    ava = cfg.AVA
    folder = ava.ANNOTATION_DIR or cfg.DATA.PATH_TO_DATA_DIR
    lists = ava.FRAME_LIST_DIR or folder
    return AvaFolder(
        folder,
        media=AvaMedia(
            video_folder=ava.VIDEO_DIR,
            video_begin=None if ava.VIDEO_BEGIN < 0 else ava.VIDEO_BEGIN,
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
        every=validation_period(cfg),
        multi_label=ava.MULTI_LABEL,
    )


def validation_period(cfg: CfgNode) -> int:
    """Validation looks at the key frames whose second this divides: every fourth, as published."""
    return 1 if cfg.AVA.FULL_TEST_ON_VAL else 4


def class_names(cfg: CfgNode) -> tuple[str, ...]:
    """Names of the classes in the order of their numbers; empty where the data has none.

    Those of a file beside the lists, else what the data set says itself.
    """
    folder, is_in_shards = data_folder(cfg), bool(shard_patterns(cfg)["train"])
    if not folder.path and not is_in_shards:
        return ()
    names = read_class_names(folder.path)
    reader = READERS.get(data_set(cfg, "train" if cfg.TRAIN.ENABLE else "test"))
    if names is None and reader is not None:
        names = reader.class_names(folder)
    if names is None and is_in_shards:
        names = READERS["webdataset"].class_names(folder)
    return names or ()


def num_classes(cfg: CfgNode) -> int:
    """K: as many as there are names, else MODEL.NUM_CLASSES."""
    return len(class_names(cfg)) or cfg.MODEL.NUM_CLASSES


def build_ground_truth(cfg: CfgNode, rows: KeyFrames) -> GroundTruth:
    """Reads AVA.GROUNDTRUTH_FILE, for the classes of AVA.LABEL_MAP_FILE.

    Args:
        cfg: configuration; it is only read.
        rows: the key frames that will be looked at; where they are those of every fourth second,
            so are those that are wanted.

    Raises:
        MissingListError: a file is missing.
        ValueError: a file is malformed, or the key frames are of another split.
    """
    if not cfg.AVA.GROUNDTRUTH_FILE:
        raise ValueError("AVA.GROUNDTRUTH_FILE: empty: what the boxes are judged by is wanted")
    folder = data_folder(cfg)
    assert isinstance(folder, AvaFolder)
    excluded = cfg.AVA.EXCLUSION_FILE
    truth = read_ground_truth(
        folder.inside(cfg.AVA.GROUNDTRUTH_FILE),
        read_labelmap(folder.inside(folder.label_map)),
        folder.inside(excluded) if excluded else None,
        every=rows.every,
    )
    check_overlap(truth, rows.media.names, rows.video, rows.seconds, rows.source)
    return truth
