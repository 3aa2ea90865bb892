"""CSV files with the boxes of one video: rows of a detector, or in AVA's format."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.datasets.box_rows import ROUNDING, check_header
from slowfast_maskfeat.datasets.key_frames import second_in_file
from slowfast_maskfeat.datasets.row_collector import RowError
from slowfast_maskfeat.files import open_text
from slowfast_maskfeat.videos.video import DecodeError, Video

_FORMS = "`time,x1,y1,x2,y2` or `video,second,x1,y1,x2,y2,action`"
_MAX_NAMED = 10
_MIN_FIELDS = 5  # time and box

_Fields = tuple[int, list[str]]  # line and text of a row


class TimedBoxes(NamedTuple):
    """Boxes of a video, sorted by time.

    Attributes:
        seconds: (N,) float64, on the clock of the video's timestamps.
        boxes: (N, 4) float32, x1, y1, x2, y2 as fractions of width and height.
        written: (N,) float64, the same times as in the file.
    """

    seconds: NDArray[np.float64]
    boxes: NDArray[np.float32]
    written: NDArray[np.float64]


def read_timed_boxes(path: str, video: Video, *, begin: float | None = None) -> TimedBoxes:
    """Read the boxes of a video.

    Rows are `time,x1,y1,x2,y2` with the time on the clock of the video, and any further columns; or
    `video,second,x1,y1,x2,y2` with AVA's further columns, of which equal boxes are one box and the
    rows of other videos are skipped. If a coordinate is above 1, all of them are pixels. A header
    may precede the rows.

    Args:
        path: the file.
        video: the open video. Its name in AVA's format is that of the file, with or without the
            extension.
        begin: time in AVA's format at which the video begins, see `second_in_file`.

    Raises:
        ValueError: the file has no box of the video, or rows are malformed or outside of the video;
            the message has the columns and the lines.
    """
    rows = _read_rows(path)
    file_name = os.path.basename(video.path)
    names = (os.path.splitext(file_name)[0], file_name)
    has_names = _have_names(rows, names)
    found, wrong = [], []
    for line, fields in rows:
        if has_names and fields[0] not in names:
            continue
        try:
            numbers = _numbers(fields[1:] if has_names else fields)
            timestamp = _timestamp(numbers[0], video, begin) if has_names else numbers[0]
            _check(timestamp, numbers, video)
            found.append((timestamp, *numbers))
        except RowError as error:
            wrong.append(f"line {line}: {error}")
    if wrong:
        more = f", and {len(wrong) - _MAX_NAMED} more" if len(wrong) > _MAX_NAMED else ""
        raise ValueError(f"{path}: {'; '.join(wrong[:_MAX_NAMED])}{more}; a row must be {_FORMS}")
    if not found:
        others = ", ".join(sorted({repr(fields[0]) for _, fields in rows})[:5])
        what = f" of the video {names[0]!r}, got those of {others}" if rows else ", got none"
        raise ValueError(f"{path} must have at least one box{what}; a row must be {_FORMS}")
    table = np.array(sorted(set(found) if has_names else found), np.float64)
    return TimedBoxes(table[:, 0], _fractions(table[:, 2:], path, video), table[:, 1])


def _read_rows(path: str) -> list[_Fields]:
    """Read all rows but blank ones and a header, which has no number."""
    with open_text(path, errors="surrogateescape") as file:
        reader = csv.reader(file)
        try:
            rows = [(reader.line_num, [field.strip() for field in fields]) for fields in reader]
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    rows = [row for row in rows if any(row[1])]
    if rows and len(rows[0][1]) >= _MIN_FIELDS and not any(map(_is_number, rows[0][1])):
        check_header(path, *rows.pop(0))
    return rows


def _have_names(rows: Sequence[_Fields], names: Sequence[str]) -> bool:
    """Whether rows begin with the name of their video, which may be a number."""
    if not rows or len(rows[0][1]) < 6:
        return False
    return not _is_number(rows[0][1][0]) or all(fields[0] in names for _, fields in rows)


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        float(text)
        return True
    return False


def _is_finite(text: str) -> bool:
    return _is_number(text) and math.isfinite(float(text))


def _numbers(fields: Sequence[str]) -> tuple[float, ...]:
    """Time and box of a row."""
    if len(fields) < _MIN_FIELDS or not all(map(_is_finite, fields[:5])):
        raise RowError(f"time and box must be five numbers, got {','.join(fields[:5])!r}")
    return tuple(map(float, fields[:5]))


def _timestamp(second: float, video: Video, begin: float | None) -> float:
    """Time of a key frame on the clock of the video."""
    try:
        inside = second_in_file(video.path, second, begin, video.duration)
    except DecodeError as error:
        raise RowError(error.reason) from error
    return float(video.timestamps[0]) + inside


def _check(timestamp: float, numbers: tuple[float, ...], video: Video) -> None:
    """Check the box of a row, and that its time is that of a frame."""
    time, x1, y1, x2, y2 = numbers
    if not (x1 < x2 and y1 < y2 and min(x1, y1) >= -ROUNDING):
        raise RowError(
            f"the box must have 0 <= x1 < x2 and 0 <= y1 < y2, got {x1:g}, {y1:g}, {x2:g}, {y2:g}"
        )
    first = float(video.timestamps[0])
    last = first + video.duration
    if timestamp == time and not first <= timestamp <= last:
        raise RowError(
            f"the time must be within the video, {first:g} to {last:g} s, got {time:g} s"
        )


def _fractions(boxes: NDArray[np.float64], path: str, video: Video) -> NDArray[np.float32]:
    """Fractions of width and height from boxes that may be in pixels."""
    if boxes.max() > 1 + ROUNDING:
        height, width = video.frames([0]).shape[1:3]
        size = np.array([width, height] * 2)
        if (boxes > size).any():
            raise ValueError(
                f"{path}: boxes must be x1, y1, x2, y2 within the {width}x{height} pixels of the "
                f"video, got {boxes[:, [0, 2]].max():g}, {boxes[:, [1, 3]].max():g}"
            )
        boxes = boxes / size
    return boxes.clip(0, 1).astype(np.float32)
