"""Tell what is done in the boxes of a video, and draw it.

    python tools/detect.py --checkpoint ava_checkpoint_epoch_00030.pyth --video x.mp4 \\
        --boxes boxes.csv --output detected

Boxes come from any detector of persons, a row each: time in seconds, x1, y1, x2, y2. They are
shares of width and height where none is above 1, else pixels. Written are `detections.csv` in the
form of AVA (video, second, x1, y1, x2, y2, action, score) and `detections.mp4`, in which each frame
shows the boxes of the nearest time. They fade away from their time and are gone after half a
second. It has the frames of the video at its mean rate, whatever their times, and no sound. The
checkpoint brings its configuration and class names along; weights that come without need --cfg.
"""

from __future__ import annotations

import argparse
import csv
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from slowfast_maskfeat.builders import build_task
from slowfast_maskfeat.builders.data import build_key_frame_view
from slowfast_maskfeat.builders.datasets import reverses_channels
from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.figures import draw_boxes, drawing_scale
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.metrics.ava_map import Detections, write_detections
from slowfast_maskfeat.runs.load_trained import TrainedModel, load_trained
from slowfast_maskfeat.tasks import Detection
from slowfast_maskfeat.videos.decode import Video, open_video
from slowfast_maskfeat.videos.write_video import write_video

# Before and after its time, where no other is nearer, a box is drawn in full, then fades to a part.
_FULL_SECONDS, _SHOWN_SECONDS, _LEAST_OPACITY = 0.2, 0.5, 0.2
_FRAMES_AT_ONCE = 16


class TimedBoxes(NamedTuple):
    """The boxes of a video, in the order of their times.

    Attributes:
        seconds: (N,) float64.
        boxes: (N, 4) float32, x1, y1, x2, y2 as shares of width and height.
    """

    seconds: NDArray[np.float64]
    boxes: NDArray[np.float32]


def main(arguments: list[str]) -> int:
    """Detect, write and draw.

    Returns:
        the exit code: 0, or 2 for invalid input.
    """
    warnings.simplefilter("ignore")  # the configuration was warned about when it trained
    options = _parse(arguments)
    return exit_code(lambda: detect(options), output=options.output)


def detect(options: argparse.Namespace) -> None:
    """Score the boxes, write the CSV and the drawn video.

    Raises:
        ValueError: the checkpoint is no detector, or the boxes are malformed or beyond the video.
        DecodeError: the video can't be decoded.
    """
    trained = load_trained(
        options.checkpoint, device=options.device, config_file=options.cfg, pairs=options.opts
    )
    task = build_task(trained.cfg, trained.model)
    if not isinstance(task, Detection):
        raise ValueError(
            f"{options.checkpoint}: it is no detector; tools/predict.py takes classifiers of clips"
        )
    backend = trained.cfg.DATA.DECODING_BACKEND
    with open_video(options.video, backend) as video:
        found = read_boxes(options.boxes, video)
        scores = score_boxes(trained, task, video, found, options.device)
        names = dict(enumerate(_class_names(trained, scores.shape[1]), start=1))
        detections = Detections(
            names=[Path(options.video).stem],
            video=np.zeros(len(found.boxes), np.int64),
            seconds=found.seconds,
            boxes=found.boxes,
            scores=scores,
        )
        options.output.mkdir(parents=True, exist_ok=True)
        table, film = options.output / "detections.csv", options.output / "detections.mp4"
        with atomic_write(table) as part:
            write_detections(part, detections, names)
        lines = _lines(scores, list(names.values()), options.threshold, options.top)
        write_video(film, _drawn(video, found, lines), fps=video.fps)
    print(f"{len(found.boxes)} boxes at {len(np.unique(found.seconds))} times: {table}, {film}")


def read_boxes(path: str, video: Video) -> TimedBoxes:
    """Read the boxes of a video.

    Raises:
        ValueError: a row is malformed or outside of the video; the message has file and lines.
    """
    first, last = video.timestamps[0], video.timestamps[0] + video.duration
    rows, wrong = [], []
    with open(path, newline="", encoding="utf-8-sig") as file:
        for line, fields in enumerate(csv.reader(file), start=1):
            if not any(field.strip() for field in fields):
                continue
            try:
                time, x1, y1, x2, y2 = map(float, fields[:5])
            except ValueError:
                if line > 1 or len(fields) < 5:  # else it names the columns
                    wrong.append(f"line {line}: time, x1, y1, x2, y2 are wanted, got {fields}")
                continue
            if not (x1 < x2 and y1 < y2 and min(x1, y1) >= 0):
                wrong.append(f"line {line}: the box {x1:g}, {y1:g}, {x2:g}, {y2:g} has no area")
            elif not first <= time <= last:
                wrong.append(
                    f"line {line}: {time:g} s is not in {first:g}..{last:g} s of the video"
                )
            else:
                rows.append((time, x1, y1, x2, y2))
    if wrong:
        more = f", and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise ValueError(f"--boxes: {path}: {'; '.join(wrong[:10])}{more}")
    if not rows:
        raise ValueError(f"--boxes: {path}: there is no box")
    table = np.array(sorted(rows))
    boxes = table[:, 1:]
    if boxes.max() > 1:
        height, width = video.frames([0]).shape[1:3]
        boxes = boxes / np.array([width, height] * 2)
        if boxes.max() > 1 + 1e-6:
            raise ValueError(f"--boxes: {path}: pixels beyond the {width}x{height} of the video")
    return TimedBoxes(table[:, 0], boxes.astype(np.float32))


@torch.no_grad()
def score_boxes(
    trained: TrainedModel, task: Detection, video: Video, found: TimedBoxes, device: str
) -> NDArray[np.float32]:
    """The scores (N, K) of all boxes, a clip about each time."""
    view = build_key_frame_view(trained.cfg, "test")
    turns = reverses_channels(trained.cfg, "test")
    times, start = np.unique(found.seconds, return_index=True)
    progress = Progress(len(times), "detect", sys.stderr)
    scores = []
    for time, boxes in zip(times, np.split(found.boxes, start[1:]), strict=True):
        clips, placed, _ = view(video, float(time), boxes, np.random.default_rng(0))
        pixels = clips.permute(0, 4, 1, 2, 3)  # (1, C, T, H, W)
        pixels = (pixels.flip(1) if turns else pixels).to(device)
        logits = task.logits(trained.model, pixels, torch.from_numpy(placed).to(device))
        scores.append(task.activation(logits).cpu().numpy())
        progress.update(1)
    progress.close()
    return np.concatenate(scores)


def _class_names(trained: TrainedModel, num_classes: int) -> list[str]:
    """Those of the checkpoint, else numbers from 1 on."""
    return list(trained.class_names) or [f"action {n}" for n in range(1, num_classes + 1)]


def _lines(
    scores: NDArray[np.float32], names: list[str], threshold: float, top: int
) -> list[list[str]]:
    """What is written at each box: its likeliest actions, the best first."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [f"{names[action]} {row[action]:.2f}" for action in of_box if row[action] >= threshold]
        for row, of_box in zip(scores, best, strict=True)
    ]


def _drawn(video: Video, found: TimedBoxes, lines: list[list[str]]) -> Iterator[NDArray[np.uint8]]:
    """All frames of a video with the boxes of the nearest time."""
    times, start = np.unique(found.seconds, return_index=True)
    ends = np.append(start[1:], len(found.seconds))
    progress = Progress(video.num_frames, "draw", sys.stderr)
    for first in range(0, video.num_frames, _FRAMES_AT_ONCE):
        numbers = range(first, min(first + _FRAMES_AT_ONCE, video.num_frames))
        for number, frame in zip(numbers, video.frames(list(numbers)), strict=True):
            away = np.abs(times - video.timestamps[number])
            near = int(away.argmin())
            is_shown = away[near] <= _SHOWN_SECONDS
            of_time = slice(start[near], ends[near]) if is_shown else slice(0, 0)
            yield draw_boxes(
                frame,
                found.boxes[of_time],
                lines[of_time],
                scale=drawing_scale(*frame.shape[:2]),
                opacity=_opacity(away[near]),
            )
        progress.update(len(numbers))
    progress.close()


def _opacity(seconds: float) -> float:
    """Of boxes so far from their time."""
    return float(np.interp(seconds, (_FULL_SECONDS, _SHOWN_SECONDS), (1.0, _LEAST_OPACITY)))


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in 0..1")
    return number


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="of a training of detection")
    add("--video", required=True, help="file that a decoder opens")
    add("--boxes", required=True, help="CSV of time, x1, y1, x2, y2")
    add("--output", type=Path, default=Path("output/detect"), help="folder")
    add("--cfg", help="YAML of the model, for weights that come without")
    add("--threshold", type=_share, default=0.3, help="least score of an action that is drawn")
    add("--top", type=int, default=3, help="most actions that are drawn at a box")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    add("opts", nargs="*", default=[], metavar="KEY VALUE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
