"""List files: which videos there are and how they are labelled.

The forms that Kinetics users have are read: `path label` separated by a blank, comma or tab; a
path alone for pre-training; either with a header row; and the official annotation CSV files
(`label,youtube_id,time_start,time_end,split`).
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TextIO

import numpy as np
from iopath.common.file_io import g_pathmgr
from numpy.typing import NDArray

_SEPARATORS = {" ": "a blank", ",": "a comma", "\t": "a tab"}
_PATH_NAMES = frozenset(
    {"path", "video", "clip", "file", "name", "filename", "filepath"}
    | {"video_path", "video_name", "file_path", "file_name"}
)
_LABEL_NAMES = frozenset(
    {"label", "class", "target", "category", "label_id", "class_id", "class_index", "class_idx"}
)
_KINETICS_NAMES = ("youtube_id", "time_start", "time_end")
_CLASS_FILES = (
    "classes.txt",
    "class_names.txt",
    "class_names.json",
    "classes.json",
    "kinetics_classnames.json",
)


class VideoList:
    """The rows of a list file, kept in three arrays however many they are.

    Attributes:
        labels: int64 (n,) class numbers, or None where the list has none.
        source: The list file, for messages.
        class_names: Names of the classes where the list holds names and not numbers, else None.
    """

    def __init__(
        self,
        paths: NDArray[np.uint8],
        ends: NDArray[np.int64],
        labels: NDArray[np.int64] | None,
        *,
        source: str,
        folder: str = "",
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        """Args: `paths`: the encoded paths one after the other; `ends`: int64 (n,), their ends."""
        assert labels is None or len(labels) == len(ends)
        self._paths = paths
        self._ends = ends
        self._folder = folder
        self.labels = labels
        self.source = source
        self.class_names = class_names

    def __len__(self) -> int:
        return len(self._ends)

    def path(self, index: int) -> str:
        """Path of a row, `prefix` in front.

        Raises:
            IndexError: There is no such row.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.source} has rows 0..{len(self) - 1}, {index} was asked for")
        begin = int(self._ends[index - 1]) if index else 0
        encoded = self._paths[begin : self._ends[index]].tobytes()
        return os.path.join(self._folder, encoded.decode("utf-8", "surrogateescape"))

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of paths and labels; separator, header and prefix do not enter it."""
        digest = hashlib.sha256(b"labelled" if self.labels is not None else b"bare")
        for column in (self._ends, self._paths, self.labels):
            if column is not None:
                digest.update(column.tobytes())
        return digest.hexdigest()


def read_list(
    path: str | os.PathLike[str],
    *,
    separator: str = " ",
    prefix: str = "",
    root: str = "",
    class_names: Sequence[str] | None = None,
) -> VideoList:
    """Read a list file.

    A row is `path label` or `path`, all rows alike; labels are whole numbers from 0. Blank lines
    are skipped. With a comma or tab, paths may hold blanks, and fields may be quoted as in CSV.
    A header row (`path,label` and the like) may name the columns, in any order, others included.
    Under the header of the official Kinetics CSV files a row means the file
    `<label>/<youtube_id>_<start>_<end>.mp4` with six-digit seconds, and labels are class names.

    Args:
        path: The list file; anything that iopath's path manager opens.
        separator: " ", "," or a tab (config key DATA.PATH_LABEL_SEPARATOR). A blank stands for
            any run of blanks and tabs.
        prefix: Put in front of each path as a folder (config key DATA.PATH_PREFIX).
        root: Folder that a relative `prefix` (or a relative path, without prefix) lies in.
        class_names: The classes by number. Without it class names are numbered in sorted order;
            with it they are looked up, and numbers are checked against it.

    Returns:
        The rows in the order of the file.

    Raises:
        ValueError: The file is missing or has no rows, the separator is none of the three, or a
            row is malformed: the message names file and line.
    """
    if separator not in _SEPARATORS:
        raise ValueError(
            f"DATA.PATH_LABEL_SEPARATOR must be a blank, a comma or a tab, got {separator!r}"
        )
    source = os.fspath(path)
    if not g_pathmgr.isfile(source):
        raise ValueError(f"list file {source} does not exist")
    rows = _Rows(source, separator, class_names)
    # Paths are bytes on Linux: what is not UTF-8 survives as a surrogate escape.
    with g_pathmgr.open(source, "r", encoding="utf-8-sig", errors="surrogateescape") as file:
        for line, fields in _split(file, separator, source):
            rows.add(line, fields)
    return rows.finish(os.path.join(root, prefix))


def read_class_names(folder: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """Names of the classes by number, from a file beside the lists.

    The first that exists of: `classes.txt`, `class_names.txt` (a name a line, the first is class
    0); `class_names.json`, `classes.json`, `kinetics_classnames.json` (a list of names, or an
    object name -> number).

    Returns:
        The names, or None if there is no such file.

    Raises:
        ValueError: The file is empty, holds a name twice, or its numbers are not 0..K-1.
    """
    for name in _CLASS_FILES:
        path = os.path.join(os.fspath(folder), name)
        if g_pathmgr.isfile(path):
            with g_pathmgr.open(path, "r", encoding="utf-8-sig") as file:
                content = file.read()
            names = _names_in_json(path, content) if path.endswith(".json") else None
            if names is None:
                names = [line.strip() for line in content.splitlines() if line.strip()]
            if not names:
                raise ValueError(f"{path} holds no class names")
            if len(set(names)) != len(names):
                twice = next(name for i, name in enumerate(names) if name in names[:i])
                raise ValueError(f"{path} holds the class name {twice!r} more than once")
            return tuple(names)
    return None


def _names_in_json(path: str, content: str) -> list[str]:
    try:
        data = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if isinstance(data, dict):
        if sorted(data.values(), key=str) != sorted(range(len(data)), key=str):
            raise ValueError(f"{path} must map its {len(data)} names to 0..{len(data) - 1}")
        data = sorted(data, key=data.__getitem__)
    if not isinstance(data, list) or not all(isinstance(name, str) for name in data):
        raise ValueError(f"{path} must hold a list of names or an object name -> number")
    # The widespread Kinetics file has quotes within its names.
    return [name.strip().strip('"') for name in data]


def _split(file: TextIO, separator: str, source: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line that is not blank."""
    if separator == " ":
        # Official and exported CSV files are comma-separated whatever the key says.
        first = file.readline()
        if not _is_kinetics_header(first.split(",")):
            for line, text in enumerate(chain((first,), file), 1):
                if fields := text.split():
                    yield line, fields
            return
        yield 1, [name.strip() for name in first.split(",")]
        separator, offset = ",", 1
    else:
        offset = 0
    reader = csv.reader(file, delimiter=separator, strict=True)
    line = offset
    try:
        for fields in reader:
            line, before = reader.line_num + offset, line
            if line > before + 1:
                raise ValueError(f"{source}, line {before + 1}: a quote is not closed")
            if len(fields) > 1 or (fields and fields[0].strip()):
                yield line, fields
    except csv.Error as error:
        raise ValueError(f"{source}, line {line + 1}: {error}") from error


def _is_kinetics_header(fields: Sequence[str]) -> bool:
    return set(_KINETICS_NAMES) <= {name.strip().lower() for name in fields}


@dataclass(frozen=True)
class _Columns:
    """Where the fields are, as a header row says."""

    num: int
    path: int = 0
    label: int | None = None
    kinetics: tuple[int, ...] = ()


@dataclass
class _Rows:
    """Collects checked rows in growing arrays."""

    source: str
    separator: str
    class_names: Sequence[str] | None
    columns: _Columns | None = None
    paths: bytearray = field(default_factory=bytearray)
    ends: array[int] = field(default_factory=lambda: array("q"))
    labels: array[int] = field(default_factory=lambda: array("q"))
    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, line: int, fields: list[str]) -> None:
        """Check a row and keep it; the first one may be a header."""
        columns = self.columns
        if columns is None:
            columns = self.columns = _header(fields)
            if columns is not None:
                if columns.kinetics and self.class_names is not None:
                    self.numbers = {name: i for i, name in enumerate(self.class_names)}
                return
            has_label = len(fields) > 1
            columns = self.columns = _Columns(1 + has_label, label=1 if has_label else None)
        if len(fields) != columns.num:
            raise self._error(line, self._miscounted(len(fields), columns))
        if columns.kinetics:
            path = self._kinetics_path(line, fields, columns)
        else:
            path = fields[columns.path].strip()
        if not path:
            raise self._error(line, "the path is empty")
        if columns.label is not None:
            text = fields[columns.label].strip()
            label = self._named(line, text) if columns.kinetics else self._number(line, text)
            self.labels.append(label)
        elif not self.ends and not columns.kinetics:
            self._refuse_other_separator(line, path)
        self.paths += path.encode("utf-8", "surrogateescape")
        self.ends.append(len(self.paths))

    def finish(self, folder: str) -> VideoList:
        """The list of all rows added."""
        if not self.ends:
            raise ValueError(f"list file {self.source} has no rows")
        labels = np.array(self.labels, np.int64) if self.labels else None
        names: tuple[str, ...] | None = None
        if self.columns is not None and self.columns.kinetics and labels is not None:
            names = tuple(self.class_names or sorted(self.numbers))
            rank = {name: i for i, name in enumerate(names)}
            # Numbered as they came up to here.
            labels = np.array([rank[name] for name in self.numbers], np.int64)[labels]
        return VideoList(
            np.frombuffer(bytes(self.paths), np.uint8),
            np.array(self.ends, np.int64),
            labels,
            source=self.source,
            folder=folder,
            class_names=names,
        )

    def _number(self, line: int, text: str) -> int:
        if not (text.isascii() and text.isdigit()):
            what = f"the label must be a whole number from 0, got {text!r}" if text else "no label"
            raise self._error(line, what)
        label = int(text)
        if label >= 1 << 31:
            raise self._error(line, f"the label {text} is too large")
        if self.class_names is not None and label >= len(self.class_names):
            raise self._error(
                line, f"label {label}, but there are {len(self.class_names)} classes (from 0)"
            )
        return label

    def _named(self, line: int, text: str) -> int:
        if not text:
            raise self._error(line, "no label")
        if self.class_names is not None and text not in self.numbers:
            near = difflib.get_close_matches(text, self.class_names, n=1)
            hint = f"; the nearest name is {near[0]!r}" if near else ""
            raise self._error(line, f"class {text!r} is not among the class names{hint}")
        return self.numbers.setdefault(text, len(self.numbers))

    def _kinetics_path(self, line: int, fields: list[str], columns: _Columns) -> str:
        video, *times = (fields[column].strip() for column in columns.kinetics)
        try:
            begin, end = (int(float(time)) for time in times)
        except (ValueError, OverflowError):
            raise self._error(line, f"times must be seconds, got {times}") from None
        if not video:
            raise self._error(line, "the youtube_id is empty")
        name = f"{video}_{begin:06d}_{end:06d}.mp4"
        return name if columns.label is None else f"{fields[columns.label].strip()}/{name}"

    def _miscounted(self, num_fields: int, columns: _Columns) -> str:
        if columns.label is not None and num_fields < columns.num:
            return f"no label ({columns.num} fields expected, {num_fields} found)"
        hint = "use a comma or tab" if self.separator == " " else "put quotes around the path"
        return (
            f"{columns.num} fields expected ({_SEPARATORS[self.separator]} between them), "
            f"{num_fields} found; if the path holds the separator, {hint}"
        )

    def _refuse_other_separator(self, line: int, path: str) -> None:
        """`a.mp4,3` read as a path alone is the wrong separator, not an odd file name."""
        for other, name in _SEPARATORS.items():
            end = path.rpartition(other)[2]
            if other != self.separator and other in path and end.strip().isdigit():
                raise self._error(
                    line, f"{path!r} has {name} before a number: set the separator to {other!r}"
                )

    def _error(self, line: int, what: str) -> ValueError:
        return ValueError(f"{self.source}, line {line}: {what}")


def _header(fields: Sequence[str]) -> _Columns | None:
    """The columns that a header row names; None if the row is none."""
    names: list[Any] = [name.strip().lower() for name in fields]
    label = next((i for i, name in enumerate(names) if name in _LABEL_NAMES), None)
    if _is_kinetics_header(names):
        return _Columns(
            len(names), label=label, kinetics=tuple(names.index(name) for name in _KINETICS_NAMES)
        )
    path = next((i for i, name in enumerate(names) if name in _PATH_NAMES), None)
    if path is None or (len(names) > 1 and label is None):
        return None
    return _Columns(len(names), path=path, label=label)
