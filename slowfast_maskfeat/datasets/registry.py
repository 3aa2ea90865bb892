"""The data sets that TRAIN.DATASET and TEST.DATASET name, one row each."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slowfast_maskfeat.datasets.ava import ava_class_names, read_ava
from slowfast_maskfeat.datasets.charades import read_charades
from slowfast_maskfeat.datasets.folders import (
    folder_class_names,
    imagenet_class_names,
    read_folder,
    read_imagenet,
)
from slowfast_maskfeat.datasets.list_file import read_csv, read_kinetics
from slowfast_maskfeat.datasets.ssv2 import read_ssv2, ssv2_class_names
from slowfast_maskfeat.datasets.ucf_hmdb import (
    hmdb51_class_names,
    read_hmdb51,
    read_ucf101,
    ucf101_class_names,
)
from slowfast_maskfeat.datasets.video_list import DataFolder, VideoList
from slowfast_maskfeat.datasets.webdataset import read_webdataset


@dataclass(frozen=True, kw_only=True)
class DataSetKind:
    """How one kind of data set is read, and how clips are sampled from it.

    Attributes:
        read: (folder, split, class names or None) -> samples of the split, which is "train", "val"
            or "test". A missing split raises `MissingListError`.
        class_names: folder -> names of the classes, or None if its files have none. Without this
            function the names are those among the labels of the training split.
        has_boxes: `read` returns `KeyFrames`; its folder is an `AvaFolder`, made from AVA.*.
        images_only: it has no videos, so that a test takes one view of each sample.
        segmented: a clip has one frame of each of T equal parts of the video, as published.
        blue_first: the published reader returns BGR frames and the published configurations
            reverse them with DATA.REVERSE_INPUT_CHANNEL, which has no effect here: frames are RGB.
        has_frame_labels: a sample is a list of frames with labels for each, which lists can't hold.
        in_shards: samples are members of tar files and have no paths that a list could hold.
    """

    read: Callable[[DataFolder, str, Sequence[str] | None], VideoList]
    class_names: Callable[[DataFolder], tuple[str, ...] | None] | None = None
    has_boxes: bool = False
    images_only: bool = False
    segmented: bool = False
    blue_first: bool = False
    has_frame_labels: bool = False
    in_shards: bool = False


_KINDS = {
    "kinetics": DataSetKind(read=read_kinetics),
    "csv": DataSetKind(read=read_csv),
    "ssv2": DataSetKind(
        read=read_ssv2, class_names=ssv2_class_names, segmented=True, blue_first=True
    ),
    "ucf101": DataSetKind(read=read_ucf101, class_names=ucf101_class_names),
    "hmdb51": DataSetKind(read=read_hmdb51, class_names=hmdb51_class_names),
    "imagenet": DataSetKind(read=read_imagenet, class_names=imagenet_class_names, images_only=True),
    "folder": DataSetKind(read=read_folder, class_names=folder_class_names),
    "webdataset": DataSetKind(read=read_webdataset, in_shards=True),
    "charades": DataSetKind(read=read_charades, has_frame_labels=True),
    "ava": DataSetKind(read=read_ava, class_names=ava_class_names, has_boxes=True),
}


def register_dataset(name: str, kind: DataSetKind) -> None:
    """Add a data set that TRAIN.DATASET and TEST.DATASET can name from then on.

    Args:
        name: value of the keys.
        kind: its row. Registering the same row again changes nothing.

    Raises:
        ValueError: another data set has the name.
    """
    if _KINDS.setdefault(name, kind) != kind:
        raise ValueError(f"TRAIN.DATASET {name!r} is already registered")


def dataset_names() -> tuple[str, ...]:
    """Names of all data sets, in the order of their registration."""
    return tuple(_KINDS)


def find_dataset(name: str, key: str) -> DataSetKind:
    """The row of a data set.

    Args:
        name: value of the key.
        key: configuration key or option, for the message.

    Raises:
        ValueError: no data set has this name.
    """
    if name not in _KINDS:
        near = difflib.get_close_matches(name, _KINDS, n=1)
        hint = f"; the nearest is {near[0]!r}" if near else ""
        known = ", ".join(map(repr, _KINDS))
        raise ValueError(f"{key} must be one of {known}, got {name!r}{hint}")
    return _KINDS[name]
