"""Actions in the boxes of a video: scores, and the drawn video."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from slowfast_maskfeat.builders import build_task
from slowfast_maskfeat.builders.data import build_key_frame_view
from slowfast_maskfeat.builders.datasets import reverses_channels, video_begin
from slowfast_maskfeat.cli import print_written
from slowfast_maskfeat.commands._options import check_writable, pairs_of
from slowfast_maskfeat.datasets import named_by
from slowfast_maskfeat.datasets.timed_boxes import TimedBoxes, read_timed_boxes
from slowfast_maskfeat.figures import draw_boxes, drawing_scale
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.metrics.ava_map import Detections, write_detections
from slowfast_maskfeat.runs.load_trained import TrainedModel, load_trained
from slowfast_maskfeat.tasks import Detection
from slowfast_maskfeat.videos.decode import Video, open_video
from slowfast_maskfeat.videos.write_video import write_video

# A box is opaque up to the first distance from its timestamp, fades to the minimum opacity at the
# second, and is not drawn beyond.
_OPAQUE_SECONDS, _SHOWN_SECONDS, _MIN_OPACITY = 0.2, 0.5, 0.2
_FRAMES_AT_ONCE = 16


def detect(options: argparse.Namespace) -> None:
    """Score the boxes, write the CSV file and the drawn video.

    Raises:
        ValueError: the checkpoint is not a detector, the boxes are malformed or outside the video,
            or the output can't be written.
        DecodeError: the video can't be decoded.
    """
    if os.path.isdir(options.video):
        raise ValueError(f"--video must be a video file, got the folder {options.video}")
    table, drawn = options.output / "detections.csv", options.output / "detections.mp4"
    check_writable(table)
    trained = load_trained(
        options.checkpoint, device=options.device, config_file=options.cfg, pairs=pairs_of(options)
    )
    task = build_task(trained.cfg, trained.model)
    if not isinstance(task, Detection):
        raise ValueError(
            f"--checkpoint must be a detector, got {options.checkpoint}; use `maskfeat predict` "
            "for clip classifiers"
        )
    data = trained.cfg.DATA
    with open_video(
        options.video, data.DECODING_BACKEND, max_image_pixels=data.MAX_IMAGE_PIXELS
    ) as video:
        with named_by("--boxes"):
            found = read_timed_boxes(options.boxes, video, begin=video_begin(trained.cfg))
        scores = score_boxes(trained, task, video, found)
        names = dict(enumerate(_class_names(trained, scores.shape[1]), start=1))
        detections = Detections(
            names=[Path(options.video).stem],
            video=np.zeros(len(found.boxes), np.int64),
            seconds=found.written,
            boxes=found.boxes,
            scores=scores,
        )
        with atomic_write(table) as part:  # both files, or none if the video breaks further on
            write_detections(part, detections, names)
            lines = _box_texts(scores, list(names.values()), options.threshold, options.top)
            write_video(drawn, _draw_frames(video, found, lines), fps=video.fps)
    num_times = len(np.unique(found.seconds))
    print(f"{len(found.boxes)} boxes at {num_times} timestamps")
    print_written([table, drawn])


@torch.no_grad()
def score_boxes(
    trained: TrainedModel, task: Detection, video: Video, found: TimedBoxes
) -> NDArray[np.float32]:
    """Scores (N, K) of all boxes, from one clip around each timestamp."""
    device = next(trained.model.parameters()).device
    view = build_key_frame_view(trained.cfg, "test")
    reverses = reverses_channels(trained.cfg, "test")
    times, start = np.unique(found.seconds, return_index=True)
    progress = Progress(len(times), "detect", sys.stderr)
    scores = []
    for time, boxes in zip(times, np.split(found.boxes, start[1:]), strict=True):
        clips, placed, _ = view(video, float(time), boxes, np.random.default_rng(0))
        pixels = clips.permute(0, 4, 1, 2, 3)  # (1, C, T, H, W)
        pixels = (pixels.flip(1) if reverses else pixels).to(device)
        logits = task.logits(trained.model, pixels, torch.from_numpy(placed).to(device))
        scores.append(task.activation(logits).cpu().numpy())
        progress.update(1)
    progress.close()
    return np.concatenate(scores)


def _class_names(trained: TrainedModel, num_classes: int) -> list[str]:
    """Class names of the checkpoint, or "action 1", "action 2", ... if it has none."""
    return list(trained.class_names) or [f"action {n}" for n in range(1, num_classes + 1)]


def _box_texts(
    scores: NDArray[np.float32], names: list[str], threshold: float, top: int
) -> list[list[str]]:
    """Lines of text for each box: its actions with the highest scores, the best first."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [f"{names[action]} {row[action]:.2f}" for action in of_box if row[action] >= threshold]
        for row, of_box in zip(scores, best, strict=True)
    ]


def _draw_frames(
    video: Video, found: TimedBoxes, lines: list[list[str]]
) -> Iterator[NDArray[np.uint8]]:
    """Yield all frames of a video with the boxes of the nearest timestamp."""
    times, start = np.unique(found.seconds, return_index=True)
    ends = np.append(start[1:], len(found.seconds))
    progress = Progress(video.num_frames, "draw", sys.stderr)
    for first in range(0, video.num_frames, _FRAMES_AT_ONCE):
        numbers = range(first, min(first + _FRAMES_AT_ONCE, video.num_frames))
        for number, frame in zip(numbers, video.frames(list(numbers)), strict=True):
            distances = np.abs(times - video.timestamps[number])
            nearest = int(distances.argmin())
            is_shown = distances[nearest] <= _SHOWN_SECONDS
            of_time = slice(start[nearest], ends[nearest]) if is_shown else slice(0, 0)
            yield draw_boxes(
                frame,
                found.boxes[of_time],
                lines[of_time],
                scale=drawing_scale(*frame.shape[:2]),
                opacity=_opacity(distances[nearest]),
            )
        progress.update(len(numbers))
    progress.close()


def _opacity(seconds: float) -> float:
    """Opacity of boxes at a distance in seconds from their timestamp."""
    return float(np.interp(seconds, (_OPAQUE_SECONDS, _SHOWN_SECONDS), (1.0, _MIN_OPACITY)))
