"""List files: `path label` lines, CSV files with a header, official Kinetics annotations."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import TextIO

from slowfast_maskfeat.datasets.kinetics import find_layout
from slowfast_maskfeat.datasets.list_format import (
    SEPARATORS,
    Columns,
    find_columns,
    find_separator,
    frames_hint,
    header_hint,
    is_first_odd,
    is_kinetics_header,
    is_number,
    parse_separator,
    shows_separator,
)
from slowfast_maskfeat.datasets.row_collector import RowCollector, RowError, raise_wrong_rows
from slowfast_maskfeat.datasets.video_list import DataFolder, MissingListError, VideoList
from slowfast_maskfeat.files import is_file, join, open_text
from slowfast_maskfeat.videos.media import is_media

# Rows from the first one on that show whether it is a title.
_NUM_COMPARED = 50


def read_kinetics(
    data: DataFolder, split: str, class_names: Sequence[str] | None = None
) -> VideoList:
    """Read `<split>.csv` of Kinetics-400, 600 or 700: a list file or the official annotations.

    Raises:
        MissingListError: the file does not exist.
        ValueError: see `read_list`.
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
        MissingListError: the file does not exist.
        ValueError: see `read_list`.
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
    skipped. With another separator than a space, paths may contain spaces, and fields may be quoted
    as in CSV. A header (`path,label` and the like) may name the columns, in any order and with
    others among them; labels below a header may also be class names. A row below the header of the
    official Kinetics CSV files stands for `<label>/<youtube_id>_<start>_<end>.mp4` with six-digit
    seconds, in the layout found on disk (`find_layout`), and its label is a class name.

    A label may be several class numbers with commas between them, as in `path 3,7,12`, or in quotes
    where the comma is the separator. If a row has several, each row has any number of them, and an
    empty label (`""` where the separator is a space) means none.

    Rows that repeat a path with the same label are kept and counted in `VideoList.notes`.

    Args:
        path: the list file; anything that `files.open_file` opens.
        separator: " ", ",", ";" or a tab (config key DATA.PATH_LABEL_SEPARATOR). A space matches
            any run of spaces and tabs.
        prefix: folder in front of each path (config key DATA.PATH_PREFIX).
        class_names: names of the classes by number. Without it, names in the list are numbered in
            sorted order; with it they are looked up, and numbers are checked against it.

    Returns:
        The samples in the order of the file.

    Raises:
        MissingListError: the file does not exist.
        ValueError: the file has no rows, the separator is none of these, rows are malformed,
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
    separator = parse_separator(separator)
    _check_first_row(file, source, separator)
    rows = _Rows(RowCollector(source, class_names), separator)
    try:
        for line, fields in _split(file, separator):
            try:  # `collector.row` would double the time of reading
                rows.add(line, fields)
            except RowError as error:
                rows.collector.note(line, error)
    except _TornRowError as error:
        rows.collector.note(error.line, error)
    videos = rows.collector.finish(prefix, notes=[rows.note] if rows.note else [])
    if rows.columns is None or not rows.columns.kinetics:
        return videos
    # Without a prefix the videos may also be beside the list.
    folders = [prefix] if prefix else ["", os.path.dirname(source)]
    return find_layout(videos, folders, os.path.basename(source))


def _check_first_row(file: TextIO, source: str, separator: str) -> None:
    """Check that an open list does not begin with a title, and return to its beginning.

    Raises:
        ValueError: it does.
    """
    try:
        rows = list(islice(_split(file, separator), _NUM_COMPARED))
    except _TornRowError:  # reported when the row is reached
        rows = []
    file.seek(0)
    if not is_first_odd([fields for _, fields in rows]):
        return
    (line, first), (_, below), *_ = rows
    other = "if it is a sample, add its label"
    if len(first) > len(below):
        mark, hint = SEPARATORS[separator], _quoting_hint(separator, len(below))
        other = f"if {mark} is part of its path, {hint}"
    what = (
        f"the number of fields must be {len(below)}, as in the rows below, got {len(first)}: "
        f"{separator.join(first)!r}; if it is a title or a comment, remove it; {other}"
    )
    raise_wrong_rows(source, [(line, what)])


def _quoting_hint(separator: str, num_fields: int) -> str:
    """How a path can contain the separator, in rows of `num_fields` fields."""
    if separator != " ":
        return "put quotes around the path"
    if num_fields == 1:
        return "set DATA.PATH_LABEL_SEPARATOR to ','"
    return "separate the fields by a comma or tab"


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
        ValueError: the file has changed since it was read.
    """
    with _opened(path) as file:
        lines = [
            (line, text.rstrip("\n") + "\n")
            for line, text in enumerate(file, 1)
            if not _is_blank(text if separator == " " else text.replace('"', ""))
        ]
    num_headers = len(lines) - num_rows
    if num_headers not in (0, 1):
        raise ValueError(f"{path} has changed while it was read")
    return "".join(text for _, text in lines[:num_headers]), lines[num_headers:]


def separator_of(path: str, default: str) -> str:
    """Separator of a list file: `default`, or if that is " " the one in its first lines."""
    with _opened(path) as file:
        return _shown_separator(file, default)


def _shown_separator(file: TextIO, default: str) -> str:
    """`parse_separator(default)`; if that is a space, what the first lines show."""
    separator = parse_separator(default)
    if separator != " ":
        return separator
    return find_separator(list(islice(filter(str.strip, file), 2)))


class _TornRowError(RowError):
    """A row whose end cannot be found, so that the rest of the file cannot be parsed."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


def _is_blank(text: str) -> bool:
    return not text.strip()


# Between spaces and tabs alone: a path may have other spaces, as names of screen recordings do.
_FIELDS = re.compile(r"[^ \t\r\n]+")


def _split(file: TextIO, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of each line that is not blank."""
    if separator == " ":
        # The official CSV files are comma-separated, whatever the key says.
        first = file.readline()
        if not is_kinetics_header(first.split(",")):
            for line, text in enumerate(chain((first,), file), 1):
                if not _is_blank(text):
                    yield line, _FIELDS.findall(text)
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
            if len(fields) > 1 or (fields and not _is_blank(fields[0])):
                yield line, fields
    except csv.Error as error:
        raise _TornRowError(line + 1, str(error)) from error


@dataclass
class _Rows:
    """Parser of rows: fields -> path and label.

    Attributes:
        collector: receives the rows.
        separator: between the fields.
        columns: as named by the header, or as the first row has them.
        has_names: whether labels are names; None before the first label.
        first: fields of the first row, if it is not a header.
        note: warning for the user, or "".
    """

    collector: RowCollector
    separator: str
    columns: Columns | None = None
    has_names: bool | None = None
    first: Sequence[str] = ()
    note: str = ""

    def add(self, line: int, fields: list[str]) -> None:
        """Check and add a row; the first one may be a header."""
        columns = self.columns
        if columns is None:
            columns = self.columns = find_columns(fields)
            if columns is not None:
                self.note = columns.note
                return
            self.first = fields
            has_label = len(fields) > 1
            columns = Columns(1 + has_label, label=1 if has_label else None, is_named=False)
            self.columns = columns
        if len(fields) != columns.num:
            raise RowError(self._miscounted(fields, columns))
        path = _kinetics_path(fields, columns) if columns.kinetics else fields[columns.path].strip()
        label: int | tuple[int, ...] | None = None
        if columns.label is not None:
            if self._is_without_label(fields, columns):
                error = RowError(f"no label{self._hint(fields)}")
                self.collector.add_without_label(line, path, error)
                return
            label = self._label(fields, columns)
            if len(self.collector) < 2 and not columns.kinetics:
                self._check_marks(line, path)
        elif len(self.collector) < 2 and not columns.kinetics:
            self._check_bare(line, path)
        self.collector.add(line, path, label)

    def _is_without_label(self, fields: list[str], columns: Columns) -> bool:
        """Whether the label is empty, or empty quotes between spaces; labels are no names."""
        assert columns.label is not None
        text = fields[columns.label].strip()
        return not self.has_names and (not text or (self.separator == " " and text == '""'))

    def _label(self, fields: list[str], columns: Columns) -> int | tuple[int, ...]:
        assert columns.label is not None
        text = fields[columns.label].strip()
        if self.has_names is None and text:
            # Only below a header a label that is not a number is a name, and not an error.
            is_named = columns.is_named and not all(map(is_number, text.split(",")))
            self.has_names = bool(columns.kinetics) or is_named
        if self.has_names:
            return self.collector.named(text)
        try:
            return self.collector.numbers(text) if "," in text else self.collector.number(text)
        except RowError as error:
            raise RowError(f"{error}{self._hint(fields)}") from error

    def _miscounted(self, fields: list[str], columns: Columns) -> str:
        num_fields = len(fields)
        if columns.label is not None and num_fields < columns.num:
            return f"no label: the number of fields must be {columns.num}, got {num_fields}"
        hint = _quoting_hint(self.separator, columns.num)
        return (
            f"the number of fields must be {columns.num}, got {num_fields} separated by "
            f"{SEPARATORS[self.separator]}; if the path contains the separator, {hint}"
            f"{frames_hint(fields)}{self._hint(fields)}"
        )

    def _hint(self, fields: list[str]) -> str:
        """Likely reasons why the first row is malformed."""
        if fields is not self.first:
            return ""
        hint = self._other_separator(self.separator.join(fields)) or header_hint(fields)
        return f"; {hint}" if hint else ""

    def _check_bare(self, line: int, path: str) -> None:
        """Reject `a.mp4,3` as a path, which results from the wrong separator.

        A first line that only looks like a header is noted, since it is read as a path.
        """
        if hint := self._other_separator(path):
            raise_wrong_rows(self.collector.source, [(line, f"got {path!r}; {hint}")])
        first = self.first[0].strip() if self.first else path
        if is_media(path) and not is_media(first):
            self.note = (
                f"{first!r} in the first line is read as a path, although unlike {path!r} in line "
                f"{line} it does not end like a video; {header_hint([first])}"
            )

    def _check_marks(self, line: int, path: str) -> None:
        """Reject `"a.mp4" 3` and `a.mp4, 3` with a space as separator."""
        bare = path.strip('",;')
        if self.separator == " " and is_media(bare) and not is_media(path):
            mark = path[-1]
            other = f", or set DATA.PATH_LABEL_SEPARATOR to {mark!r}" if mark in ",;" else ""
            what = f"got the path {path!r}; with spaces between the fields write {bare!r}{other}"
            raise_wrong_rows(self.collector.source, [(line, what)])

    def _other_separator(self, text: str) -> str:
        """Advice for a line that shows another separator; "" if it shows none."""
        for other in SEPARATORS:
            if other != self.separator and (shown := shows_separator(text, other)):
                return f"it has {shown}: set DATA.PATH_LABEL_SEPARATOR to {other!r}"
        return ""


def _kinetics_path(fields: list[str], columns: Columns) -> str:
    video, *times = (fields[column].strip() for column in columns.kinetics)
    try:
        begin, end = (int(float(time)) for time in times)
    except (ValueError, OverflowError):
        raise RowError(f"times must be seconds, got {times}") from None
    if not video:
        raise RowError("the youtube_id must not be empty")
    name = f"{video}_{begin:06d}_{end:06d}.mp4"
    return name if columns.label is None else f"{fields[columns.label].strip()}/{name}"
