"""List files: `path label` rows, CSV files with a header, the official Kinetics annotations."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, TextIO

from slowfast_maskfeat.datasets.kinetics import find_layout
from slowfast_maskfeat.datasets.video_list import (
    DataFolder,
    MissingListError,
    RowCollector,
    RowError,
    VideoList,
)
from slowfast_maskfeat.files import is_file, join, open_text

_SEPARATORS = {" ": "a blank", ",": "a comma", "\t": "a tab"}
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
    """Kinetics-400, 600 or 700: `<split>.csv`, a list file or the official annotations.

    Raises:
        MissingListError: There is no such file.
        ValueError: See `read_list`.
    """
    return read_list(
        join(data.path, f"{split}.csv"),
        separator=data.separator,
        prefix=data.prefix,
        class_names=class_names,
    )


def read_csv(data: DataFolder, split: str, class_names: Sequence[str] | None = None) -> VideoList:
    """Any CSV file: `<split>.csv`, with the separator that its first line shows.

    Raises:
        MissingListError: There is no such file.
        ValueError: See `read_list`.
    """
    path = join(data.path, f"{split}.csv")
    with _opened(path) as file:
        return _read_csv(file, path, data, class_names)


def read_own_list(
    data: DataFolder, split: str, class_names: Sequence[str] | None = None
) -> VideoList | None:
    """The list `<split>.csv` that wins over the files of a published data set; None without it.

    Lists of extracted frames, one row a frame, are passed over: videos are read here.
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

    A row is `path label` or `path`, all rows alike; labels are whole numbers from 0. Blank lines
    are skipped. With a comma or tab, paths may hold blanks, and fields may be quoted as in CSV.
    A header row (`path,label` and the like) may name the columns, in any order, others included;
    under a header labels may be names, too. Under the header of the official Kinetics CSV files a
    row means the file `<label>/<youtube_id>_<start>_<end>.mp4` with six-digit seconds, in the
    layout that is found on disk (`find_layout`), and labels are class names.

    Rows that repeat a path with the same label stay, and `VideoList.notes` counts them.

    Args:
        path: The list file; anything that `files.open_file` opens.
        separator: " ", "," or a tab (config key DATA.PATH_LABEL_SEPARATOR). A blank stands for
            any run of blanks and tabs.
        prefix: Put in front of each path as a folder (config key DATA.PATH_PREFIX).
        class_names: The classes by number. Without it class names are numbered in sorted order;
            with it they are looked up, and numbers are checked against it.

    Returns:
        The rows in the order of the file.

    Raises:
        MissingListError: There is no such file.
        ValueError: The file has no rows, the separator is none of the three, rows are malformed,
            or a path stands there twice with different labels: the message names file and lines.
    """
    source = os.fspath(path)
    with _opened(source) as file:
        return _read_rows(file, source, separator, prefix, class_names)


def _read_csv(
    file: TextIO, source: str, data: DataFolder, class_names: Sequence[str] | None
) -> VideoList:
    """Rows of an open list, from its beginning, with the separator that its first line shows."""
    separator = _shown_separator(file, data.separator)
    file.seek(0)
    return _read_rows(file, source, separator, data.prefix, class_names)


def _read_rows(
    file: TextIO, source: str, separator: str, prefix: str, class_names: Sequence[str] | None
) -> VideoList:
    """Rows of an open list, from its beginning."""
    if separator not in _SEPARATORS:
        raise ValueError(
            f"DATA.PATH_LABEL_SEPARATOR must be a blank, a comma or a tab, got {separator!r}"
        )
    rows = _Rows(RowCollector(source, class_names), separator)
    try:
        for line, fields in _split(file, separator):
            try:  # `collector.row` would take as long again as all the rest
                rows.add(line, fields)
            except RowError as error:
                rows.collector.note(line, error)
    except _TornRowError as error:
        rows.collector.note(error.line, error)
    videos = rows.collector.finish(prefix)
    if rows.columns is None or not rows.columns.kinetics:
        return videos
    # Without a prefix the videos may lie beside the list, too.
    folders = [prefix] if prefix else ["", os.path.dirname(source)]
    return find_layout(videos, folders, os.path.basename(source))


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    if not is_file(path):
        raise MissingListError(f"list file {path} does not exist")
    # Paths are bytes on Linux: what is not UTF-8 survives as a surrogate escape.
    with open_text(path, errors="surrogateescape") as file:
        yield file


def list_lines(path: str, separator: str, num_rows: int) -> tuple[str, list[tuple[int, str]]]:
    """The text of a list file that was read: its header (or nothing), and each row.

    Returns:
        The header line, and number and text of the line of each row, with "\\n" at the ends.

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
    """What is given, if it is no blank; else a tab or a comma, where the first line shows one."""
    with _opened(path) as file:
        return _shown_separator(file, default)


def _shown_separator(file: TextIO, default: str) -> str:
    if default != " ":
        return default
    first = next((line.strip() for line in file if line.strip()), "")
    if "\t" in first:
        return "\t"
    after_comma, after_blank = first.rpartition(",")[2].strip(), first.split(" ")[-1]
    # `a,b.mp4 3` has a comma in its path.
    has_blank = after_blank.isdigit() and not after_comma.isdigit()
    return "," if "," in first and not has_blank else default


class _TornRowError(RowError):
    """A row that the rest of the file can't be told apart from."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


def _split(file: TextIO, separator: str) -> Iterator[tuple[int, list[str]]]:
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
                raise _TornRowError(before + 1, "a quote is not closed")
            if len(fields) > 1 or (fields and fields[0].strip()):
                yield line, fields
    except csv.Error as error:
        raise _TornRowError(line + 1, str(error)) from error


def _is_kinetics_header(fields: Sequence[str]) -> bool:
    return set(_KINETICS_NAMES) <= {name.strip().lower() for name in fields}


@dataclass(frozen=True)
class _Columns:
    """Where the fields are, as a header row says."""

    num: int
    path: int = 0
    label: int | None = None
    kinetics: tuple[int, ...] = ()
    is_named: bool = True


@dataclass
class _Rows:
    """Turns the fields of a row into path and label."""

    collector: RowCollector
    separator: str
    columns: _Columns | None = None
    has_names: bool | None = None

    def add(self, line: int, fields: list[str]) -> None:
        """Check a row and keep it; the first one may be a header."""
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
            # A header says that the rest is meant: then a label may be a name, if it is no number.
            self.has_names = bool(columns.kinetics) or (columns.is_named and not is_number(text))
        return self.collector.named(text) if self.has_names else self.collector.number(text)

    def _miscounted(self, num_fields: int, columns: _Columns) -> str:
        if columns.label is not None and num_fields < columns.num:
            return f"no label ({columns.num} fields expected, {num_fields} found)"
        hint = "use a comma or tab" if self.separator == " " else "put quotes around the path"
        return (
            f"{columns.num} fields expected ({_SEPARATORS[self.separator]} between them), "
            f"{num_fields} found; if the path holds the separator, {hint}"
        )

    def _refuse_other_separator(self, path: str) -> None:
        """`a.mp4,3` read as a path alone is the wrong separator, not an odd file name."""
        for other, name in _SEPARATORS.items():
            end = path.rpartition(other)[2]
            if other != self.separator and other in path and end.strip().isdigit():
                raise RowError(
                    f"{path!r} has {name} before a number: set the separator to {other!r}"
                )


def is_number(text: str) -> bool:
    """Whether a label is a number, right or wrong, and no name."""
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
        raise RowError("the youtube_id is empty")
    name = f"{video}_{begin:06d}_{end:06d}.mp4"
    return name if columns.label is None else f"{fields[columns.label].strip()}/{name}"


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
