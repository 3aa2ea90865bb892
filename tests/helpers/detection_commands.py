"""Inputs of the documented commands of detection: files in the form of AVA, and a detector."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from fvcore.common.config import CfgNode

from slowfast_maskfeat.builders import DataSource, build_model
from slowfast_maskfeat.checkpoints import save_checkpoint
from slowfast_maskfeat.config import load_config


def provide_files(cfg: CfgNode, data: Path) -> None:
    """Write what a command reads, under the names that its configuration has for it.

    Args:
        cfg: of the command.
        data: what `tiny_detection.make_boxes` wrote.
    """
    annotations = data / "annotations"
    for name, wanted in {
        "motion_train.csv": cfg.AVA.TRAIN_GT_BOX_LISTS,
        "motion_train_predicted_boxes.csv": cfg.AVA.TRAIN_PREDICT_BOX_LISTS,
        "motion_val_predicted_boxes.csv": cfg.AVA.TEST_PREDICT_BOX_LISTS,
        "motion_val.csv": [cfg.AVA.GROUNDTRUTH_FILE],
        "motion_val_excluded_timestamps.csv": [cfg.AVA.EXCLUSION_FILE],
        "motion_actions.pbtxt": [cfg.AVA.LABEL_MAP_FILE],
    }.items():
        for file in wanted:
            path = Path(cfg.AVA.ANNOTATION_DIR or cfg.DATA.PATH_TO_DATA_DIR) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(annotations / name, path)
    shutil.copytree(data / "videos", cfg.AVA.VIDEO_DIR)


def provide_detections(data: Path) -> None:
    """Write the files of AVA in `ava`, and the drawn boxes as detections in `output/ava`."""
    names = load_config([], ["DATA.PATH_TO_DATA_DIR", "ava", "AVA.VIDEO_DIR", "ava/videos"])
    provide_files(names, data)
    rows = (data / "annotations" / "motion_val.csv").read_text().splitlines()
    path = Path("output/ava/test_detections.csv")
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{row.rpartition(',')[0]},0.9\n" for row in rows))


def write_detector(path: Path, data: Path, config: Path, small: Sequence[str]) -> Path:
    """Write the weights of a small detector as a training would, with its configuration."""
    where = ["AVA.ANNOTATION_DIR", str(data / "annotations")]
    where += ["AVA.LABEL_MAP_FILE", "motion_actions.pbtxt"]
    cfg = load_config([str(config)], [*where, *small])
    content = {
        "model_state": build_model(cfg).state_dict(),
        "cfg": cfg.dump(),
        "class_names": DataSource(cfg).class_names,
    }
    return save_checkpoint(path, content)


def boxes_of(seconds: Sequence[float]) -> str:
    """A CSV with two boxes at each time, in pixels."""
    return "".join(f"{second},4,4,20,20\n{second},8,2,30,28\n" for second in seconds)
