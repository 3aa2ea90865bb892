"""Rows of boxes in the CSV form of AVA: drawn ones, detected ones, and excluded key frames."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.datasets.video_list import MissingListError, RowError, raise_wrong_rows
from slowfast_maskfeat.files import is_file, open_text

# Rows that are parsed at a time: 60 MB, whatever the size of the file.
_CHUNK = 2**19
_NAME_BYTES = 64  # of the field of a video's name; a file with longer ones is read row by row
_MAX_WRONG = 50
# Shares are rounded to three decimals in published files.
_ROUNDING = 1e-3
_HEADER_NAMES = frozenset({"video_id", "video", "video_name", "name"})


@dataclass(frozen=True)
class BoxRows:
    """The rows of a file, one for each box and action.

    Attributes:
        path: Of the file.
        names: Of the videos, in the order in which they first come up.
        video: int64 (N,), which of these each row is of.
        seconds: float64 (N,), time of the key frame.
        boxes: float64 (N, 4): x1, y1, x2, y2 as shares of width and height.
        actions: int64 (N,), numbers from 1; -1 for a box without an action.
        last: float64 (N,), the eighth column, a score or a person's number; None without it.
    """

    path: str
    names: tuple[str, ...]
    video: NDArray[np.int64]
    seconds: NDArray[np.float64]
    boxes: NDArray[np.float64]
    actions: NDArray[np.int64]
    last: NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.video)

    def refuse(self, is_wrong: NDArray[np.bool_], what: str) -> None:
        """Say what is wrong with rows, with file and line.

        Args:
            is_wrong: (N,), which rows.
            what: About each, for `format` with `video`, `second`, `action`, `box` and `last`.

        Raises:
            ValueError: Any is.
        """
        rows = np.flatnonzero(is_wrong)[:_MAX_WRONG].tolist()
        if not rows:
            return
        lines = _lines_of(self.path, rows)
        wrong = []
        for row, line in zip(rows, lines, strict=True):
            facts = {
                "video": self.names[self.video[row]],
                "second": f"{self.seconds[row]:g}",
                "action": int(self.actions[row]),
                "box": ", ".join(f"{side:g}" for side in self.boxes[row]),
                "last": None if self.last is None else f"{self.last[row]:g}",
            }
            wrong.append((line, what.format(**facts)))
        raise_wrong_rows(self.path, wrong, is_cut=int(is_wrong.sum()) > len(rows))


def read_box_rows(path: str | os.PathLike[str], *, keep_odd_boxes: bool = False) -> BoxRows:
    """Reads rows `video,second,x1,y1,x2,y2,action` or `...,action,score` (or a person's number).

    A header row may come first. An empty action, or -1, is none. Shares that are off by less than
    rounding to three decimals are put right.

    Args:
        path: The file; anything that iopath's path manager opens.
        keep_odd_boxes: Leave boxes that are turned over or outside of the frame as they are.

    Raises:
        MissingListError: There is no such file.
        ValueError: It has no rows, or some are malformed; the message has file and lines.
    """
    path = os.fspath(path)
    if not is_file(path):
        raise MissingListError(f"{path} does not exist")
    rows = _read_columns(path)
    rows.refuse(
        ~np.isfinite(rows.seconds) | (rows.seconds < 0), "the time {second} is no second from 0 on"
    )
    if keep_odd_boxes:
        rows.refuse(~np.all(np.isfinite(rows.boxes), axis=1), "the box {box} is not four numbers")
        return rows
    x1, y1, x2, y2 = rows.boxes.T
    is_inside = (rows.boxes >= -_ROUNDING) & (rows.boxes <= 1 + _ROUNDING)
    rows.refuse(
        ~np.all(is_inside, axis=1),
        "the box {box} is not inside 0..1: x1, y1, x2, y2 are shares of the frame",
    )
    rows.refuse((x2 < x1) | (y2 < y1), "the box {box} is turned over: x1, y1, x2, y2 is the order")
    rows.boxes.clip(0, 1, out=rows.boxes)
    return rows


def read_excluded(path: str | os.PathLike[str]) -> tuple[list[str], NDArray[np.float64]]:
    """Reads rows `video,second` of key frames that do not count.

    Returns:
        Video and second (N,) of each; none, if the file is empty, as published ones may be.

    Raises:
        MissingListError: There is no such file.
        ValueError: Rows are malformed; the message has file and lines.
    """
    path = os.fspath(path)
    if not is_file(path):
        raise MissingListError(f"{path} does not exist")
    names, seconds, wrong = [], [], []
    for line, fields in box_fields(path):
        try:
            if len(fields) != 2:
                raise RowError(f"`video,second` is wanted, got {','.join(fields)!r}")
            seconds.append(_number(fields[1], "second"))
            names.append(fields[0])
        except RowError as error:
            wrong.append((line, str(error)))
    if wrong:
        raise_wrong_rows(path, wrong)
    return names, np.array(seconds, np.float64)


def _read_columns(path: str) -> BoxRows:
    with _opened(path) as file:
        begin = file.tell()
        num_columns, num_headers = _form(path, file)
        for action in ("i8", "S8"):  # where some are empty the quicker form fails
            file.seek(begin)
            with suppress(ValueError):
                return _read_fast(path, file, num_columns, num_headers, action=action)
    return _read_slowly(path, num_columns)


def _form(path: str, file: TextIO) -> tuple[int, int]:
    """Columns, and lines before the first row, of an open file."""
    rows = _fields_of(file)
    num_headers = 0
    line, fields = next(rows, (0, []))
    if fields and fields[0].lower() in _HEADER_NAMES:
        num_headers = line
        line, fields = next(rows, (0, []))
    if not fields:
        raise ValueError(f"{path} has no rows")
    if len(fields) not in (7, 8):
        text = ",".join(fields).encode("latin-1").decode("utf-8", "replace")
        raise ValueError(
            f"{path}, line {line}: a row must be `video,second,x1,y1,x2,y2,action`, or with a "
            f"score (or a person's number) at its end, got {len(fields)} fields: {text!r}"
        )
    return len(fields), num_headers


def _read_fast(
    path: str, file: TextIO, num_columns: int, num_headers: int, *, action: str
) -> BoxRows:
    """Whole columns of an open file at a time, in C.

    Raises:
        ValueError: Anything is odd.
    """
    fields: list[Any] = [("video", f"S{_NAME_BYTES}"), ("second", "f8"), ("box", "f8", (4,))]
    fields += [("action", action), ("last", "f8")][: num_columns - 6]
    chunks: list[Any] = []
    names: dict[bytes, int] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*nput.* contained no data")  # blank lines, the end
        for _ in range(num_headers):
            file.readline()
        while True:
            chunk = np.loadtxt(file, fields, comments=None, delimiter=",", ndmin=1, max_rows=_CHUNK)
            if len(chunk):
                chunks.append(_numbered(chunk, names))
            if len(chunk) < _CHUNK:
                break
    columns = [np.concatenate(parts) for parts in zip(*chunks, strict=True)]
    video, seconds, boxes, actions, *last = columns
    decoded = tuple(name.decode("utf-8", "surrogateescape") for name in names)
    return BoxRows(path, decoded, video, seconds, boxes, actions, last[0] if last else None)


def _numbered(chunk: Any, names: dict[bytes, int]) -> tuple[NDArray[Any], ...]:
    """The columns of a chunk, with numbers for the names of videos."""
    video = chunk["video"]
    starts = np.flatnonzero(np.concatenate([[True], video[1:] != video[:-1]]))
    of_run = [names.setdefault(bytes(name), len(names)) for name in video[starts].tolist()]
    if any(len(name) >= _NAME_BYTES or not name for name in names):
        raise ValueError("a name is missing, or too long for this way of reading")
    lengths = np.diff(starts, append=len(chunk))
    numbers = np.repeat(np.array(of_run, np.int64), lengths)
    actions = chunk["action"]
    if actions.dtype.kind == "S":
        actions = np.where(actions == b"", b"-1", actions).astype(np.int64)
    columns = [numbers, chunk["second"].copy(), chunk["box"].copy(), actions.copy()]
    if "last" in chunk.dtype.names:
        columns.append(chunk["last"].copy())
    return tuple(columns)


def _read_slowly(path: str, num_columns: int) -> BoxRows:
    """Row by row, to name every malformed one.

    Raises:
        ValueError: Some are.
    """
    names: dict[str, int] = {}
    video: list[int] = []
    numbers: list[list[float]] = []
    actions: list[int] = []
    wrong: list[tuple[int, str]] = []
    for line, fields in box_fields(path):
        try:
            if len(fields) != num_columns:
                raise RowError(
                    f"{num_columns} fields as in the first row wanted, got {len(fields)}"
                )
            if not fields[0]:
                raise RowError("the name of the video is empty")
            row = [_number(text, "time") for text in fields[1:2]]
            row += [_number(text, "box") for text in fields[2:6]]
            row += [_number(text, "score") for text in fields[7:]]
            actions.append(_action(fields[6]))
            numbers.append(row)
            video.append(names.setdefault(fields[0], len(names)))
        except RowError as error:
            wrong.append((line, str(error)))
            if len(wrong) >= _MAX_WRONG:
                break
    if wrong:
        raise_wrong_rows(path, wrong)
    table = np.array(numbers, np.float64).reshape(len(numbers), -1)
    return BoxRows(
        path,
        tuple(names),
        np.array(video, np.int64),
        table[:, 0].copy(),
        table[:, 1:5].copy(),
        np.array(actions, np.int64),
        table[:, 5].copy() if num_columns == 8 else None,
    )


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RowError(f"the {what} is no number: {text!r}") from None


def _action(text: str) -> int:
    if not text:
        return -1
    number = _number(text, "action")
    if number != int(number):
        raise RowError(f"the action is no whole number: {text!r}")
    return int(number)


def _lines_of(path: str, rows: Sequence[int]) -> list[int]:
    """The lines of ascending rows."""
    wanted, lines = iter(rows), []
    row = next(wanted, None)
    for number, (line, _) in enumerate(box_fields(path)):
        if number == row:
            lines.append(line)
            row = next(wanted, None)
            if row is None:
                break
    return lines


def box_fields(path: str) -> Iterator[tuple[int, list[str]]]:
    """Line, from 1, and fields of each row that is neither blank nor the header, as texts."""
    with open_text(path, errors="surrogateescape") as file:
        for number, (line, fields) in enumerate(_fields_of(file)):
            if number or fields[0].lower() not in _HEADER_NAMES:
                yield line, fields


def _fields_of(file: TextIO) -> Iterator[tuple[int, list[str]]]:
    for line, text in enumerate(file, 1):
        fields = [field.strip() for field in next(csv.reader([text]), [])]
        if any(fields):
            yield line, fields


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    """The text with a character a byte: names keep their bytes, whatever they are."""
    with open_text(path, encoding="latin-1") as file:
        if file.read(3) != "\xef\xbb\xbf":  # a mark of UTF-8
            file.seek(0)
        yield file
