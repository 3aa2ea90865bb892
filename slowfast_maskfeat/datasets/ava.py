"""AVA and data sets in its format: CSV files with boxes at key frames of videos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.datasets.ava_media import AvaMedia
from slowfast_maskfeat.datasets.box_rows import BoxRows, read_box_rows
from slowfast_maskfeat.datasets.key_frames import BoxTable, KeyFrames
from slowfast_maskfeat.datasets.label_map import read_labelmap
from slowfast_maskfeat.datasets.video_list import DataFolder, named_by


@dataclass(frozen=True)
class AvaFolder(DataFolder):
    """Location of a data set in AVA's format; `path` is the folder of the annotations.

    Attributes:
        media: location of the videos or frames.
        label_map: label map; like the files below relative to `path` (AVA.LABEL_MAP_FILE).
        ground_truth: annotated boxes for training (AVA.TRAIN_GT_BOX_LISTS).
        train_boxes: detected boxes for training (AVA.TRAIN_PREDICT_BOX_LISTS).
        test_boxes: detected boxes for validation and test (AVA.TEST_PREDICT_BOX_LISTS).
        score_threshold: minimum score of a detected box (AVA.DETECTION_SCORE_THRESH).
        every: validation uses the seconds divisible by this number (AVA.FULL_TEST_ON_VAL).
        multi_label: a box has any number of actions, else exactly one (AVA.MULTI_LABEL).
    """

    media: AvaMedia = field(default_factory=AvaMedia)
    label_map: str = ""
    ground_truth: tuple[str, ...] = ()
    train_boxes: tuple[str, ...] = ()
    test_boxes: tuple[str, ...] = ()
    score_threshold: float = 0.9
    every: int = 1
    multi_label: bool = True

    def inside(self, name: str) -> str:
        """Path of an annotation file."""
        return os.path.join(self.path, name)

    @cached_property
    def actions(self) -> dict[int, str]:
        """Number (from 1) -> name of each evaluated action, from the label map.

        Raises:
            ValueError: the label map is missing or malformed.
        """
        if not self.label_map:
            raise ValueError(
                "AVA.LABEL_MAP_FILE must be the file with the numbers and names of actions, got ''"
            )
        with named_by("AVA.LABEL_MAP_FILE"):
            return read_labelmap(self.inside(self.label_map))


class _Rows(NamedTuple):
    """Rows of all files, one for each box and action."""

    video: NDArray[np.int64]
    seconds: NDArray[np.float64]
    boxes: NDArray[np.float64]
    actions: NDArray[np.int64]  # -1 for none
    scores: NDArray[np.float64]


class _Boxes(NamedTuple):
    """Unique boxes in the order of videos, seconds and rows."""

    video: NDArray[np.int64]
    seconds: NDArray[np.float64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    num_actions: NDArray[np.int64]
    actions: NDArray[np.int64]  # of all boxes, concatenated


def read_ava(data: DataFolder, split: str, class_names: Sequence[str] | None = None) -> KeyFrames:
    """Read the key frames of a split that have a box, with all their boxes.

    Training uses annotated and detected boxes, and merges equal ones, with the actions of all of
    them. Validation and test use detected boxes. Detected boxes below the threshold are dropped; a
    file without scores, or with person ids instead, is used entirely.

    Args:
        data: an `AvaFolder`.
        split: "train", "val" or "test".
        class_names: names of all actions, starting with number 1; None: those of the label map.

    Raises:
        MissingListError: a file is missing.
        ValueError: rows are malformed, an action is not a class, a video is missing, or no box
            remains.
    """
    assert isinstance(data, AvaFolder)
    classes = tuple(class_names or ava_class_names(data) or ())
    files = _files(data, split)
    numbers: dict[str, int] = {}
    notes: list[str] = []
    parts = []
    every = data.every if split == "val" else 1
    for key, file, threshold in files:
        with named_by(key):
            rows = read_box_rows(data.inside(file))
            _check_actions(rows, len(classes), data.inside(data.label_map))
            part, note = _chosen(rows, threshold, every, numbers)
        notes += [f"{file}: {note}"] if note else []
        parts.append(part)
    source = ", ".join(data.inside(file) for _, file, _ in files)
    columns = _Rows(*map(np.concatenate, zip(*parts, strict=True)))
    if not len(columns.video):
        raise ValueError(f"{source}: no box remains: {'; '.join(notes)}")
    # Videos without a box that is used are not looked for.
    is_used = np.bincount(columns.video, minlength=len(numbers)) > 0
    names = tuple(name for name, number in numbers.items() if is_used[number])
    boxes = _merged(columns._replace(video=(is_used.cumsum() - 1)[columns.video]))
    if split == "train":
        boxes = _learnable(boxes, names, data.multi_label, source, notes)
    media = data.media.find(names, split, source)
    changes = np.diff(boxes.video) | (np.diff(boxes.seconds) != 0)
    ends = np.append(np.flatnonzero(changes) + 1, len(boxes.video))
    return KeyFrames(
        media,
        boxes.video[ends - 1],
        boxes.seconds[ends - 1],
        ends,
        BoxTable(
            boxes=boxes.boxes.astype(np.float32),
            scores=boxes.scores.astype(np.float32),
            actions=boxes.actions - 1,
            action_ends=boxes.num_actions.cumsum(),
            num_classes=len(classes),
            multi_label=data.multi_label,
        ),
        every=every,
        source=source,
        notes=tuple(notes),
    )


def ava_class_names(data: DataFolder) -> tuple[str, ...] | None:
    """Names of all actions from number 1 to the highest in the label map.

    The label map of AVA's challenge lacks actions that are too rare to be evaluated. The model
    learns them as well; here they are named by their number.

    Raises:
        ValueError: the label map is missing or malformed.
    """
    assert isinstance(data, AvaFolder)
    names = data.actions
    return tuple(names.get(number, f"action {number}") for number in range(1, max(names) + 1))


def _check_actions(rows: BoxRows, num_classes: int, label_map: str) -> None:
    """Check that all actions are classes.

    Raises:
        ValueError: some are not; the message names file and lines.
    """
    is_wrong = (rows.actions != -1) & ((rows.actions < 1) | (rows.actions > num_classes))
    where = label_map.replace("{", "{{").replace("}", "}}")  # the text is a format
    rows.refuse(is_wrong, f"the action must be in 1..{num_classes} ({where}), got {{action}}")


def _files(data: AvaFolder, split: str) -> list[tuple[str, str, float | None]]:
    """Files of boxes of a split, each after its key and before the threshold on its scores."""
    if split != "train":
        key = "AVA.TEST_PREDICT_BOX_LISTS"
        if not data.test_boxes:
            raise ValueError(f"{key} must name files of boxes, got []")
        return [(key, file, data.score_threshold) for file in data.test_boxes]
    files: list[tuple[str, str, float | None]] = [
        ("AVA.TRAIN_GT_BOX_LISTS", file, None) for file in data.ground_truth
    ]
    key = "AVA.TRAIN_PREDICT_BOX_LISTS"
    files += [(key, file, data.score_threshold) for file in data.train_boxes]
    if not files:
        raise ValueError("AVA.TRAIN_GT_BOX_LISTS must name files of boxes, got []")
    return files


def _chosen(
    rows: BoxRows, threshold: float | None, every: int, numbers: dict[str, int]
) -> tuple[_Rows, str]:
    """Rows of a file above the threshold, and a note on the others.

    `numbers` maps the videos of all files to their numbers; new ones are added.
    """
    scores = np.ones(len(rows))
    if threshold is not None and rows.last is not None and (rows.last % 1).any():
        rows.refuse(
            ~((rows.last >= 0) & (rows.last <= 1)), "the score must be in [0, 1], got {last}"
        )
        scores = rows.last
    note = ""
    if threshold is not None and rows.last is not None and scores is not rows.last:
        note = (
            "the eighth column has integers only, so they are numbers of persons and not scores: "
            f"all rows are used, whatever AVA.DETECTION_SCORE_THRESH {threshold:g}"
        )
    is_sure = scores >= (threshold or 0)
    counts = is_sure & (rows.seconds.astype(np.int64) % every == 0)
    for name in rows.names:
        numbers.setdefault(name, len(numbers))
    video = np.array([numbers[name] for name in rows.names], np.int64)[rows.video]
    part = _Rows(video, rows.seconds, rows.boxes, rows.actions, scores)
    left_out = len(rows) - int(is_sure.sum())
    if left_out:
        note = (
            f"ignored {left_out} of {len(rows)} rows with scores below {threshold:g} "
            "(AVA.DETECTION_SCORE_THRESH)"
        )
    return _Rows(*(column[counts] for column in part)), note


def _merged(rows: _Rows) -> _Boxes:
    """Merge equal boxes of a key frame: all of their actions, and the highest score."""
    order = np.lexsort((*rows.boxes.T[::-1], rows.seconds, rows.video))
    sides, video, seconds = rows.boxes[order], rows.video[order], rows.seconds[order]
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (
        (sides[1:] != sides[:-1]).any(1) | (video[1:] != video[:-1]) | (seconds[1:] != seconds[:-1])
    )
    starts = np.flatnonzero(is_new)
    # Equal rows are in the order of the files, so the first one has the place of the box.
    place = np.lexsort((order[starts], seconds[starts], video[starts]))
    rank = np.empty(len(starts), np.int64)
    rank[place] = np.arange(len(starts))
    box_of_row = rank[is_new.cumsum() - 1]
    actions = rows.actions[order]
    has_action = actions > 0
    width = int(actions.max(initial=0)) + 1
    pairs = np.sort(box_of_row[has_action] * width + actions[has_action])
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]  # several times faster than np.unique
    return _Boxes(
        video=video[starts][place],
        seconds=seconds[starts][place],
        boxes=sides[starts][place],
        scores=np.maximum.reduceat(rows.scores[order], starts)[place],
        num_actions=np.bincount(pairs // width, minlength=len(starts)),
        actions=pairs % width,
    )


def _learnable(
    boxes: _Boxes, names: Sequence[str], multi_label: bool, source: str, notes: list[str]
) -> _Boxes:
    """Boxes that can be trained on; a note on the others is added to `notes`.

    Raises:
        ValueError: no box has an action, or one has several without `multi_label`.
    """
    if not len(boxes.actions):
        raise ValueError(f"{source}: boxes to train on must have actions, got none")
    if multi_label:
        return boxes
    several = np.flatnonzero(boxes.num_actions > 1)
    if len(several):
        first = several[0]
        where = f"{names[boxes.video[first]]} at {boxes.seconds[first]:g} s"
        box = ", ".join(f"{side:g}" for side in boxes.boxes[first])
        raise ValueError(
            f"{source}: boxes must have one action each with AVA.MULTI_LABEL False, got "
            f"{len(several)} boxes with several, such as {box} of {where}"
        )
    is_labeled = boxes.num_actions == 1
    if not is_labeled.all():
        count = int((~is_labeled).sum())
        notes.append(f"ignored {count} of {len(is_labeled)} boxes, which have no action")
    return _Boxes(
        video=boxes.video[is_labeled],
        seconds=boxes.seconds[is_labeled],
        boxes=boxes.boxes[is_labeled],
        scores=boxes.scores[is_labeled],
        num_actions=boxes.num_actions[is_labeled],
        actions=boxes.actions,
    )
