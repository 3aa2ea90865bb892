"""List files: `path label` lines, CSV files with a header, official Kinetics annotations."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, TextIO

from slowfast_maskfeat.datasets.kinetics import find_layout
from slowfast_maskfeat.datasets.row_collector import RowCollector, RowError
from slowfast_maskfeat.datasets.video_list import DataFolder, MissingListError, VideoList
from slowfast_maskfeat.files import is_file, join, open_text

_SEPARATORS = {" ": "a space", ",": "a comma", "\t": "a tab"}
_PATH_NAMES = frozenset(
    {"path", "video", "clip", "file", "name", "filename", "filepath"}
    | {"video_path", "video_name", "file_path", "file_name", "image", "image_path"}
)
_LABEL_NAMES = frozenset(
    {"label", "class", "target", "category", "label_id", "class_id", "class_index", "class_idx"}
    | {"label_name", "class_name"}
)
_KINETICS_NAMES = ("youtube_id", "time_start", "time_end")


def read_kinetics(
    data: DataFolder, split: str, class_names: Sequence[str] | None = None
) -> VideoList:
    """Read `<split>.csv` of Kinetics-400, 600 or 700: a list file or the official annotations.

    Raises:
        MissingListError: The file does not exist.
        ValueError: See `read_list`.
    """
    return read_list(
        join(data.path, f"{split}.csv"),
        separator=data.separator,
        prefix=data.prefix,
        class_names=class_names,
    )


def read_csv(data: DataFolder, split: str, class_names: Sequence[str] | None = None) -> VideoList:
    """Read `<split>.csv` with the separator detected in its first line.

    Raises:
        MissingListError: The file does not exist.
        ValueError: See `read_list`.
    """
    path = join(data.path, f"{split}.csv")
    with _opened(path) as file:
        return _read_csv(file, path, data, class_names)


def read_own_list(
    data: DataFolder, split: str, class_names: Sequence[str] | None = None
) -> VideoList | None:
    """Read `<split>.csv`, which takes precedence over the files of a published data set.

    Returns:
        The samples; None without such a file, or if it lists extracted frames, one per line.
    """
    path = join(data.path, f"{split}.csv")
    if not is_file(path):
        return None
    with _opened(path) as file:
        if "frame_id" in file.readline().split():
            return None
        file.seek(0)
        return _read_csv(file, path, data, class_names)


def read_list(
    path: str | os.PathLike[str],
    *,
    separator: str = " ",
    prefix: str = "",
    class_names: Sequence[str] | None = None,
) -> VideoList:
    """Read a list file.

    Every line is `path label`, or every line is `path`; labels are integers >= 0. Blank lines are
    skipped. With a comma or tab, paths may contain spaces, and fields may be quoted as in CSV. A
    header (`path,label` and the like) may name the columns, in any order and with others among
    them; labels below a header may also be class names. A row below the header of the official
    Kinetics CSV files stands for `<label>/<youtube_id>_<start>_<end>.mp4` with six-digit seconds,
    in the layout found on disk (`find_layout`), and its label is a class name.

    Rows that repeat a path with the same label are kept and counted in `VideoList.notes`.

    Args:
        path: The list file; anything that `files.open_file` opens.
        separator: " ", "," or a tab (config key DATA.PATH_LABEL_SEPARATOR). A space matches any
            run of spaces and tabs.
        prefix: Folder in front of each path (config key DATA.PATH_PREFIX).
        class_names: Names of the classes by number. Without it, names in the list are numbered in
            sorted order; with it they are looked up, and numbers are checked against it.

    Returns:
        The samples in the order of the file.

    Raises:
        MissingListError: The file does not exist.
        ValueError: The file has no rows, the separator is none of the three, rows are malformed,
            or a path occurs twice with different labels; the message names file and lines.
    """
    source = os.fspath(path)
    with _opened(source) as file:
        return _read_rows(file, source, separator, prefix, class_names)


def _read_csv(
    file: TextIO, source: str, data: DataFolder, class_names: Sequence[str] | None
) -> VideoList:
    """Read an open list from its beginning with the separator detected in its first line."""
    separator = _shown_separator(file, data.separator)
    file.seek(0)
    return _read_rows(file, source, separator, data.prefix, class_names)


def _read_rows(
    file: TextIO, source: str, separator: str, prefix: str, class_names: Sequence[str] | None
) -> VideoList:
    """Read an open list from its beginning."""
    if separator not in _SEPARATORS:
        raise ValueError(
            f"DATA.PATH_LABEL_SEPARATOR must be a space, a comma or a tab, got {separator!r}"
        )
    rows = _Rows(RowCollector(source, class_names), separator)
    try:
        for line, fields in _split(file, separator):
            try:  # `collector.row` would double the time of reading
                rows.add(line, fields)
            except RowError as error:
                rows.collector.note(line, error)
    except _TornRowError as error:
        rows.collector.note(error.line, error)
    videos = rows.collector.finish(prefix)
    if rows.columns is None or not rows.columns.kinetics:
        return videos
    # Without a prefix the videos may also be beside the list.
    folders = [prefix] if prefix else ["", os.path.dirname(source)]
    return find_layout(videos, folders, os.path.basename(source))


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    if not is_file(path):
        raise MissingListError(f"list file {path} does not exist")
    # Paths are bytes on Linux: those that are not UTF-8 survive as surrogate escapes.
    with open_text(path, errors="surrogateescape") as file:
        yield file


def list_lines(path: str, separator: str, num_rows: int) -> tuple[str, list[tuple[int, str]]]:
    """Read the text of a list file that `read_list` has parsed.

    Returns:
        The header line, or "", and line number and text of each row, ending with "\\n".

    Raises:
        ValueError: The file has changed since it was read.
    """
    ignored = " \t\r\n" if separator == " " else ' \t\r\n"'
    with _opened(path) as file:
        lines = [(line, text.rstrip("\n") + "\n") for line, text in enumerate(file, 1)]
    lines = [(line, text) for line, text in lines if text.strip(ignored)]
    num_headers = len(lines) - num_rows
    if num_headers not in (0, 1):
        raise ValueError(f"{path} has changed while it was read")
    return "".join(text for _, text in lines[:num_headers]), lines[num_headers:]


def separator_of(path: str, default: str) -> str:
    """Separator of a list file: `default`, or a tab or comma in its first line if that is " "."""
    with _opened(path) as file:
        return _shown_separator(file, default)


def _shown_separator(file: TextIO, default: str) -> str:
    if default != " ":
        return default
    first = next((line.strip() for line in file if line.strip()), "")
    if "\t" in first:
        return "\t"
    after_comma, after_blank = first.rpartition(",")[2].strip(), first.split(" ")[-1]
    # The comma of `a,b.mp4 3` is in its path.
    has_blank = after_blank.isdigit() and not after_comma.isdigit()
    return "," if "," in first and not has_blank else default


class _TornRowError(RowError):
    """A row whose end cannot be found, so that the rest of the file cannot be parsed."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


def _split(file: TextIO, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of each line that is not blank."""
    if separator == " ":
        # The official CSV files are comma-separated, whatever the key says.
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
                raise _TornRowError(before + 1, "a quote is not closed")
            if len(fields) > 1 or (fields and fields[0].strip()):
                yield line, fields
    except csv.Error as error:
        raise _TornRowError(line + 1, str(error)) from error


def _is_kinetics_header(fields: Sequence[str]) -> bool:
    return set(_KINETICS_NAMES) <= {name.strip().lower() for name in fields}


@dataclass(frozen=True)
class _Columns:
    """Number of fields, and their places as named by the header."""

    num: int
    path: int = 0
    label: int | None = None
    kinetics: tuple[int, ...] = ()
    is_named: bool = True


@dataclass
class _Rows:
    """Parser of rows: fields -> path and label."""

    collector: RowCollector
    separator: str
    columns: _Columns | None = None
    has_names: bool | None = None

    def add(self, line: int, fields: list[str]) -> None:
        """Check and add a row; the first one may be a header."""
        columns = self.columns
        if columns is None:
            columns = self.columns = _header(fields)
            if columns is not None:
                return
            has_label = len(fields) > 1
            columns = _Columns(1 + has_label, label=1 if has_label else None, is_named=False)
            self.columns = columns
        if len(fields) != columns.num:
            raise RowError(self._miscounted(len(fields), columns))
        path = _kinetics_path(fields, columns) if columns.kinetics else fields[columns.path].strip()
        label = None
        if columns.label is not None:
            label = self._label(fields[columns.label].strip(), columns)
        elif not len(self.collector) and not columns.kinetics:
            self._refuse_other_separator(path)
        self.collector.add(line, path, label)

    def _label(self, text: str, columns: _Columns) -> int:
        if self.has_names is None and text:
            # Only below a header a label that is not a number is a name, and not an error.
            self.has_names = bool(columns.kinetics) or (columns.is_named and not is_number(text))
        return self.collector.named(text) if self.has_names else self.collector.number(text)

    def _miscounted(self, num_fields: int, columns: _Columns) -> str:
        if columns.label is not None and num_fields < columns.num:
            return f"no label: the number of fields must be {columns.num}, got {num_fields}"
        hint = "use a comma or tab" if self.separator == " " else "put quotes around the path"
        return (
            f"the number of fields must be {columns.num}, got {num_fields} separated by "
            f"{_SEPARATORS[self.separator]}; if the path contains the separator, {hint}"
        )

    def _refuse_other_separator(self, path: str) -> None:
        """Reject `a.mp4,3` as a path: it results from the wrong separator."""
        for other, name in _SEPARATORS.items():
            end = path.rpartition(other)[2]
            if other != self.separator and other in path and end.strip().isdigit():
                raise RowError(
                    f"{path!r} has {name} before a number; set the separator to {other!r}"
                )


def is_number(text: str) -> bool:
    """Whether a label is a number, valid or not, instead of a name."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _kinetics_path(fields: list[str], columns: _Columns) -> str:
    video, *times = (fields[column].strip() for column in columns.kinetics)
    try:
        begin, end = (int(float(time)) for time in times)
    except (ValueError, OverflowError):
        raise RowError(f"times must be seconds, got {times}") from None
    if not video:
        raise RowError("the youtube_id must not be empty")
    name = f"{video}_{begin:06d}_{end:06d}.mp4"
    return name if columns.label is None else f"{fields[columns.label].strip()}/{name}"


def _header(fields: Sequence[str]) -> _Columns | None:
    """Columns named by a header row; None if the row is not a header."""
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
