"""Frames of single videos for a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.clips import ClipDataset
from slowfast_maskfeat.files import is_address
from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.metrics.class_report import Ranking
from slowfast_maskfeat.videos.decode import DecodeError, Video, open_video

Frames = Sequence[NDArray[np.uint8]]
ReadFrames = Callable[[int], Frames]
"""Row of a list -> up to three frames of its video; a ValueError or OSError if there are none."""

NUM_FRAMES = 3


class Examples(NamedTuple):
    """Videos that are worth a look, as places in a ranking.

    Attributes:
        worst: wrong with the highest score, the highest first.
        best: right with the highest score.
    """

    worst: NDArray[np.int64]
    best: NDArray[np.int64]


def choose_examples(ranking: Ranking, count: int) -> Examples:
    """Choose up to `count` videos of each kind; of equal scores the earlier rows."""
    order = np.argsort(-ranking.scores[:, 0], kind="stable")
    order = order[ranking.is_finite[order]]
    is_right = ranking.is_right()[order]
    return Examples(order[~is_right][:count], order[is_right][:count])


def spread_frames(video: Video) -> list[NDArray[np.uint8]]:
    """Decode three frames that are evenly spread over a video; an image has one."""
    count = min(NUM_FRAMES, video.num_frames)
    places = [(2 * number + 1) * video.num_frames // (2 * count) for number in range(count)]
    return [np.asarray(frame) for frame in video.frames(places)]


def list_frames(dataset: ClipDataset) -> ReadFrames:
    """Return a reader of the rows of a list: frames all over a video, or the key frame of boxes."""

    def read(row: int) -> Frames:
        opened = dataset.open(row)
        with opened.video as video:
            if opened.timestamp is None:
                return spread_frames(video)
            nearest = int(np.abs(np.asarray(video.timestamps) - opened.timestamp).argmin())
            return [np.asarray(video.frames([nearest])[0])]

    return read


def local_frames(paths: Sequence[str]) -> ReadFrames:
    """Return a reader of local files by their paths, which come from a file of anyone."""

    def read(row: int) -> Frames:
        if not paths:
            raise ValueError("the file of scores has no paths")
        if is_address(paths[row]):
            raise DecodeError(paths[row], "only local files are read")
        with open_video(paths[row]) as video:
            return spread_frames(video)

    return read


def read_or_reason(read: ReadFrames, row: int) -> tuple[Frames, str]:
    """Return the frames of a row and an empty text, or no frames and the reason."""
    try:
        return read(row), ""
    except DecodeError as error:
        return (), error.reason
    except (ValueError, OSError) as error:
        return (), first_line(error)
