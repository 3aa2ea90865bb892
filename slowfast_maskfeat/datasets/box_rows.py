"""CSV files in AVA's format: annotated boxes, detected boxes, excluded key frames."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.datasets.row_collector import RowError, raise_wrong_rows
from slowfast_maskfeat.datasets.video_list import MissingListError
from slowfast_maskfeat.files import is_file, open_text
from slowfast_maskfeat.text import cut, quoted

# Rows that are parsed at a time: 60 MB, for files of any size.
_CHUNK = 2**19
_NAME_BYTES = 64  # of a video's name; files with longer ones are read row by row
_MAX_WRONG = 50
# Coordinates are rounded to three decimals in published files.
ROUNDING = 1e-3
_FORM = "`video,second,x1,y1,x2,y2,action`, or with a score or a person id at its end"
_SIDES = ("x1", "y1", "x2", "y2")
_MAX_ACTION = 2**31  # far above the numbers of every label map
_HEADER_NAMES = frozenset({"video_id", "video", "video_name", "name"})


@dataclass(frozen=True)
class BoxRows:
    """Rows of a file, one for each box and action.

    Attributes:
        path: path of the file.
        names: names of the videos in the order of their first occurrence.
        video: int64 (N,), index into `names`.
        seconds: float64 (N,), time of the key frame.
        boxes: float64 (N, 4): x1, y1, x2, y2 as fractions of width and height.
        actions: int64 (N,), numbers from 1; -1 for a box without an action.
        last: float64 (N,), the eighth column, a score or a person id; None without that column.
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
        """Raise an error that names file and lines of wrong rows, if there are any.

        Args:
            is_wrong: bool (N,).
            what: error of a row, to be formatted with `video`, `second`, `action`, `box`, `last`.

        Raises:
            ValueError: `is_wrong` has a True.
        """
        rows = np.flatnonzero(is_wrong)[:_MAX_WRONG].tolist()
        if not rows:
            return
        lines = _lines_of(self.path, rows)
        wrong = []
        for row, line in zip(rows, lines, strict=True):
            facts = {
                "video": cut(self.names[self.video[row]]),
                "second": f"{self.seconds[row]:g}",
                "action": int(self.actions[row]),
                "box": ", ".join(f"{side:g}" for side in self.boxes[row]),
                "last": None if self.last is None else f"{self.last[row]:g}",
            }
            wrong.append((line, what.format(**facts)))
        raise_wrong_rows(self.path, wrong, is_cut=int(is_wrong.sum()) > len(rows))


def read_box_rows(path: str | os.PathLike[str], *, keep_odd_boxes: bool = False) -> BoxRows:
    """Read rows `video,second,x1,y1,x2,y2,action` or `...,action,score` (or a person id).

    A header may precede them. An empty action and -1 mean no action. Coordinates outside of the
    frame by a rounding to three decimals are clipped.

    Args:
        path: the file; anything that `files.open_file` opens.
        keep_odd_boxes: keep boxes with swapped corners or outside of the frame.

    Raises:
        MissingListError: the file does not exist.
        ValueError: the file has no rows, or some are malformed; the message names file and lines.
    """
    path = os.fspath(path)
    if not is_file(path):
        raise MissingListError(f"{path} does not exist")
    rows = _read_columns(path)
    rows.refuse(
        ~np.isfinite(rows.seconds) | (rows.seconds < 0),
        "the time must be seconds >= 0, got {second}",
    )
    if keep_odd_boxes:
        rows.refuse(
            ~np.all(np.isfinite(rows.boxes), axis=1), "the box must be four numbers, got {box}"
        )
        return rows
    x1, y1, x2, y2 = rows.boxes.T
    is_inside = (rows.boxes >= -ROUNDING) & (rows.boxes <= 1 + ROUNDING)
    rows.refuse(
        ~np.all(is_inside, axis=1),
        "the box must be x1, y1, x2, y2 in [0, 1], as fractions of the frame, not in pixels, got "
        "{box}",
    )
    rows.refuse(
        (x2 < x1) | (y2 < y1), "the box must be x1, y1, x2, y2 with x1 <= x2, y1 <= y2, got {box}"
    )
    rows.boxes.clip(0, 1, out=rows.boxes)
    return rows


class Excluded(NamedTuple):
    """Key frames to exclude from the evaluation.

    Attributes:
        names: videos of the N key frames.
        seconds: float64 (N,).
    """

    names: list[str]
    seconds: NDArray[np.float64]


def read_excluded(path: str | os.PathLike[str]) -> Excluded:
    """Read rows `video,second` of key frames to exclude from the evaluation.

    Returns:
        The key frames; the file may be empty, as published ones are.

    Raises:
        MissingListError: the file does not exist.
        ValueError: rows are malformed; the message names file and lines.
    """
    path = os.fspath(path)
    if not is_file(path):
        raise MissingListError(f"{path} does not exist")
    names, seconds, wrong = [], [], []
    for line, fields in box_fields(path):
        try:
            if len(fields) != 2:
                raise RowError(f"a row must be `video,second`, got {quoted(','.join(fields))}")
            seconds.append(_number(fields[1], "second"))
            names.append(fields[0])
        except RowError as error:
            wrong.append((line, str(error)))
    if wrong:
        raise_wrong_rows(path, wrong)
    return Excluded(names, np.array(seconds, np.float64))


def _read_columns(path: str) -> BoxRows:
    with _opened(path) as file:
        begin = file.tell()
        num_columns, num_headers = _form(path, file)
        for action in ("i8", "S8"):  # the faster type fails if some are empty
            file.seek(begin)
            with suppress(ValueError):
                return _read_fast(path, file, num_columns, num_headers, action=action)
    return _read_slowly(path, num_columns)


def _form(path: str, file: TextIO) -> tuple[int, int]:
    """Number of columns of an open file, and of lines before the first row."""
    rows = _fields_of(path, file)
    num_headers = 0
    line, fields = next(rows, (0, []))
    if _is_header(fields):
        check_header(path, line, fields)
        num_headers = line
        line, fields = next(rows, (0, []))
    if not fields:
        raise ValueError(f"{path} has no rows")
    if len(fields) not in (7, 8):
        text = ",".join(fields).encode("latin-1").decode("utf-8", "replace")
        raise ValueError(
            f"{path}, line {line}: a row must be {_FORM}, got {len(fields)} fields: {quoted(text)}"
        )
    return len(fields), num_headers


def check_header(path: str, line: int, fields: Sequence[str]) -> None:
    """Check that a header names the sides of boxes in the order in which they are read.

    Raises:
        ValueError: it names them in another order.
    """
    named = [field.lower() for field in fields if field.lower() in _SIDES]
    if len(named) == len(_SIDES) and tuple(named) != _SIDES:
        raise ValueError(
            f"{path}, line {line}: boxes must be in the order {','.join(_SIDES)}, got the header "
            f"{','.join(fields)!r}"
        )


def _read_fast(
    path: str, file: TextIO, num_columns: int, num_headers: int, *, action: str
) -> BoxRows:
    """Parse entire columns of an open file in C.

    Raises:
        ValueError: a row has another format than the rest.
    """
    fields: list[Any] = [("video", f"S{_NAME_BYTES}"), ("second", "f8"), ("box", "f8", (4,))]
    fields += [("action", action), ("last", "f8")][: num_columns - 6]
    chunks: list[Any] = []
    names: dict[bytes, int] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*nput.* contained no data")  # blank lines, or the end
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
    """Columns of a chunk, with the names of videos replaced by numbers."""
    video = chunk["video"]
    starts = np.flatnonzero(np.concatenate([[True], video[1:] != video[:-1]]))
    of_run = [names.setdefault(bytes(name), len(names)) for name in video[starts].tolist()]
    if any(
        len(name) >= _NAME_BYTES or not name or name != name.strip() or b'"' in name
        for name in names
    ):
        raise ValueError("a name is missing, too long, or has quotes or spaces around it")
    lengths = np.diff(starts, append=len(chunk))
    numbers = np.repeat(np.array(of_run, np.int64), lengths)
    actions = chunk["action"]
    if actions.dtype.kind == "S":
        if (np.char.str_len(actions) == actions.itemsize).any():
            raise ValueError("an action is too long to be read in C")
        actions = np.where(actions == b"", b"-1", actions).astype(np.int64)
    columns = [numbers, chunk["second"].copy(), chunk["box"].copy(), actions.copy()]
    if "last" in chunk.dtype.names:
        columns.append(chunk["last"].copy())
    return tuple(columns)


def _read_slowly(path: str, num_columns: int) -> BoxRows:
    """Parse row by row, to name every malformed one.

    Raises:
        ValueError: rows are malformed.
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
                    f"the number of fields must be {num_columns}, as in the first row, got "
                    f"{len(fields)}"
                )
            if not fields[0]:
                raise RowError("the name of the video must not be empty")
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
        line, what = wrong.pop()
        raise_wrong_rows(path, [*wrong, (line, f"{what}; a row must be {_FORM}")])
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
        raise RowError(f"the {what} must be a number, got {quoted(text)}") from None


def _action(text: str) -> int:
    if not text:
        return -1
    number = _number(text, "action")
    if not (abs(number) < _MAX_ACTION and number == int(number)):
        raise RowError(f"the action must be an integer, got {quoted(text)}")
    return int(number)


def _lines_of(path: str, rows: Sequence[int]) -> list[int]:
    """Line numbers of ascending rows."""
    remaining, lines = iter(rows), []
    row = next(remaining, None)
    for number, (line, _) in enumerate(box_fields(path)):
        if number == row:
            lines.append(line)
            row = next(remaining, None)
            if row is None:
                break
    return lines


def box_fields(path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number (from 1) and text fields of each row but blank ones and the header."""
    with open_text(path, errors="surrogateescape") as file:
        for number, (line, fields) in enumerate(_fields_of(path, file)):
            if number or not _is_header(fields):
                yield line, fields


def _is_header(fields: Sequence[str]) -> bool:
    """Whether a first row names the columns; a video may have the name of a column, too."""
    if not fields or fields[0].lower() not in _HEADER_NAMES:
        return False
    with suppress(ValueError):
        float(fields[1] if len(fields) > 1 else "")
        return False
    return True


def _fields_of(path: str, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    for line, text in enumerate(file, 1):
        try:
            fields = [field.strip() for field in next(csv.reader([text]), [])]
        except csv.Error as error:  # a field is too long, or has a NUL character
            raise ValueError(f"{path}, line {line}: the row is malformed: {error}") from error
        if any(fields):
            yield line, fields


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    """Open the text with one character per byte, so that names in any encoding keep their bytes."""
    with open_text(path, encoding="latin-1") as file:
        if file.read(3) != "\xef\xbb\xbf":  # the byte order mark of UTF-8
            file.seek(0)
        yield file
