"""Rows of a list as they are read: valid ones collected, malformed ones reported together."""

from __future__ import annotations

import difflib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import numpy as np

from slowfast_maskfeat.datasets.label_sets import LabelSets
from slowfast_maskfeat.datasets.video_list import VideoList
from slowfast_maskfeat.text import cut_quotes

# Reading stops after this many malformed rows.
_MAX_NAMED = 50


class RowError(Exception):
    """A malformed row of a list; the message says why."""


class RowCollector:
    """Collects valid rows in growing arrays, and the errors of the others.

    Args:
        source: the list, for messages.
        class_names: names of the classes by number; None numbers names in sorted order.
        unit: singular noun for a row in messages; rows count from 1.
    """

    def __init__(
        self, source: str, class_names: Sequence[str] | None = None, *, unit: str = "line"
    ) -> None:
        self.source = source
        self.class_names = class_names
        self._unit = unit
        self._paths = bytearray()
        self._ends = array("q")
        self._labels = array("q")
        self._label_ends: array[int] | None = None  # of each row, if not all have one label
        self._has_several = False
        self._without: list[tuple[int, str]] = []  # rows with an empty label, and their errors
        self._lines = array("q")
        self._keys = array("q")
        self._names: dict[str, int] = {}
        self._has_names = False
        self._wrong: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._ends)

    @contextmanager
    def row(self, line: int) -> Iterator[None]:
        """Context for one row: a `RowError` in it is recorded, and reading goes on."""
        try:
            yield
        except RowError as error:
            self.note(line, error)

    def note(self, line: int, error: RowError) -> None:
        """Record the error of a row.

        Raises:
            ValueError: the limit of malformed rows is reached.
        """
        self._wrong.append((line, str(error)))
        if len(self._wrong) >= _MAX_NAMED:
            self._raise()

    def add(self, line: int, path: str, label: int | tuple[int, ...] | None) -> None:
        """Add a row; with a tuple of labels, every row has a set of them.

        Raises:
            RowError: the path is empty or has a NUL byte.
        """
        if not path:
            raise RowError("the path is empty")
        if "\0" in path:
            raise RowError("the path has a NUL byte")
        encoded = path.encode("utf-8", "surrogateescape")
        self._paths += encoded
        self._ends.append(len(self._paths))
        self._lines.append(line)
        self._keys.append(hash(encoded))
        if isinstance(label, int):
            self._labels.append(label)
        elif label is not None:
            if self._label_ends is None:  # so far each row had one
                self._label_ends = array("q", range(1, len(self)))
            self._labels.extend(label)
            self._has_several |= len(label) > 1
        if self._label_ends is not None:
            self._label_ends.append(len(self._labels))

    def add_without_label(self, line: int, path: str, error: RowError) -> None:
        """Add a row with an empty label: of no class, if other rows have several labels.

        Args:
            line: its number.
            path: of its video.
            error: recorded otherwise.

        Raises:
            RowError: see `add`.
        """
        self.add(line, path, ())
        if len(self._without) < _MAX_NAMED:
            self._without.append((line, str(error)))

    def numbers(self, text: str) -> tuple[int, ...]:
        """Class numbers with commas between them, ascending and each once; of no text none.

        Raises:
            RowError: one of them is not a valid class number.
        """
        return tuple(sorted({self.number(part.strip()) for part in text.split(",") if text}))

    def number(self, text: str) -> int:
        """Class number of a label that is a number.

        Raises:
            RowError: it is not a valid class number.
        """
        if not (text.isascii() and text.isdigit()):
            what = f"the label must be an integer >= 0, got {text!r}" if text else "no label"
            raise RowError(what)
        label = int(text)
        if label >= 1 << 31:
            raise RowError(f"the label must be below 2**31, got {text}")
        if self.class_names is not None and label >= len(self.class_names):
            classes = len(self.class_names)
            raise RowError(f"the label must be in [0, {classes}), got {label}")
        return label

    def named(self, text: str) -> int:
        """Class number of a name; without `class_names` preliminary, until `finish` sorts them.

        Raises:
            RowError: the name is empty or unknown.
        """
        if not self._has_names:
            self._has_names = True
            self._names = {name: i for i, name in enumerate(self.class_names or ())}
        if not text:
            raise RowError("no label")
        if self.class_names is not None and text not in self._names:
            near = difflib.get_close_matches(text, self.class_names, n=1)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise RowError(f"the label must be a class name, got {text!r}{hint}")
        return self._names.setdefault(text, len(self._names))

    def finish(self, folder: str, *, notes: Sequence[str] = ()) -> VideoList:
        """All rows that were added.

        Args:
            folder: folder of the videos.
            notes: warnings for the user.

        Raises:
            ValueError: there are no rows, or some are malformed or contradict each other.
        """
        repeated = self._check_repeated()
        if not self._has_several:
            self._wrong += self._without
        self.check()
        if not self._ends:
            content = "videos or images" if self._unit == "file" else "rows"
            raise ValueError(f"{self.source} has no {content}")
        notes = (*notes, *filter(None, (repeated, self._numbers_among_names())))
        labels = np.array(self._labels, np.int64) if self._labels else None
        sets = None
        if self._label_ends is not None:
            sets = LabelSets(np.array(self._labels, np.int64), np.array(self._label_ends, np.int64))
            labels = None
        names: tuple[str, ...] | None = None
        if self._has_names and labels is not None:
            names = tuple(self.class_names or sorted(self._names))
            rank = {name: i for i, name in enumerate(names)}
            # So far they are numbered by first occurrence.
            labels = np.array([rank[name] for name in self._names], np.int64)[labels]
        return VideoList(
            np.frombuffer(bytes(self._paths), np.uint8),
            np.array(self._ends, np.int64),
            labels,
            source=self.source,
            folder=folder,
            class_names=names,
            notes=tuple(notes),
            label_sets=sets,
        )

    def check(self) -> None:
        """Check that no row was malformed.

        Raises:
            ValueError: some were; the message names them.
        """
        self._wrong.sort()
        if self._wrong:
            self._raise()

    def _check_repeated(self) -> str:
        """Record rows that contradict an earlier one; return a note on those that repeat one."""
        keys = np.array(self._keys, np.int64)
        order = np.argsort(keys, kind="stable")
        # Neighbors with equal hashes, in the order of the list.
        suspects = np.flatnonzero(np.diff(keys[order]) == 0) + 1
        firsts: dict[bytes, int] = {}
        repeated: list[int] = []
        for place in suspects.tolist():
            for row in (int(order[place - 1]), int(order[place])):
                first = firsts.setdefault(self._encoded(row), row)
                if first == row or row in repeated[-1:]:
                    continue
                repeated.append(row)
                if self._labels and self._labels_of(first) != self._labels_of(row):
                    path = self._encoded(row).decode("utf-8", "replace")
                    one, other = self._label(row), self._label(first)
                    what = f"{path!r} has the label {one}, but {other} in {self._unit}"
                    self._wrong.append((self._lines[row], f"{what} {self._lines[first]}"))
        if not repeated:
            return ""
        row = min(repeated)
        path = self._encoded(row).decode("utf-8", "replace")
        where = f"{self._unit} {self._lines[row]}"
        return f"{len(repeated)} rows repeat a path, the first of them is {path!r} in {where}"

    def _numbers_among_names(self) -> str:
        """Return a note on numbers that are read as names, since the first label is a name."""
        names = [] if self.class_names is not None else list(self._names)
        numbers = [name for name in names if name.isascii() and name.isdigit()]
        if not 0 < len(numbers) < len(names):
            return ""
        return (
            f"{len(numbers)} of {len(names)} labels are numbers, such as {numbers[0]!r}; they are "
            "read as names of classes, since others are names"
        )

    def _encoded(self, row: int) -> bytes:
        begin = self._ends[row - 1] if row else 0
        return bytes(self._paths[begin : self._ends[row]])

    def _labels_of(self, row: int) -> tuple[int, ...]:
        if self._label_ends is None:
            return (self._labels[row],)
        begin = self._label_ends[row - 1] if row else 0
        return tuple(self._labels[begin : self._label_ends[row]])

    def _label(self, row: int) -> str:
        labels = self._labels_of(row)
        if not self._has_names:
            return ",".join(map(str, labels)) or "none"
        names = list(self._names)  # in the order of their numbers
        return ",".join(repr(names[label]) for label in labels) or "none"

    def _raise(self) -> None:
        is_cut = len(self._wrong) >= _MAX_NAMED
        raise_wrong_rows(self.source, self._wrong[:_MAX_NAMED], unit=self._unit, is_cut=is_cut)


def raise_wrong_rows(
    source: str, wrong: Sequence[tuple[int, str]], *, unit: str = "line", is_cut: bool = False
) -> NoReturn:
    """Raise one error for several malformed rows.

    Args:
        source: the list.
        wrong: number and error of each row; at least one.
        unit: singular noun for a row.
        is_cut: there may be more of them.

    Raises:
        ValueError: always.
    """
    named = [f"{unit} {line}: {cut_quotes(what)}" for line, what in wrong]
    if len(wrong) == 1:
        raise ValueError(f"{source}, {named[0]}")
    more = " or more" if is_cut else ""
    raise ValueError(f"{source}: {len(wrong)}{more} malformed rows: " + "; ".join(named))
