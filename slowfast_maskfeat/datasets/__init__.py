"""Annotation readers of all data sets, and the registry of their names."""

from __future__ import annotations

from slowfast_maskfeat.datasets.ava import AvaFolder, ava_class_names, read_ava
from slowfast_maskfeat.datasets.ava_media import AvaMedia
from slowfast_maskfeat.datasets.box_rows import read_excluded
from slowfast_maskfeat.datasets.charades import read_charades
from slowfast_maskfeat.datasets.class_names import find_class_names, read_class_names
from slowfast_maskfeat.datasets.folders import (
    folder_class_names,
    imagenet_class_names,
    read_folder,
    read_imagenet,
)
from slowfast_maskfeat.datasets.key_frames import KeyFrames
from slowfast_maskfeat.datasets.label_sets import LabelSets
from slowfast_maskfeat.datasets.list_file import (
    read_csv,
    read_kinetics,
    read_list,
    separator_of,
)
from slowfast_maskfeat.datasets.registry import (
    DataSetKind,
    dataset_names,
    find_dataset,
    register_dataset,
)
from slowfast_maskfeat.datasets.ssv2 import read_ssv2, ssv2_class_names
from slowfast_maskfeat.datasets.ucf_hmdb import (
    hmdb51_class_names,
    read_hmdb51,
    read_ucf101,
    ucf101_class_names,
)
from slowfast_maskfeat.datasets.video_list import (
    DataFolder,
    MissingListError,
    OpenedRow,
    Shards,
    VideoList,
    named_by,
)
from slowfast_maskfeat.datasets.webdataset import read_webdataset

__all__ = [
    "AvaFolder",
    "AvaMedia",
    "DataFolder",
    "DataSetKind",
    "KeyFrames",
    "LabelSets",
    "MissingListError",
    "OpenedRow",
    "Shards",
    "VideoList",
    "ava_class_names",
    "dataset_names",
    "find_class_names",
    "find_dataset",
    "folder_class_names",
    "hmdb51_class_names",
    "imagenet_class_names",
    "named_by",
    "read_ava",
    "read_charades",
    "read_class_names",
    "read_csv",
    "read_excluded",
    "read_folder",
    "read_hmdb51",
    "read_imagenet",
    "read_kinetics",
    "read_list",
    "read_ssv2",
    "read_ucf101",
    "read_webdataset",
    "register_dataset",
    "separator_of",
    "ssv2_class_names",
    "ucf101_class_names",
]
