"""Checks before the first step of what a run needs later: its lists, their files, its test."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from fvcore.common.config import CfgNode

from slowfast_maskfeat.builders.data import build_loader, num_clips_of_tests, read_videos
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.freezing import check_frozen_blocks
from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.builders.optimizer import (
    build_schedule,
    build_weight_decay,
    schedule_warnings,
)
from slowfast_maskfeat.checkpoints import checkpoint_folder
from slowfast_maskfeat.config import default_config, key_value
from slowfast_maskfeat.datasets import KeyFrames, MissingListError, VideoList
from slowfast_maskfeat.datasets.list_format import OF_FRAMES
from slowfast_maskfeat.engine.coordination import from_main
from slowfast_maskfeat.files import is_file
from slowfast_maskfeat.metrics.ava_map import measure_hits
from slowfast_maskfeat.videos.decode import require_decoder
from slowfast_maskfeat.videos.device_check import check_decoder

_NUM_PROBED = 100


def check_named_decoder(cfg: CfgNode, device: torch.device) -> None:
    """Check that the decoder of DATA.DECODING_BACKEND can be used, before anything is built.

    Args:
        cfg: configuration; not modified.
        device: of this process.

    Raises:
        ValueError: it is not installed, or it is torchcodec_cuda and there is no such device, or
            its frames differ from those of the CPU.
    """
    backend = cfg.DATA.DECODING_BACKEND
    if backend != "torchcodec_cuda":
        if backend != "auto" and not cfg.AVA.FRAME_DIR:  # whose frames are images
            require_decoder(backend)
        return
    try:
        if device.type != "cuda":
            raise ValueError(f"this process runs on device '{device.type}'")
        check_decoder(backend)
    except ValueError as error:
        reason = getattr(error, "reason", error)  # without the path of the clip
        release = (torch.version.cuda or "13.0").replace(".", "")
        raise ValueError(
            f"DATA.DECODING_BACKEND must be 'auto' here, got {backend!r}: {reason}; it needs a "
            "GPU, and torchcodec built for it (pip install torchcodec --index-url "
            f"https://download.pytorch.org/whl/cu{release}), or set DATA.DECODING_BACKEND auto"
        ) from error


def check_training(cfg: CfgNode, data: DataSource) -> list[str]:
    """Check everything that a training and its test need and that is known before the first step.

    Lists and annotations are read into `data`, so that the run does not read them again. All
    processes of a run must call it.

    Args:
        cfg: configuration; not modified.
        data: the run's data source.

    Returns:
        Warnings.

    Raises:
        ValueError: a list or another file is missing or malformed, none of the first files of a
            list exists, or keys contradict each other.
    """
    method = find_method(cfg)
    method.check(cfg)
    build_schedule(cfg)
    build_weight_decay(cfg)
    check_frozen_blocks(cfg)
    _check_best_figure(cfg)
    _check_tested_checkpoint(cfg)
    lists = _read_lists(cfg, data)
    if "test" in lists:
        for num_views in num_clips_of_tests(cfg):
            build_loader(cfg, "test", num_views=num_views, data=data)
    _check_best_validation(cfg, lists)
    check_files(cfg, list(lists.values()))
    found = [*method.warnings(cfg), *schedule_warnings(cfg)]
    return found + _class_warnings(cfg, data) + _box_warnings(data, lists)


def check_files(cfg: CfgNode, lists: Sequence[VideoList]) -> None:
    """Check that some of the first files of each list exist, and that they are no folders.

    Addresses and members of shards are not looked for. All processes of a run must call it; the
    main one looks.

    Args:
        cfg: configuration; not modified.
        lists: the lists of the run.

    Raises:
        ValueError: none of the first files of a list exists, or all are folders.
    """

    def look() -> None:
        for videos in lists:
            files = videos.first_files(_NUM_PROBED)
            if files and all(map(os.path.isdir, files)):
                raise ValueError(
                    f"{videos.source}: a row must name a video or an image, got the folder "
                    f"{files[0]!r}; {OF_FRAMES}"
                )
            if files and not any(map(os.path.exists, files)):
                raise ValueError(f"{videos.source}: {_missing(cfg, videos, files)}")

    from_main(look)


def _missing(cfg: CfgNode, videos: VideoList, files: Sequence[str]) -> str:
    """Say which files of a list do not exist, and the likely reason."""
    key = "AVA.FRAME_DIR" if isinstance(videos, KeyFrames) else "DATA.PATH_PREFIX"
    given = key_value(cfg, key)
    folder = given or os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    # Names in ASCII are read right in any encoding.
    sample = next((file for file in files if _is_text(file.removeprefix(given))), files[0])
    reason = f"is {key} right?"
    if not _is_text(sample.removeprefix(given)):
        reason = "the list must be text in UTF-8 or UTF-16, got other bytes: save it as UTF-8"
    return f"none of the first {len(files)} exists under {folder!r}, such as {sample!r}; {reason}"


def _is_text(path: str) -> bool:
    """Whether a path from a list has only bytes that are UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:  # the others are surrogate escapes
        return False
    return True


def _read_lists(cfg: CfgNode, data: DataSource) -> dict[str, VideoList]:
    """Read the list of each split that the run uses; pre-training may lack a validation split."""
    is_tested = find_method(cfg).is_tested
    lists = {"train": read_videos(cfg, "train", data)}
    try:
        lists["val"] = read_videos(cfg, "val", data)
    except MissingListError:
        if is_tested:
            raise
    if cfg.TEST.ENABLE and is_tested:
        try:
            lists["test"] = read_videos(cfg, "test", data)
        except MissingListError as error:
            raise MissingListError(
                f"{error}; the run tests after training: add the test split, or set TEST.ENABLE "
                "False"
            ) from error
    return lists


def _check_tested_checkpoint(cfg: CfgNode) -> None:
    """Check that a checkpoint to test exists, unless this training is to write it.

    Raises:
        ValueError: it does not.
    """
    path = cfg.TEST.CHECKPOINT_FILE_PATH
    if not (path and cfg.TEST.ENABLE and find_method(cfg).is_tested) or is_file(path):
        return
    if Path(path).absolute().parent != checkpoint_folder(cfg.OUTPUT_DIR).absolute():
        raise ValueError(
            f"TEST.CHECKPOINT_FILE_PATH must be a checkpoint, got {path!r}, which does not exist"
        )


def _check_best_figure(cfg: CfgNode) -> None:
    """Check that the figure that marks the best checkpoint is measured, as far as keys say so.

    Raises:
        ValueError: it is not.
    """
    train = cfg.TRAIN
    if train.KEEP_BEST in ("", "validation"):
        return
    got = f"got {train.KEEP_BEST!r}"
    if not find_method(cfg).is_monitored:
        raise ValueError(
            f"TRAIN.KEEP_BEST must be '' or 'validation' in a training whose features "
            f"TRAIN.MONITOR does not measure, that with labels or of a tokenizer, {got}"
        )
    if not train.MONITOR_PERIOD:
        raise ValueError(
            f"TRAIN.KEEP_BEST must be '' with TRAIN.MONITOR_PERIOD 0, which measures nothing, "
            f"{got}; set TRAIN.MONITOR_PERIOD to epochs between measurements"
        )
    if train.KEEP_BEST not in train.MONITOR:
        measured = ", ".join(map(repr, ("", *train.MONITOR)))
        raise ValueError(
            f"TRAIN.KEEP_BEST must be one of the figures of TRAIN.MONITOR, {measured}, {got}; add "
            "it to TRAIN.MONITOR"
        )


def _check_best_validation(cfg: CfgNode, lists: Mapping[str, VideoList]) -> None:
    """Check that what validations decide is not decided by the test.

    Raises:
        ValueError: the validation split is missing, or is the test split.
    """
    given = {
        "TRAIN.STOP_AFTER 0": cfg.TRAIN.STOP_AFTER > 0,
        "TRAIN.KEEP_BEST ''": cfg.TRAIN.KEEP_BEST == "validation",
    }
    off = " and ".join(key for key, is_given in given.items() if is_given)
    if not off:
        return
    if "val" not in lists:
        raise ValueError(
            f"DATA.PATH_TO_DATA_DIR must have a validation split, on which this training depends, "
            f"got none; add one, or set {off}"
        )
    if "test" in lists and lists["val"].fingerprint == lists["test"].fingerprint:
        raise ValueError(
            f"{lists['val'].source} must be another list than the test's where validations select "
            f"the weights, but {lists['test'].source} has the same rows: the test would be too "
            f"good; hold out other videos, or set {off}, or TEST.ENABLE False"
        )


def _class_warnings(cfg: CfgNode, data: DataSource) -> list[str]:
    """Say that MODEL.NUM_CLASSES is another number than that of the data set's classes."""
    given, default = cfg.MODEL.NUM_CLASSES, default_config().MODEL.NUM_CLASSES
    has_classes = find_method(cfg).has_labels or find_method(cfg).has_boxes
    if not has_classes or given in (default, data.num_classes):
        return []
    return [
        f"MODEL.NUM_CLASSES {given} has no effect: {data.class_names_source} has "
        f"{data.num_classes} classes"
    ]


def _box_warnings(data: DataSource, lists: Mapping[str, VideoList]) -> list[str]:
    """Read the ground truth of the evaluated splits, and compare their boxes with it."""
    found: dict[str, None] = {}
    for split in ("val", "test"):
        rows = lists.get(split)
        if isinstance(rows, KeyFrames):
            of_box = rows.rows_of_boxes(np.arange(len(rows.table)))
            hits = measure_hits(
                data.ground_truth(rows),
                rows.media.names,
                rows.video[of_box],
                rows.seconds[of_box],
                rows.table.boxes,
            )
            if hits.warning:
                found[f"{rows.source}: {hits.warning}"] = None
    return list(found)
