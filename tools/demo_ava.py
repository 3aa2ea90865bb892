"""Action detection in minutes on a CPU: the gain from pre-training on boxes in AVA format.

    python datasets/make_motion_boxes.py --output output/demo/ava
    python tools/demo_ava.py --output output/demo

A detector is trained on few labeled boxes of moving shapes, once from the pre-trained checkpoint of
`tools/demo.py` (which is trained first if it is absent; this needs the motion clips and takes some
minutes) and once from scratch. The table has the mean average precision of both, and that of a
baseline that scores each action by its frequency.
"""

from __future__ import annotations

if __name__ == "__main__":
    from slowfast_maskfeat.cli import end_on_interrupt

    end_on_interrupt()  # during the imports, which take seconds

import argparse
import csv
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from demo_runs import (
    ROOT,
    demo_parser,
    events,
    has_clips,
    last_checkpoint,
    list_files,
    mean_text,
    pretrain,
    run_demo,
    run_program,
    run_stage,
    seed_folders,
    validation_curves,
)

from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.checkpoints import checkpoint_folder
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.datasets import KeyFrames
from slowfast_maskfeat.figures import (
    accuracy_curves,
    box_panel,
    draw_boxes,
    draw_or_warn,
    drawing_scale,
)
from slowfast_maskfeat.metrics.ava_map import (
    AvaResult,
    Detections,
    evaluate_detections,
    read_labelmap,
)
from slowfast_maskfeat.videos.decode import open_video

# Folder of each run -> its title.
RUNS = {"ava_finetune": "MaskFeat, then detection", "ava_scratch": "from scratch"}
_NUM_DRAWN = 4  # videos in the panel
_DRAWN_SECOND = 2

# Video and second -> box -> names of its actions.
_Actions = dict[tuple[str, int], dict[tuple[float, ...], list[str]]]


def main(arguments: Sequence[str]) -> int:
    """Run the steps for each seed and print the results.

    Returns:
        The exit code of the first step that failed, 2 without data, or 0.
    """
    options = demo_parser(__doc__).parse_args(arguments)
    return run_demo(lambda: _work(options))


def _work(options: argparse.Namespace) -> int:
    data = options.output / "ava"
    if not (data / "annotations" / "motion_train.csv").is_file():
        print(
            f"error: {data} has no demo videos with boxes; make them with "
            f"python datasets/make_motion_boxes.py --output {data}",
            file=sys.stderr,
        )
        return 2
    folders = seed_folders(options)
    starts = [last_checkpoint(folder / "pretrain") for folder in folders.values()]
    if None in starts and not has_clips(options.output / "data"):
        return 2
    seconds = [_run_all(options, data, folder, seed) for seed, folder in folders.items()]
    _draw(options.output, data, list(folders.values()))
    _report(list(folders.values()), seconds, frequency_baseline(data))
    first = next(iter(folders.values()))
    of_runs = ("test_average_precision.png", "test_detections.csv", "checkpoints/*")
    list_files(
        [
            (options.output, "ava_map.png"),
            (options.output, "ava_boxes.png"),
            (options.output, "ava_video/detections.*"),
            *((first, f"{run}/{name}") for run in RUNS for name in of_runs),
        ]
    )
    return 0


def _run_all(options: argparse.Namespace, data: Path, folder: Path, seed: int) -> dict[str, float]:
    """Train from the pre-trained checkpoint and from scratch; pre-train first if necessary.

    Returns:
        Seconds of each run.
    """
    pairs = [*("RNG_SEED", str(seed)), *options.opts]
    if last_checkpoint(folder / "pretrain") is None:
        pretrain(options.output / "data", folder, pairs, options.budget)
    start = ["TRAIN.CHECKPOINT_FILE_PATH", str(last_checkpoint(folder / "pretrain"))]
    keys = _keys(data)
    return {
        name: run_stage(name, folder / name, keys, [*pairs, *more], options.budget)
        for name, more in (("ava_finetune", start), ("ava_scratch", []))
    }


def _keys(data: Path) -> dict[str, Path]:
    return {"AVA.ANNOTATION_DIR": data / "annotations", "AVA.VIDEO_DIR": data / "videos"}


def frequency_baseline(data: Path) -> AvaResult:
    """Result of scoring each action by its share of the training boxes, the same for all boxes."""
    pairs = [str(word) for pair in _keys(data).items() for word in pair]
    cfg = load_config([str(ROOT / "configs" / "demo" / "ava_scratch.yaml")], pairs)
    source = DataSource(cfg)
    train, test = source.videos("train"), source.videos("test")
    assert isinstance(train, KeyFrames)
    assert isinstance(test, KeyFrames)
    num_boxes, num_classes = len(test.table.boxes), train.table.num_classes
    shares = np.bincount(train.table.actions, minlength=num_classes) / len(train.table.boxes)
    rows = test.rows_of_boxes(np.arange(num_boxes))
    detections = Detections(
        names=test.media.names,
        video=test.video[rows],
        seconds=test.seconds[rows],
        boxes=test.table.boxes,
        scores=np.tile(shares, (num_boxes, 1)),
    )
    return evaluate_detections(source.ground_truth(test), detections)


def _report(folders: list[Path], seconds: list[dict[str, float]], frequency: AvaResult) -> None:
    """Print the table of test results."""
    print(f"\n{'':28} {'mAP (%)':>14} {'seconds':>9}")
    for name, title in RUNS.items():
        tests = [events(folder / name, "test")[-1] for folder in folders]
        mean_ap = mean_text([100 * test["mean_ap"] for test in tests], 1)
        print(f"{title:28} {mean_ap:>14} {statistics.mean(s[name] for s in seconds):9.0f}")
    print(f"{'by label frequency alone':28} {100 * frequency.mean_ap:14.1f}")
    test = tests[-1]
    print(
        f"\nmAP at IoU 0.5 over {test['num_classes_counted']} actions; {test['num_boxes']} boxes "
        f"detected, {test['num_boxes_expected']} in the ground truth, in "
        f"{test['num_frames_matched']} of {test['num_frames_expected']} key frames."
    )


def _draw(output: Path, data: Path, folders: list[Path]) -> None:
    """Draw curves of both runs, key frames with ground truth and detections, and a video."""
    runs = {title: [folder / name for folder in folders] for name, title in RUNS.items()}
    curves = output / "ava_map.png"
    draw_curves = partial(
        accuracy_curves,
        curves,
        validation_curves(runs, lambda event: 100 * event["mean_ap"]),
        x_label="epoch",
        y_label="mAP (%)",
        chance=100 * frequency_baseline(data).mean_ap,
        chance_name="by label frequency alone",
    )
    draw_or_warn(curves, draw_curves)
    run = folders[0] / "ava_finetune"
    names = read_labelmap(data / "annotations" / "motion_actions.pbtxt")
    truth = _read(data / "annotations" / "motion_val.csv", names)
    detections = _read(run / "test_detections.csv", names)
    videos = [data / "videos" / f"{video}.mp4" for video, second in truth if second == 1]
    frames = [
        _draw_key_frame(path, actions.get((path.stem, _DRAWN_SECOND), {}))
        for actions in (truth, detections)
        for path in videos[:_NUM_DRAWN]
    ]
    box_panel(
        output / "ava_boxes.png",
        frames,
        num_columns=min(_NUM_DRAWN, len(videos)),
        row_names=["ground truth", "detections"],
    )
    _detect(output / "ava_video", videos[0], run, detections)


def _read(path: Path, names: dict[int, str]) -> _Actions:
    """Read the actions of each box; of detections, which have scores, only those above 0.5."""
    actions: _Actions = defaultdict(lambda: defaultdict(list))
    with open(path, newline="", encoding="utf-8") as file:
        for video, second, *sides, action, last in csv.reader(file):
            of_box = actions[video, int(second)][tuple(map(float, sides))]
            is_score = "." in last  # else the number of a shape
            if not is_score or float(last) > 0.5:
                of_box.append(names[int(action)] + (f" {float(last):.2f}" if is_score else ""))
    return actions


def _draw_key_frame(path: Path, actions: dict[tuple[float, ...], list[str]]) -> np.ndarray:
    """Draw the boxes and actions of a key frame."""
    with open_video(path) as video:
        frame = video.frames([int(np.searchsorted(video.timestamps, _DRAWN_SECOND))])[0]
    boxes = np.array(list(actions)).reshape(-1, 4)
    return draw_boxes(frame, boxes, list(actions.values()), scale=drawing_scale(*frame.shape[:2]))


def _detect(output: Path, video: Path, run: Path, detections: _Actions) -> None:
    """Draw a whole video with tools/detect.py."""
    output.mkdir(parents=True, exist_ok=True)
    rows = [
        ",".join(map(str, (second, *box)))
        for (name, second), boxes in detections.items()
        if name == video.stem
        for box in boxes
    ]
    (output / "boxes.csv").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    checkpoint = sorted(checkpoint_folder(run).glob("*.pyth"))[-1]
    command = [
        *(sys.executable, str(ROOT / "tools" / "detect.py"), "--checkpoint", str(checkpoint)),
        *("--video", str(video), "--boxes", str(output / "boxes.csv"), "--output", str(output)),
    ]
    run_program(command, shows_output=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
