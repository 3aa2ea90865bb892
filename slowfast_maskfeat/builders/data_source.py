"""Class names, samples and ground truth of a run, with each file read once."""

from __future__ import annotations

import os
from functools import cached_property

from fvcore.common.config import CfgNode

from slowfast_maskfeat.builders.datasets import (
    data_folder,
    dataset_kind,
    find_reader,
    shard_patterns,
)
from slowfast_maskfeat.datasets import (
    AvaFolder,
    DataFolder,
    DataSetKind,
    KeyFrames,
    MissingListError,
    VideoList,
    find_class_names,
    named_by,
    read_excluded,
)
from slowfast_maskfeat.datasets.class_names import read_names
from slowfast_maskfeat.files import is_address
from slowfast_maskfeat.metrics.ava_map import GroundTruth, check_overlap, read_ground_truth


class DataSource:
    """Class names, samples and ground truth of a configuration, read on first use and cached.

    A run creates one and passes it to every builder, so that each process reads class names,
    annotation files and shard indices once; workers receive them from their parent. A builder
    without one creates a new one, which reads the current files.

    Args:
        cfg: configuration; not modified.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self._cfg = cfg
        self._samples: dict[tuple[DataSetKind, str, str], VideoList] = {}
        self._truths: dict[int, GroundTruth] = {}

    @cached_property
    def folder(self) -> DataFolder:
        """Location of the data set; see `data_folder` for the errors."""
        return data_folder(self._cfg)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of class numbers; empty if the data set has none.

        Read from a file next to the annotation files, else from the data set's specific files, else
        from the labels of the training split.

        Raises:
            ValueError: a file is malformed, or TRAIN.DATASET or TEST.DATASET is unknown.
        """
        return self._names_and_source[0]

    @property
    def class_names_source(self) -> str:
        """Origin of the class names, for reports; empty if there are none."""
        return self._names_and_source[1]

    @cached_property
    def _names_and_source(self) -> tuple[tuple[str, ...], str]:
        cfg, is_in_shards = self._cfg, bool(shard_patterns(self._cfg)["train"])
        if not (cfg.DATA.PATH_TO_DATA_DIR or cfg.AVA.ANNOTATION_DIR or is_in_shards):
            return (), ""  # inference without the data set, which may not even be registered
        kind = dataset_kind(cfg, "train" if cfg.TRAIN.ENABLE else "test")
        names, source = None, "labels of the training split"
        if self.folder.path:
            file = find_class_names(self.folder.path)
            if file is not None:
                names, source = read_names(file), file
            elif kind.class_names is not None:
                names, source = kind.class_names(self.folder), self.folder.path
            elif not is_in_shards:
                names = self._class_names_from_labels(kind)
        if names is None and is_in_shards:
            names = self._class_names_from_labels(find_reader(cfg, "train"))
            source = "labels of the training split"
        return (names, source) if names else ((), "")

    @property
    def num_classes(self) -> int:
        """Number of classes K: the number of class names, else MODEL.NUM_CLASSES."""
        cfg = self._cfg
        return len(self.class_names) or cfg.MODEL.NUM_CLASSES

    def videos(self, split: str) -> VideoList:
        """Read the samples of a split; their labels are not checked.

        Args:
            split: "train", "val" or "test".

        Raises:
            MissingListError: DATA.PATH_TO_DATA_DIR has no such split.
            ValueError: the files are malformed.
        """
        self._check_folder(split, dataset_kind(self._cfg, split))
        return self._read(find_reader(self._cfg, split), split, self.class_names)

    def ground_truth(self, rows: KeyFrames) -> GroundTruth:
        """Read AVA.GROUNDTRUTH_FILE minus AVA.EXCLUSION_FILE, for AVA.LABEL_MAP_FILE's classes.

        Args:
            rows: key frames to evaluate; the result has the same interval in seconds.

        Raises:
            MissingListError: a file is missing.
            ValueError: a file is malformed, or the key frames belong to another split.
        """
        if rows.every not in self._truths:
            self._truths[rows.every] = self._read_truth(rows.every)
        truth = self._truths[rows.every]
        check_overlap(truth, rows.media.names, rows.video, rows.seconds, rows.source)
        return truth

    def _read_truth(self, every: int) -> GroundTruth:
        cfg, folder = self._cfg, self.folder
        if not cfg.AVA.GROUNDTRUTH_FILE:
            raise ValueError(
                "AVA.GROUNDTRUTH_FILE must be the ground-truth file of the evaluation, got ''"
            )
        assert isinstance(folder, AvaFolder)
        excluded = None
        if cfg.AVA.EXCLUSION_FILE:
            with named_by("AVA.EXCLUSION_FILE"):
                excluded = read_excluded(folder.inside(cfg.AVA.EXCLUSION_FILE))
        actions = folder.actions
        with named_by("AVA.GROUNDTRUTH_FILE"):
            path = folder.inside(cfg.AVA.GROUNDTRUTH_FILE)
            return read_ground_truth(path, actions, excluded, every=every)

    def _read(self, kind: DataSetKind, split: str, names: tuple[str, ...]) -> VideoList:
        pattern = shard_patterns(self._cfg)[split]
        key = kind, pattern, "" if pattern else split  # read shards used by two splits only once
        if key not in self._samples:
            self._samples[key] = kind.read(self.folder, split, names or None)
        return self._samples[key]

    def _class_names_from_labels(self, kind: DataSetKind) -> tuple[str, ...] | None:
        try:
            return self._read(kind, "train", ()).class_names
        except MissingListError:
            return None

    def _check_folder(self, split: str, kind: DataSetKind) -> None:
        cfg, path = self._cfg, self.folder.path
        is_named = kind.has_boxes and cfg.AVA.ANNOTATION_DIR
        key = "AVA.ANNOTATION_DIR" if is_named else "DATA.PATH_TO_DATA_DIR"
        if not path and not shard_patterns(cfg)[split]:
            files = "annotations" if kind.has_boxes else "train.csv, val.csv and test.csv"
            raise ValueError(f"{key} must be the folder with {files}, got ''")
        if path and not os.path.isdir(path) and not is_address(path):
            raise ValueError(f"{key} must be a folder, got {path!r}, which does not exist")
