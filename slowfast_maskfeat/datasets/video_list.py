"""Samples of a split: how they are stored, checked and identified."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.datasets.label_sets import LabelSets
from slowfast_maskfeat.files import is_address, is_file, join
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.videos.decode import open_file
from slowfast_maskfeat.videos.decode_options import DecodeOptions
from slowfast_maskfeat.videos.video import Video


class MissingListError(ValueError):
    """The folder has no list of the split, nor the files that the data set comes with."""


@contextmanager
def named_by(key: str) -> Iterator[None]:
    """Put the configuration key that names a file in front of the errors of reading it.

    Raises:
        MissingListError: the file is missing.
        ValueError: it is malformed.
    """
    try:
        yield
    except MissingListError as error:
        raise MissingListError(f"{key}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def _no_progress(total: int, description: str) -> Progress:
    return Progress(total, description, enabled=False)


@dataclass(frozen=True)
class Shards:
    """Tar shards of a data set and how they are read.

    Attributes:
        patterns: split ("train", "val", "test") -> its shards, such as `a-{000..099}.tar`; the
            folder is searched for a split without a pattern (DATA.TRAIN_SHARDS and so on).
        label: which members hold labels (DATA.SHARD_LABEL).
        buffer: size of the shuffle buffer in samples (DATA.SHUFFLE_BUFFER).
        cache: folder for indices that cannot be stored beside their shards (DATA.SHARD_CACHE).
    """

    patterns: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    buffer: int = 1000
    cache: str = ""


@dataclass(frozen=True)
class DataFolder:
    """Location of a data set and format of its lists.

    Attributes:
        path: folder of the lists (config key DATA.PATH_TO_DATA_DIR).
        prefix: folder of the videos (DATA.PATH_PREFIX); empty: the reader's default.
        separator: separator of path and label in list files (DATA.PATH_LABEL_SEPARATOR).
        official_split: number of the published split (DATA.OFFICIAL_SPLIT).
        frame_rate: frames per second of extracted frames without a rate (DATA.TARGET_FPS).
        shards: options for data in tar files.
        progress: (total, description) -> progress bar of a long read.
    """

    path: str
    prefix: str = ""
    separator: str = " "
    official_split: int = 1
    frame_rate: float = 30.0
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
        video: close it.
        timestamp: seconds of the row's key frame, on the clock of the video's timestamps; None for
            rows without one, as the next two.
        boxes: float32 (R, 4), x1, y1, x2, y2 as shares of width and height.
        box_index: int64 (R,), the number of each box in the list's table.
    """

    video: Video
    timestamp: float | None = None
    boxes: NDArray[np.float32] | None = None
    box_index: NDArray[np.int64] | None = None


class VideoList:
    """Samples of a split in three arrays, whatever their number.

    Attributes:
        labels: int64 (n,) class numbers; None if rows have none, or any number of them.
        label_sets: the class numbers of each row if rows have any number of them, else None.
        source: list file or folder, for messages.
        class_names: names of the classes if the labels in the list are names, else None.
        notes: warnings for the user: repeated rows, ignored files.
        unit: plural noun for the samples in messages.
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
        label_sets: LabelSets | None = None,
    ) -> None:
        """Store the concatenated encoded `paths` and int64 (n,) `ends` of each of them.

        `spell` maps a path in the list to the path on disk, relative to `folder`.
        """
        assert labels is None or len(labels) == len(ends)
        assert label_sets is None or (labels is None and len(label_sets) == len(ends))
        self._paths = paths
        self._ends = ends
        self._folder = folder
        self._spell = spell
        self.labels = labels
        self.label_sets = label_sets
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

    def single_labels(self) -> list[int] | None:
        """Class number of each row, for commands that write lists; None for paths alone.

        Raises:
            ValueError: rows have several labels.
        """
        if self.label_sets is not None:
            raise ValueError(f"{self.source} must have one label in each row here, got several")
        return None if self.labels is None else [int(label) for label in self.labels.tolist()]

    def labels_of(self, row: int, frames: tuple[int, int] | None = None) -> NDArray[np.int64]:
        """Class numbers of a row of `label_sets`, ascending.

        Args:
            row: which.
            frames: first and last frame of a clip of the row, for lists with labels of each frame.
        """
        assert self.label_sets is not None
        return self.label_sets.of(row)

    def first_files(self, count: int) -> list[str]:
        """Local files among the first `count` samples, to see whether they exist.

        There are none in a list whose samples are not opened by their path, as in shards.
        """
        kind = type(self)
        if kind.content is not VideoList.content or kind.open is not VideoList.open:
            return []
        paths = (self.path(index) for index in range(min(count, len(self))))
        return [path for path in paths if not is_address(path)]

    def content(self, index: int, *, timeout: float = 0.0) -> bytes | None:
        """Bytes of a sample's video; None if a decoder can open its path.

        Args:
            index: number of the sample.
            timeout: seconds without data after which reading fails; 0: no limit.

        Raises:
            DecodeError: reading fails.
        """
        return None

    def open(self, row: int, *, reach: float, options: DecodeOptions) -> OpenedRow:
        """Open the video of a row.

        Args:
            row: which.
            reach: seconds that are needed before and after the key frame of a row that has one;
                other rows open the whole video.
            options: how the file is decoded.

        Raises:
            DecodeError: see `open_video`; or the video ends before the key frame.
        """
        content = self.content(row, timeout=options.read_timeout)
        return OpenedRow(open_file(self.path(row), options, content))

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
            label_sets=self.label_sets,
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of paths and labels.

        It does not depend on separator, header, folder of the videos and its layout.
        """
        sets = self.label_sets
        kind = b"bare" if self.labels is None else b"labeled"
        digest = hashlib.sha256(b"label sets" if sets is not None else kind)
        further = (None, None) if sets is None else (sets.numbers, sets.ends)
        for column in (self._ends, self._paths, self.labels, *further):
            if column is not None:
                digest.update(column.tobytes())
        return digest.hexdigest()
