"""Samples of a split: how they are stored, checked and identified."""

from __future__ import annotations

import difflib
import hashlib
import os
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.files import is_file, join
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.videos.decode import open_video
from slowfast_maskfeat.videos.video import Video

# Reading stops after this many malformed rows.
_MAX_NAMED = 50


class MissingListError(ValueError):
    """The folder has no list of the split, nor the files that the data set comes with."""


def _no_progress(total: int, description: str) -> Progress:
    return Progress(total, description, enabled=False)


@dataclass(frozen=True)
class Shards:
    """Tar shards of a data set and how they are read.

    Attributes:
        patterns: Split ("train", "val", "test") -> its shards, such as `a-{000..099}.tar`; the
            folder is searched for a split without a pattern (DATA.TRAIN_SHARDS and so on).
        label: Which members hold labels (DATA.SHARD_LABEL).
        buffer: Size of the shuffle buffer in samples (DATA.SHUFFLE_BUFFER).
        cache: Folder for indices that cannot be stored beside their shards (DATA.SHARD_CACHE).
    """

    patterns: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    buffer: int = 1000
    cache: str = ""


@dataclass(frozen=True)
class DataFolder:
    """Location of a data set and format of its lists.

    Attributes:
        path: Folder of the lists (config key DATA.PATH_TO_DATA_DIR).
        prefix: Folder of the videos (DATA.PATH_PREFIX); empty: the reader's default.
        separator: Separator of path and label in list files (DATA.PATH_LABEL_SEPARATOR).
        official_split: Number of the published split (DATA.OFFICIAL_SPLIT).
        shards: Options for data in tar files.
        progress: (total, description) -> progress bar of a long read.
    """

    path: str
    prefix: str = ""
    separator: str = " "
    official_split: int = 1
    shards: Shards = field(default_factory=Shards)
    progress: Callable[[int, str], Progress] = _no_progress

    def videos(self, *names: str) -> str:
        """Folder of the videos: the prefix, else the first existing subfolder, else `path`."""
        if self.prefix:
            return self.prefix
        inside = (os.path.join(self.path, name) for name in names)
        return next((folder for folder in inside if os.path.isdir(folder)), self.path)

    def find(self, *names: str) -> str | None:
        """Path of the first of these files that exists, or None."""
        inside = (join(self.path, name) for name in names)
        return next((path for path in inside if is_file(path)), None)


class OpenedRow(NamedTuple):
    """The opened video of a row.

    Attributes:
        video: Close it.
        moment: Seconds of the row's key frame, on the clock of the video's timestamps; None for
            rows without one, as the next two.
        boxes: float32 (R, 4), x1, y1, x2, y2 as shares of width and height.
        box_index: int64 (R,), the number of each box in the list's table.
    """

    video: Video
    moment: float | None = None
    boxes: NDArray[np.float32] | None = None
    box_index: NDArray[np.int64] | None = None


class VideoList:
    """Samples of a split in three arrays, whatever their number.

    Attributes:
        labels: int64 (n,) class numbers, or None if the list has no labels.
        source: List file or folder, for messages.
        class_names: Names of the classes if the labels in the list are names, else None.
        notes: Warnings for the user: repeated rows, ignored files.
        unit: Plural noun for the samples in messages.
    """

    unit = "videos"

    def __init__(
        self,
        paths: NDArray[np.uint8],
        ends: NDArray[np.int64],
        labels: NDArray[np.int64] | None,
        *,
        source: str,
        folder: str = "",
        class_names: tuple[str, ...] | None = None,
        notes: tuple[str, ...] = (),
        spell: Callable[[str], str] | None = None,
    ) -> None:
        """Store the concatenated encoded `paths` and int64 (n,) `ends` of each of them.

        `spell` maps a path in the list to the path on disk, relative to `folder`.
        """
        assert labels is None or len(labels) == len(ends)
        self._paths = paths
        self._ends = ends
        self._folder = folder
        self._spell = spell
        self.labels = labels
        self.source = source
        self.class_names = class_names
        self.notes = notes

    def __len__(self) -> int:
        return len(self._ends)

    def path(self, index: int) -> str:
        """Path of a sample, including the folder of the videos.

        Raises:
            IndexError: `index` is out of range.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.source}: the index must be in [0, {len(self)}), got {index}")
        begin = int(self._ends[index - 1]) if index else 0
        encoded = self._paths[begin : self._ends[index]].tobytes()
        path = encoded.decode("utf-8", "surrogateescape")
        return join(self._folder, path if self._spell is None else self._spell(path))

    def content(self, index: int, *, timeout: float = 0.0) -> bytes | None:
        """Bytes of a sample's video; None if a decoder can open its path.

        Args:
            index: Number of the sample.
            timeout: Seconds without data after which reading fails; 0: no limit.

        Raises:
            DecodeError: Reading fails.
        """
        return None

    def open(
        self, row: int, *, reach: float, backend: str, num_threads: int, read_timeout: float
    ) -> OpenedRow:
        """Open the video of a row.

        Args:
            row: Which.
            reach: Seconds that are needed before and after the key frame of a row that has one;
                other rows open the whole video.
            backend: See `open_video`, as the next two.
            num_threads: Of the decoder.
            read_timeout: Seconds without data.

        Raises:
            DecodeError: See `open_video`; or the video ends before the key frame.
        """
        video = open_video(
            self.path(row),
            backend,
            num_threads=num_threads,
            read_timeout=read_timeout,
            content=self.content(row, timeout=read_timeout),
        )
        return OpenedRow(video)

    def shuffled(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Random order of the samples for one epoch: int64 (n,), a permutation."""
        return generator.permutation(len(self))

    def placed(self, folder: str, spell: Callable[[str], str] | None) -> VideoList:
        """The same samples with the videos in another folder or layout."""
        return VideoList(
            self._paths,
            self._ends,
            self.labels,
            source=self.source,
            folder=folder,
            class_names=self.class_names,
            notes=self.notes,
            spell=spell,
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of paths and labels.

        It does not depend on separator, header, folder of the videos and its layout.
        """
        digest = hashlib.sha256(b"labeled" if self.labels is not None else b"bare")
        for column in (self._ends, self._paths, self.labels):
            if column is not None:
                digest.update(column.tobytes())
        return digest.hexdigest()


class RowError(Exception):
    """A malformed row of a list; the message says why."""


class RowCollector:
    """Collects valid rows in growing arrays, and the errors of the others.

    Args:
        source: The list, for messages.
        class_names: Names of the classes by number; None numbers names in sorted order.
        unit: Singular noun for a row in messages; rows count from 1.
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
            ValueError: The limit of malformed rows is reached.
        """
        self._wrong.append((line, str(error)))
        if len(self._wrong) >= _MAX_NAMED:
            self._raise()

    def add(self, line: int, path: str, label: int | None) -> None:
        """Add a row.

        Raises:
            RowError: The path is empty.
        """
        if not path:
            raise RowError("the path is empty")
        encoded = path.encode("utf-8", "surrogateescape")
        self._paths += encoded
        self._ends.append(len(self._paths))
        self._lines.append(line)
        self._keys.append(hash(encoded))
        if label is not None:
            self._labels.append(label)

    def number(self, text: str) -> int:
        """Class number of a label that is a number.

        Raises:
            RowError: It is not a valid class number.
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
            RowError: The name is empty or unknown.
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
            folder: Folder of the videos.
            notes: Warnings for the user.

        Raises:
            ValueError: There are no rows, or some are malformed or contradict each other.
        """
        repeated = self._check_repeated()
        if self._wrong:
            self._raise()
        if not self._ends:
            raise ValueError(f"{self.source} has no rows")
        if repeated:
            notes = (*notes, repeated)
        labels = np.array(self._labels, np.int64) if self._labels else None
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
        )

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
                if self._labels and self._labels[first] != self._labels[row]:
                    path = self._encoded(row).decode("utf-8", "replace")
                    one, other = self._label(row), self._label(first)
                    what = f"{path!r} has the label {one}, but {other} in {self._unit}"
                    self._wrong.append((self._lines[row], f"{what} {self._lines[first]}"))
        self._wrong.sort()
        if not repeated:
            return ""
        row = min(repeated)
        path = self._encoded(row).decode("utf-8", "replace")
        where = f"{self._unit} {self._lines[row]}"
        return f"{len(repeated)} rows repeat a path, the first of them is {path!r} in {where}"

    def _encoded(self, row: int) -> bytes:
        begin = self._ends[row - 1] if row else 0
        return bytes(self._paths[begin : self._ends[row]])

    def _label(self, row: int) -> str:
        label = self._labels[row]
        if not self._has_names:
            return str(label)
        return repr(next(name for name, number in self._names.items() if number == label))

    def _raise(self) -> None:
        is_cut = len(self._wrong) >= _MAX_NAMED
        raise_wrong_rows(self.source, self._wrong[:_MAX_NAMED], unit=self._unit, is_cut=is_cut)


def raise_wrong_rows(
    source: str, wrong: Sequence[tuple[int, str]], *, unit: str = "line", is_cut: bool = False
) -> NoReturn:
    """Raise one error for several malformed rows.

    Args:
        source: The list.
        wrong: Number and error of each row; at least one.
        unit: Singular noun for a row.
        is_cut: There may be more of them.

    Raises:
        ValueError: Always.
    """
    named = [f"{unit} {line}: {what}" for line, what in wrong]
    if len(wrong) == 1:
        raise ValueError(f"{source}, {named[0]}")
    more = " or more" if is_cut else ""
    raise ValueError(f"{source}: {len(wrong)}{more} malformed rows: " + "; ".join(named))
