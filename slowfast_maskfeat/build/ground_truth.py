"""Configuration -> what the boxes of a validation or test are judged by."""

from __future__ import annotations

import os

from fvcore.common.config import CfgNode

from slowfast_maskfeat.build.readers import data_folder, validation_period
from slowfast_maskfeat.metrics.ava_map import (
    GroundTruth,
    check_overlap,
    read_ground_truth,
    read_labelmap,
)
from slowfast_maskfeat.videos.index import KeyFrames


def build_ground_truth(cfg: CfgNode, split: str, rows: KeyFrames) -> GroundTruth:
    """Reads AVA.GROUNDTRUTH_FILE, for the classes of AVA.LABEL_MAP_FILE.

    Args:
        cfg: configuration; it is only read.
        split: "val", which looks at every fourth second without AVA.FULL_TEST_ON_VAL, or "test".
        rows: the key frames that will be looked at.

    Raises:
        MissingListError: a file is missing.
        ValueError: a file is malformed, or the key frames are of another split.
    """
    folder = data_folder(cfg).path
    excluded = cfg.AVA.EXCLUSION_FILE
    truth = read_ground_truth(
        os.path.join(folder, cfg.AVA.GROUNDTRUTH_FILE),
        read_labelmap(os.path.join(folder, cfg.AVA.LABEL_MAP_FILE)),
        os.path.join(folder, excluded) if excluded else None,
        every=validation_period(cfg) if split == "val" else 1,
    )
    # Before hours of work, not after.
    check_overlap(truth, rows.media.names, rows.video, rows.seconds, rows.source)
    return truth
