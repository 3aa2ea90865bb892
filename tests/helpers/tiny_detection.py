"""A detection run small enough for a test: rendered moving shapes with boxes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# On top of `tiny_run.MODEL`.
DETECTION = {
    "TASK": "ava",
    "MODEL.NUM_CLASSES": 10,
    "MODEL.LOSS_FUNC": "bce",
    "MODEL.HEAD_ACT": "sigmoid",
    "MODEL.DROPOUT_RATE": 0.0,
    "DETECTION.ENABLE": True,
    "TRAIN.DATASET": "ava",
    "TEST.DATASET": "ava",
    "AVA.TRAIN_GT_BOX_LISTS": ["motion_train.csv"],
    "AVA.TEST_PREDICT_BOX_LISTS": ["motion_val_predicted_boxes.csv"],
    "AVA.DETECTION_SCORE_THRESH": 0.8,
    "AVA.GROUNDTRUTH_FILE": "motion_val.csv",
    "AVA.EXCLUSION_FILE": "motion_val_excluded_timestamps.csv",
    "AVA.LABEL_MAP_FILE": "motion_actions.pbtxt",
    "AVA.FULL_TEST_ON_VAL": True,
}


def make_boxes(folder: Path, *, num_train: int = 4, num_val: int = 3, seconds: int = 4) -> Path:
    """Write videos, with a key frame at each second inside, and the files of AVA."""
    subprocess.run(
        [
            *(sys.executable, str(ROOT / "datasets" / "make_motion_boxes.py")),
            *("--output", str(folder), "--seconds", str(seconds), "--processes", "1"),
            *("--num-train", str(num_train), "--num-val", str(num_val)),
        ],
        check=True,
        capture_output=True,
    )
    return folder


def folders(data: Path) -> dict[str, str]:
    """Where the data of `make_boxes` lies, as options."""
    return {
        "AVA.ANNOTATION_DIR": str(data / "annotations"),
        "AVA.VIDEO_DIR": str(data / "videos"),
    }
