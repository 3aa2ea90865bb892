"""Mean average precision of boxes with actions, as defined by AVA.

Source: AVA (Gu et al., 2018, arXiv 1705.08421), section 4, and the rules of its challenge: a
detection is correct if it overlaps a box of its class in its key frame by an IoU of 0.5, precision
is made monotonic, and the area under its steps is the AP (VOC 2010). Of several detections of one
box, that with the highest score is the correct one, whatever the order of the file. Deviation: the
published training code takes the first in the file.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.augment.boxes import has_area
from slowfast_maskfeat.datasets.box_rows import Excluded, read_box_rows, read_excluded
from slowfast_maskfeat.datasets.label_map import read_labelmap
from slowfast_maskfeat.metrics.average_precision import average_precision
from slowfast_maskfeat.metrics.box_hits import BoxHits, count_hits, distinct_boxes

__all__ = [
    "AvaResult",
    "Detections",
    "GroundTruth",
    "check_overlap",
    "evaluate",
    "evaluate_detections",
    "key_frame_numbers",
    "measure_hits",
    "read_ground_truth",
    "read_labelmap",
    "write_detections",
]


@dataclass(frozen=True)
class Detections:
    """Boxes with a score for each of K classes; column c is action c + 1.

    Attributes:
        names: of videos.
        video: (N,) int64, index of each box's video in `names`.
        seconds: (N,) float64, time of its key frame.
        boxes: (N, 4): x1, y1, x2, y2 as fractions of width and height.
        scores: (N, K).
    """

    names: Sequence[str]
    video: NDArray[np.int64]
    seconds: NDArray[np.float64]
    boxes: NDArray[np.floating]
    scores: NDArray[np.floating]

    def __post_init__(self) -> None:
        lengths = {len(x) for x in (self.video, self.seconds, self.boxes, self.scores)}
        if len(lengths) > 1 or self.boxes.shape[1:] != (4,) or self.scores.ndim != 2:
            raise ValueError(
                "Detections: video, seconds, boxes and scores must be (N,), (N,), (N, 4) and "
                f"(N, K), got {self.video.shape}, {self.seconds.shape}, {self.boxes.shape} and "
                f"{self.scores.shape}"
            )


@dataclass(frozen=True)
class GroundTruth:
    """Ground truth, one row per box and action; excluded key frames are left out.

    Attributes:
        path: of the file.
        labelmap: number of each evaluated action -> its name.
        videos: name of each video -> its number.
        frames: (F,) int64, the evaluated key frames, ascending, numbered by `_frame_numbers`.
        frame: (N,) int64, key frame of each row.
        boxes: (N, 4) float64.
        actions: (N,) int64, numbers from 1; only those of the label map.
        excluded: int64, excluded key frames.
    """

    path: str
    labelmap: Mapping[int, str]
    videos: Mapping[str, int]
    frames: NDArray[np.int64]
    frame: NDArray[np.int64]
    boxes: NDArray[np.float64]
    actions: NDArray[np.int64]
    excluded: NDArray[np.int64]


@dataclass(frozen=True)
class AvaResult:
    """Mean AP, with the counts behind it.

    Attributes:
        mean_ap: over the counted classes, in [0, 1].
        per_class_ap: name -> AP, in the order of the label map; NaN for a class without ground
            truth, which is not counted.
        per_class_boxes: name -> boxes of the ground truth.
        num_classes_counted: classes with ground truth.
        num_classes: classes of the label map.
        num_frames_matched: key frames of the ground truth with any detection.
        num_frames_expected: key frames of the ground truth.
        num_frames_unexpected: key frames with detections only, which are false positives.
        num_boxes: distinct detected boxes that were counted.
        num_boxes_dropped: detected boxes (of a file, rows) without area.
        num_boxes_expected: distinct boxes of the ground truth.
        num_boxes_hit: those that a detected box, whatever its class, overlaps by an IoU of 0.5.
        hit_share: `num_boxes_hit` over `num_boxes_expected`.
        warning: sentence about a `hit_share` below a tenth, or boxes with x and y exchanged; else
            empty.
    """

    mean_ap: float
    per_class_ap: dict[str, float]
    per_class_boxes: dict[str, int]
    num_classes_counted: int
    num_classes: int
    num_frames_matched: int
    num_frames_expected: int
    num_frames_unexpected: int
    num_boxes: int
    num_boxes_dropped: int
    num_boxes_expected: int
    num_boxes_hit: int
    hit_share: float
    warning: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, for a log line.

        A class that is not counted has None, and an empty warning is left out.
        """
        per_class = {name: None if ap != ap else ap for name, ap in self.per_class_ap.items()}
        fields = {**self.__dict__, "per_class_ap": per_class}
        return {name: value for name, value in fields.items() if name != "warning" or value}


def evaluate(
    groundtruth_csv: str | os.PathLike[str],
    detections_csv: str | os.PathLike[str],
    labelmap: Mapping[int, str],
    excluded_csv: str | os.PathLike[str] | None = None,
) -> AvaResult:
    """Evaluate a file of detections.

    Args:
        groundtruth_csv: rows `video,second,x1,y1,x2,y2,action`, optionally with a person's number.
        detections_csv: rows `video,second,x1,y1,x2,y2,action,score`.
        labelmap: number of each evaluated action -> its name; rows of other actions are ignored in
            both files. See `read_labelmap`.
        excluded_csv: rows `video,second` of key frames to exclude.

    Raises:
        MissingListError: a file is missing.
        ValueError: a file is malformed, no ground truth is left, or the detections share no key
            frame with it.

    Warns:
        UserWarning: the detections hit less than a tenth of the boxes of the ground truth.
    """
    truth = read_ground_truth(groundtruth_csv, labelmap, excluded_csv)
    rows = read_box_rows(detections_csv, keep_odd_boxes=True)
    if rows.last is None:
        raise ValueError(f"{rows.path}: the rows must have a score as their eighth column")
    rows.refuse(~np.isfinite(rows.last), "the score must be finite, got {last}")
    frame = _frame_numbers(rows.names, rows.video, rows.seconds, truth.videos)
    _refuse_other_split(truth, frame, rows.path)
    counts = np.isin(rows.actions, list(labelmap)) & ~np.isin(frame, truth.excluded)
    is_box = has_area(rows.boxes)
    kept = np.flatnonzero(counts & is_box)
    kept = kept[np.argsort(rows.actions[kept], kind="stable")]  # those of a class together
    actions, frame, boxes, scores = (
        rows.actions[kept],
        frame[kept],
        rows.boxes[kept],
        rows.last[kept],
    )
    bounds = np.searchsorted(actions, [[action, action + 1] for action in labelmap])
    found = (_Found(frame[begin:end], boxes[begin:end], scores[begin:end]) for begin, end in bounds)
    num_dropped = int((counts & ~is_box).sum())
    result = _evaluate(truth, found, frame, boxes, num_dropped=num_dropped)
    if result.warning:
        warnings.warn(f"{rows.path}: {result.warning}", UserWarning, stacklevel=2)
    return result


def evaluate_detections(truth: GroundTruth, detections: Detections) -> AvaResult:
    """Evaluate boxes that have scores for all classes.

    Args:
        truth: see `read_ground_truth`.
        detections: of a model.

    Raises:
        ValueError: a class of the label map has no column, a score is not finite, or the
            detections share no key frame with the ground truth.
    """
    num_columns, highest = detections.scores.shape[1], max(truth.labelmap)
    if highest > num_columns:
        raise ValueError(
            f"the label map has action {highest}, {truth.labelmap[highest]!r}, but the "
            f"detections have scores of {num_columns} classes"
        )
    if not np.isfinite(detections.scores).all():
        raise ValueError("detections: all scores must be finite")
    frame = _frame_numbers(detections.names, detections.video, detections.seconds, truth.videos)
    _refuse_other_split(truth, frame, "detections")
    is_box = has_area(detections.boxes)
    counts = ~np.isin(frame, truth.excluded)
    kept = np.flatnonzero(counts & is_box)
    frame, boxes = frame[kept], detections.boxes[kept].astype(np.float64)
    found = (_Found(frame, boxes, detections.scores[kept, a - 1]) for a in truth.labelmap)
    return _evaluate(truth, found, frame, boxes, num_dropped=int((counts & ~is_box).sum()))


def read_ground_truth(
    path: str | os.PathLike[str],
    labelmap: Mapping[int, str],
    excluded: str | os.PathLike[str] | Excluded | None = None,
    *,
    every: int = 1,
) -> GroundTruth:
    """Read the ground truth.

    Args:
        path: rows `video,second,x1,y1,x2,y2,action`, optionally with a person's number.
        labelmap: number of each evaluated action -> its name; rows of other actions are ignored.
        excluded: rows `video,second` of key frames to exclude, or what `read_excluded` returned;
            None for none.
        every: evaluate only key frames whose second is a multiple of this.

    Raises:
        MissingListError: a file is missing.
        ValueError: a file is malformed, the label map is empty, or no row is left.
    """
    if not labelmap:
        raise ValueError("the label map must have at least one class, but it is empty")
    rows = read_box_rows(path)
    videos = {name: number for number, name in enumerate(rows.names)}
    frame = _frame_numbers(rows.names, rows.video, rows.seconds, videos)
    left_out = np.empty(0, np.int64)
    if excluded is not None:
        if not isinstance(excluded, Excluded):
            excluded = read_excluded(excluded)
        order = np.arange(len(excluded.names))
        left_out = _frame_numbers(excluded.names, order, excluded.seconds, videos)
    counts = ~np.isin(frame, left_out) & (rows.seconds.astype(np.int64) % every == 0)
    is_listed = counts & np.isin(rows.actions, list(labelmap))
    if not is_listed.any():
        raise ValueError(
            f"{rows.path}: none of its {len(rows)} rows is evaluated: their actions are not in the "
            "label map, or their key frames are excluded"
        )
    return GroundTruth(
        path=rows.path,
        labelmap=dict(labelmap),
        videos=videos,
        frames=np.unique(frame[counts]),
        frame=frame[is_listed],
        boxes=rows.boxes[is_listed],
        actions=rows.actions[is_listed],
        excluded=left_out,
    )


def check_overlap(
    truth: GroundTruth,
    names: Sequence[str],
    video: NDArray[np.int64],
    seconds: NDArray[np.float64],
    source: str,
) -> None:
    """Check that key frames are of the same split as the ground truth.

    Args:
        truth: see `read_ground_truth`.
        names: of videos.
        video: (N,), index of each key frame's video in `names`.
        seconds: (N,), its time.
        source: origin of the key frames, for the message.

    Raises:
        ValueError: they share no key frame with the ground truth.
    """
    _refuse_other_split(truth, _frame_numbers(names, video, seconds, truth.videos), source)


def measure_hits(
    truth: GroundTruth,
    names: Sequence[str],
    video: NDArray[np.int64],
    seconds: NDArray[np.float64],
    boxes: NDArray[np.floating],
) -> BoxHits:
    """Count the boxes of the ground truth that boxes hit, before any of these has a score.

    Args:
        truth: see `read_ground_truth`.
        names: of videos.
        video: (N,), index of each box's video in `names`.
        seconds: (N,), time of its key frame.
        boxes: (N, 4).
    """
    frame = _frame_numbers(names, video, seconds, truth.videos)
    return count_hits(frame, boxes, truth.frame, truth.boxes)


def key_frame_numbers(truth: GroundTruth, detections: Detections) -> NDArray[np.int64]:
    """Number the key frame of each detected box as `GroundTruth.frame` does: (N,)."""
    return _frame_numbers(detections.names, detections.video, detections.seconds, truth.videos)


def write_detections(
    path: str | os.PathLike[str], detections: Detections, labelmap: Mapping[int, str]
) -> None:
    """Write the challenge's format: `video,second,x1,y1,x2,y2,action,score`, one row per class.

    Coordinates and scores have six decimals, so that the mAP of the file agrees to about that.

    Args:
        path: of the file.
        detections: of a model.
        labelmap: the actions to write.
    """
    columns = [action - 1 for action in labelmap]
    names = [_field(name) for name in detections.names]
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        for video, second, box, scores in zip(
            detections.video.tolist(),
            detections.seconds.tolist(),
            detections.boxes.tolist(),
            detections.scores[:, columns],
            strict=True,
        ):
            sides = ",".join(f"{side:.6f}" for side in box)
            head = f"{names[video]},{_second_text(second)},{sides},"
            form = "".join(f"{head.replace('%', '%%')}{action},%.6f\n" for action in labelmap)
            file.write(form % tuple(scores.tolist()))


def _field(text: str) -> str:
    """Quote a text as CSV if it needs that."""
    return '"{}"'.format(text.replace('"', '""')) if set(text) & set(',"') else text


class _Found(NamedTuple):
    """The detections of one class."""

    frame: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.floating]


def _evaluate(
    truth: GroundTruth,
    found: Iterator[_Found],
    frame: NDArray[np.int64],
    boxes: NDArray[np.float64],
    *,
    num_dropped: int,
) -> AvaResult:
    """Evaluate class by class, in the order of the label map.

    Args:
        truth: the ground truth.
        found: the detections of each class.
        frame: (N,), of all detections.
        boxes: (N, 4), of all detections.
        num_dropped: detections that were left out.
    """
    per_class, per_class_boxes = {}, {}
    for (action, name), of_class in zip(truth.labelmap.items(), found, strict=True):
        rows = np.flatnonzero(truth.actions == action)
        rows = rows[np.argsort(truth.frame[rows], kind="stable")]
        per_class_boxes[name] = len(rows)
        per_class[name] = average_precision(*of_class, truth.frame[rows], truth.boxes[rows])
    values = np.array(list(per_class.values()))
    is_matched = np.isin(truth.frames, frame)
    distinct = distinct_boxes(frame, boxes)  # a file repeats a box for each of its classes
    hits = count_hits(frame[distinct], boxes[distinct], truth.frame, truth.boxes)
    detected = np.unique(frame)
    return AvaResult(
        mean_ap=float(np.nanmean(values)),
        per_class_ap=per_class,
        per_class_boxes=per_class_boxes,
        num_classes_counted=int((~np.isnan(values)).sum()),
        num_classes=len(values),
        num_frames_matched=int(is_matched.sum()),
        num_frames_expected=len(truth.frames),
        num_frames_unexpected=int((~np.isin(detected, truth.frames)).sum()),
        num_boxes=len(distinct),
        num_boxes_dropped=num_dropped,
        num_boxes_expected=hits.num_boxes,
        num_boxes_hit=hits.num_hit,
        hit_share=hits.share,
        warning=hits.warning,
    )


def _frame_numbers(
    names: Sequence[str],
    video: NDArray[np.integer],
    seconds: NDArray[np.float64],
    known: Mapping[str, int],
) -> NDArray[np.int64]:
    """Number key frames: the number of the video, and milliseconds in the lower 32 bits.

    Args:
        names: of videos.
        video: (N,), index of each key frame's video in `names`.
        seconds: (N,).
        known: name -> number of videos; other videos get further numbers.
    """
    others = dict.fromkeys(name for name in names if name not in known)
    numbers = {**known, **{name: len(known) + i for i, name in enumerate(others)}}
    table = np.array([numbers[name] for name in names], np.int64)
    return (table[video] << 32) + np.rint(seconds * 1000).astype(np.int64)


def _refuse_other_split(truth: GroundTruth, frame: NDArray[np.int64], source: str) -> None:
    if not len(frame):
        raise ValueError(f"{source}: there are no detections")
    if not np.isin(truth.frames, frame).any():
        raise ValueError(
            f"{source}: the detections share no key frame (video and second) with the ground truth "
            f"{truth.path}: they belong to another split, or videos and times are written "
            "differently"
        )


def _second_text(second: float) -> str:
    """`0902`, as published; with a fraction `0902.5`."""
    whole, thousandths = divmod(round(second * 1000), 1000)
    return f"{whole:04d}" + (f".{thousandths:03d}".rstrip("0") if thousandths else "")
