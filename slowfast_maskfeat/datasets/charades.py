"""Charades: videos as extracted frames, each with the actions that take place in it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.datasets.frame_lists import (
    FrameRun,
    NumberedRuns,
    frame_runs,
    in_folder,
)
from slowfast_maskfeat.datasets.label_sets import LabelSets
from slowfast_maskfeat.datasets.list_file import read_own_list
from slowfast_maskfeat.datasets.row_collector import RowCollector, RowError
from slowfast_maskfeat.datasets.video_list import (
    DataFolder,
    MissingListError,
    OpenedRow,
    VideoList,
)
from slowfast_maskfeat.files import is_file, join
from slowfast_maskfeat.videos._numbered_frames import NumberedFrames
from slowfast_maskfeat.videos.decode_options import DecodeOptions


class _Stretch(NamedTuple):
    """Consecutive frames with the same labels: the first of them, and the labels."""

    first: int
    labels: tuple[int, ...]


class FrameVideos(VideoList):
    """Videos as folders of numbered frames, with labels for each frame.

    The labels of a video are those of all its frames.
    """

    def __init__(
        self,
        videos: Sequence[NumberedFrames],
        stretches: Sequence[Sequence[_Stretch]],
        *,
        source: str,
    ) -> None:
        encoded = [
            os.path.dirname(video.prefix).encode("utf-8", "surrogateescape") for video in videos
        ]
        every = [stretch for of_video in stretches for stretch in of_video]
        sets = LabelSets(
            np.array([label for stretch in every for label in stretch.labels], np.int64),
            np.cumsum([len(stretch.labels) for stretch in every], dtype=np.int64),
        )
        ends = np.cumsum([len(of_video) for of_video in stretches], dtype=np.int64)
        of_videos = [sets.of(begin, end) for begin, end in _pairs(ends)]
        super().__init__(
            np.frombuffer(b"".join(encoded), np.uint8),
            np.cumsum([len(path) for path in encoded], dtype=np.int64),
            None,
            source=source,
            label_sets=LabelSets(
                np.concatenate([np.zeros(0, np.int64), *of_videos]),
                np.cumsum([len(labels) for labels in of_videos], dtype=np.int64),
            ),
        )
        self._videos = tuple(videos)
        self._sets = sets
        self._set_ends = ends
        self._firsts = np.array([stretch.first for stretch in every], np.int64)

    def first_files(self, count: int) -> list[str]:
        """First frames of the first `count` videos."""
        return [video.path(0) for video in self._videos[:count]]

    def labels_of(self, row: int, frames: tuple[int, int] | None = None) -> NDArray[np.int64]:
        """Class numbers of a video, or of its frames from the first to the last of `frames`."""
        if frames is None:
            return super().labels_of(row)
        begin, end = int(self._set_ends[row - 1]) if row else 0, int(self._set_ends[row])
        firsts = self._firsts[begin:end]
        first = int(np.searchsorted(firsts, frames[0], side="right")) - 1
        last = int(np.searchsorted(firsts, frames[1], side="right"))
        return self._sets.of(begin + first, begin + last)

    def open(self, row: int, *, reach: float, options: DecodeOptions) -> OpenedRow:
        """Open the frames of a video: see `VideoList.open`."""
        return OpenedRow(self._videos[row].open(max_image_pixels=options.max_image_pixels))

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the names and numbers of all frames and of their labels."""
        digest = hashlib.sha256(b"frames")
        for video in self._videos:
            name = f"{os.path.basename(video.prefix)}{video.first} {video.num_frames}\n"
            digest.update(name.encode("utf-8", "surrogateescape"))
        for column in (self._firsts, self._set_ends, self._sets.numbers, self._sets.ends):
            digest.update(column.tobytes())
        return digest.hexdigest()


def read_charades(
    data: DataFolder, split: str, class_names: Sequence[str] | None = None
) -> VideoList:
    """Read Charades in PySlowFast's form: `train.csv`, and `val.csv` for validation and test.

    After a header each row is a frame: `original_vido_id video_id frame_id path labels`, whose
    labels are class numbers with commas, in quotes: `"12,34"`, or `""` for none. The rows of a
    video are adjacent, and its frames are numbered consecutively. Frames have no rate of their own:
    DATA.SAMPLING_RATE counts them. A clip of the training has the labels of the frames from its
    first to its last, a video in validation and test those of all its frames, as published.

    A file with one video per row, also `test.csv`, is read as a list of videos.

    Raises:
        MissingListError: there is no such file.
        ValueError: rows are malformed; the message names file and lines.
    """
    part = "train" if split == "train" else "val"
    for name in dict.fromkeys((split, part)):
        own = read_own_list(data, name, class_names)
        if own is not None:
            return own
    path = join(data.path, f"{part}.csv")
    if not is_file(path):
        raise MissingListError(f"list file {path} does not exist")
    labels = RowCollector(path, class_names)  # of each frame: checks and errors alone
    runs = NumberedRuns(path, fps=data.frame_rate)
    stretches: dict[str, list[_Stretch]] = {}
    for run in frame_runs(path):
        video = runs.add(run)
        of_video = stretches.setdefault(run.name, [])
        first = video.num_frames - len(run.images)
        for place, found in _label_changes(run, labels):
            if not of_video or of_video[-1].labels != found:
                of_video.append(_Stretch(first + place, found))
    labels.check()
    if not stretches:
        raise ValueError(f"{path} has no rows")
    videos = in_folder(runs.found, data.prefix)
    return FrameVideos(list(videos.values()), list(stretches.values()), source=path)


def _label_changes(run: FrameRun, rows: RowCollector) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield each place in a run whose labels are spelled otherwise than before, and the labels."""
    before = None
    for place, encoded in enumerate(run.labels):
        if encoded == before:
            continue
        before = encoded
        try:
            text = encoded.decode("utf-8", "surrogateescape").replace('"', "")
            yield place, rows.numbers(text)
        except RowError as error:
            rows.note(run.line + place, error)


def _pairs(ends: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    begin = 0
    for end in ends.tolist():
        yield begin, end
        begin = end
