"""Key frames of videos, with boxes to classify."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.datasets.ava_media import Media
from slowfast_maskfeat.datasets.video_list import OpenedRow, VideoList
from slowfast_maskfeat.videos.decode import open_around
from slowfast_maskfeat.videos.decode_options import DecodeOptions
from slowfast_maskfeat.videos.video import DecodeError, Video

# AVA annotates minutes 15 to 30 of its films, and many copies contain only these.
_CUT_BEGIN, _CUT_LASTS = 900.0, (895.0, 902.0)
# Seconds that a key frame may be after the end, since headers round durations.
_LEEWAY = 0.5


@dataclass(frozen=True)
class BoxTable:
    """All boxes of a list, in the order of its key frames.

    Attributes:
        boxes: float32 (N, 4): x1, y1, x2, y2 as fractions of width and height.
        scores: float32 (N,), of the detector; 1 for annotated boxes.
        actions: int64 (A,), class numbers from 0 of all boxes, concatenated.
        action_ends: int64 (N,), end of the classes of each box in `actions`.
        num_classes: K.
        multi_label: a box has any number of classes, else one at most.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    actions: NDArray[np.int64]
    action_ends: NDArray[np.int64]
    num_classes: int
    multi_label: bool = True

    def __len__(self) -> int:
        return len(self.boxes)

    def labels(self, index: NDArray[np.int64]) -> NDArray[np.float32] | NDArray[np.int64]:
        """Labels of some boxes.

        Args:
            index: (R,) numbers of boxes.

        Returns:
            float32 (R, K) of ones and zeros; without `multi_label` int64 (R,) class numbers, or -1
            for a box without a class.
        """
        ends = self.action_ends[index]
        counts = ends - np.where(index > 0, self.action_ends[index - 1], 0)
        rows = np.repeat(np.arange(len(index)), counts)
        # Indices of each box's classes: `counts` of them, ending at `ends`.
        places = np.arange(len(rows)) - np.repeat(counts.cumsum() - ends, counts)
        if self.multi_label:
            hot = np.zeros((len(index), self.num_classes), np.float32)
            hot[rows, self.actions[places]] = 1
            return hot
        numbers = np.full(len(index), -1, np.int64)
        numbers[rows] = self.actions[places]
        return numbers


class KeyFrame(NamedTuple):
    """One key frame with its boxes.

    Attributes:
        second: time in the annotations.
        boxes: float32 (R, 4), see `BoxTable`.
        first_box: number of its first box in the table, which the others follow.
    """

    second: float
    boxes: NDArray[np.float32]
    first_box: int


class KeyFrames(VideoList):
    """Key frames with boxes; the `path` of a sample is that of its video.

    Attributes:
        media: the videos.
        video: int64 (n,), index of each key frame's video in `media`.
        seconds: float64 (n,), time in the annotations.
        box_ends: int64 (n,), end of the boxes of each key frame in the table.
        table: the boxes.
        every: the list has only key frames whose whole second is divisible by this number.
        labels: None: labels belong to boxes, not to key frames.
    """

    unit = "key frames"

    def __init__(
        self,
        media: Media,
        video: NDArray[np.int64],
        seconds: NDArray[np.float64],
        box_ends: NDArray[np.int64],
        table: BoxTable,
        *,
        every: int = 1,
        source: str,
        notes: tuple[str, ...] = (),
    ) -> None:
        encoded = [path.encode("utf-8", "surrogateescape") for path in media.paths]
        lengths = np.array([len(path) for path in encoded], np.int64)
        super().__init__(
            np.frombuffer(b"".join([encoded[number] for number in video]), np.uint8),
            lengths[video].cumsum(),
            None,
            source=source,
            notes=notes,
        )
        self.media = media
        self.video = video
        self.seconds = seconds
        self.box_ends = box_ends
        self.table = table
        self.every = every

    def first_files(self, count: int) -> list[str]:
        """First frames of the first `count` videos; video files were found in their folder."""
        return [] if self.media.frames is None else list(self.media.paths[:count])

    def key_frame(self, row: int) -> KeyFrame:
        """Time and boxes of a sample."""
        first = int(self.box_ends[row - 1]) if row else 0
        boxes = self.table.boxes[first : self.box_ends[row]]
        return KeyFrame(float(self.seconds[row]), boxes, first)

    def rows_of_boxes(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Key frame of each box: (R,) numbers of boxes -> (R,) numbers of samples."""
        return np.searchsorted(self.box_ends, index, side="right")

    def open(self, row: int, *, reach: float, options: DecodeOptions) -> OpenedRow:
        """Open the video of a row around its key frame: see `VideoList.open`."""
        key = self.key_frame(row)
        video, timestamp = self._open_at(row, seconds=reach, options=options)
        return OpenedRow(video, timestamp, key.boxes, key.first_box + np.arange(len(key.boxes)))

    def _open_at(self, row: int, *, seconds: float, options: DecodeOptions) -> tuple[Video, float]:
        """The video of a row, and the seconds of its key frame on the clock of its timestamps."""
        second = float(self.seconds[row])
        place = partial(second_in_file, self.path(row), second, self.media.begin)
        if self.media.frames is not None:
            images = self.media.frames[self.video[row]]
            timestamp = place(images.num_frames / images.fps)
            return images.open(max_image_pixels=options.max_image_pixels), timestamp
        return open_around(self.path(row), place, seconds=seconds, options=options)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of names, times, boxes, scores and classes; not of the videos' folder."""
        digest = hashlib.sha256("\n".join(self.media.names).encode("utf-8", "surrogateescape"))
        table = self.table
        for column in (self.video, self.seconds, self.box_ends, table.boxes, table.scores):
            digest.update(column.tobytes())
        digest.update(table.actions.tobytes() + table.action_ends.tobytes())
        return digest.hexdigest()


def second_in_file(path: str, second: float, begin: float | None, duration: float) -> float:
    """Convert a time in the annotations to a time in a file, in seconds from its first frame.

    Args:
        path: path of the file, for messages.
        second: time in the annotations.
        begin: time in the annotations at which the file begins. None determines it: 0, or 900 for
            a file of about 15 minutes that would end before `second`, as AVA annotates minutes 15
            to 30 of films and copies contain either all or only these.
        duration: duration of the file in seconds.

    Raises:
        DecodeError: the time is outside of the file.
    """
    if begin is None:
        is_cut = _CUT_LASTS[0] <= duration <= _CUT_LASTS[1] and second > duration - _LEEWAY
        begin = _CUT_BEGIN if is_cut else 0.0
    if not 0 <= second - begin <= duration + _LEEWAY:
        raise DecodeError(
            path,
            f"the key frame at {second:g} s is outside of the file, which is {duration:.1f} s long"
            + (f" and begins at {begin:g} s (AVA.VIDEO_BEGIN)" if begin else ""),
        )
    return second - begin
