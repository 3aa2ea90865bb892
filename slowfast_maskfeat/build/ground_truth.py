"""Configuration -> what the boxes of a validation or test are judged by."""

from __future__ import annotations

from fvcore.common.config import CfgNode

from slowfast_maskfeat.build.readers import data_folder
from slowfast_maskfeat.metrics.ava_map import (
    GroundTruth,
    check_overlap,
    read_ground_truth,
    read_labelmap,
)
from slowfast_maskfeat.videos.index import AvaFolder, KeyFrames


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
