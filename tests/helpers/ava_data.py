"""A small data set of AVA's form: videos or frames, boxes, a label map, ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from helpers.videos_on_disk import numbered_frames, write_video
from PIL import Image

SIZES = ((48, 64), (64, 48), (48, 64))
SECONDS = (1, 2, 4)
LABEL_MAP = "".join(
    f'item {{\n  name: "{name}"\n  id: {number}\n}}\n'
    for number, name in ((1, "walk"), (3, "run"), (4, "sit"))
)
# What the configuration needs; test_boxes.csv has the same key frames as truth.csv.
OPTIONS = {
    "TRAIN.DATASET": "ava",
    "TEST.DATASET": "ava",
    "DETECTION.ENABLE": True,
    "MODEL.LOSS_FUNC": "bce",
    "MODEL.HEAD_ACT": "sigmoid",
    "AVA.LABEL_MAP_FILE": "actions.pbtxt",
    "AVA.TRAIN_GT_BOX_LISTS": ["train.csv"],
    "AVA.TEST_PREDICT_BOX_LISTS": ["test_boxes.csv"],
    "AVA.GROUNDTRUTH_FILE": "truth.csv",
    "AVA.EXCLUSION_FILE": "",
    "AVA.FULL_TEST_ON_VAL": True,
}


def make_ava(folder: Path, *, num_frames: int = 150, begin: int = 0) -> dict[str, object]:
    """Write the data set into a folder.

    Args:
        folder: Receives `videos/` and the annotations.
        num_frames: Of each video, 30 a second.
        begin: Second of the annotations at which the videos begin.

    Returns:
        Options for the configuration.
    """
    (folder / "videos").mkdir(parents=True)
    for number, (height, width) in enumerate(SIZES):
        frames = numbered_frames(num_frames, height, width)
        write_video(folder / "videos" / f"vid{number}.mp4", frames, bframes=2)
    boxes = ("0.1,0.2,0.6,0.9", "0.5,0.1,0.95,0.8")
    keys = [f"vid{n},{begin + second:04d}" for n in range(len(SIZES)) for second in SECONDS]
    rows = [(key, box, i + j) for i, key in enumerate(keys) for j, box in enumerate(boxes)]
    actions = (1, 3, 4)
    truth = [f"{key},{box},{actions[n % 3]},{n % 2}" for key, box, n in rows]
    truth += [f"{key},{box},2,{n % 2}" for key, box, n in rows[::3]]
    found = [f"{key},{box},,{0.95 if n % 4 else 0.91}" for key, box, n in rows]
    found += [f"{key},0,0,0.5,0.5,,0.4" for key in keys]
    for name, lines in (("train", truth), ("truth", truth), ("test_boxes", found)):
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    (folder / "actions.pbtxt").write_text(LABEL_MAP)
    return {**OPTIONS, "DATA.PATH_TO_DATA_DIR": folder, "AVA.VIDEO_DIR": folder / "videos"}


def extract_frames(folder: Path, num_frames: int = 150) -> dict[str, object]:
    """Write the same videos as frames with published lists of them; returns options."""
    lines = ["original_vido_id video_id frame_id path labels"]
    for number, (height, width) in enumerate(SIZES):
        (folder / "frames" / f"vid{number}").mkdir(parents=True)
        for index, frame in enumerate(numbered_frames(num_frames, height, width)):
            name = f"vid{number}/vid{number}_{index + 1:06d}.png"
            Image.fromarray(frame).save(folder / "frames" / name, compress_level=1)
            lines.append(f'vid{number} {number} {index} {name} ""')
    for split in ("train", "val"):
        (folder / f"{split}_frames.csv").write_text("\n".join(lines) + "\n")
    return {
        "AVA.VIDEO_DIR": "",
        "AVA.FRAME_DIR": folder / "frames",
        "AVA.TRAIN_LISTS": ["train_frames.csv"],
        "AVA.TEST_LISTS": ["val_frames.csv"],
        "AVA.FRAME_BEGIN": 0,
    }


def box_overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Shared area of two boxes x1, y1, x2, y2, as a share of their union."""
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return shared / (sum(areas) - shared)
