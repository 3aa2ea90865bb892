"""Lists of extracted frames, one row per frame, and folders of such frames."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from slowfast_maskfeat.datasets.row_collector import raise_wrong_rows
from slowfast_maskfeat.datasets.video_list import MissingListError
from slowfast_maskfeat.files import is_file, open_text
from slowfast_maskfeat.videos._numbered_frames import NumberedFrames
from slowfast_maskfeat.videos.media import is_image

_NUM_FIELDS = 5
_FORM = '`name number number path ""`'
_CHUNK = 2**24  # bytes of a list that are parsed at a time
_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)  # the last number is that of the frame


def read_frame_lists(
    paths: Sequence[str], folder: str, names: Iterable[str], *, fps: float
) -> dict[str, NumberedFrames]:
    """Read published lists of frames with rows `name number number path ""`.

    The frames of a video are adjacent rows with consecutive numbers in their paths, so that a few
    numbers are stored for each video instead of millions of paths.

    Args:
        paths: the lists, each with a header.
        folder: folder in front of the paths in the lists.
        names: names of the videos to read; others are skipped.
        fps: frame rate at which the frames were extracted.

    Returns:
        Name -> frames of each requested video that is in the lists.

    Raises:
        MissingListError: a list is missing.
        ValueError: a row is malformed, or the frames of a video are not numbered consecutively.
    """
    requested = set(names)
    found: dict[str, NumberedFrames] = {}
    for path in paths:
        if not is_file(path):
            raise MissingListError(f"frame list {path} does not exist")
        runs = NumberedRuns(path, fps=fps, found=found)
        for run in frame_runs(path):
            if run.name in requested:
                runs.add(run)
    return in_folder(found, folder)


def in_folder(found: Mapping[str, NumberedFrames], folder: str) -> dict[str, NumberedFrames]:
    """Put a folder in front of the paths of all frames; none if it is empty."""
    if not folder:
        return dict(found)
    return {
        name: replace(video, prefix=os.path.join(folder, video.prefix))
        for name, video in found.items()
    }


class FrameRun(NamedTuple):
    """Adjacent rows of a video.

    Attributes:
        name: of the video.
        line: of the first row.
        images: path of each frame.
        labels: last field of each row, encoded.
    """

    name: str
    line: int
    images: list[str]
    labels: list[bytes]


class NumberedRuns:
    """Collects the frames of each video of a list.

    Args:
        path: the list.
        fps: frame rate at which the frames were extracted.
        found: videos of earlier lists, to which this one's are added.

    Attributes:
        found: name -> frames so far.
    """

    def __init__(
        self, path: str, *, fps: float, found: dict[str, NumberedFrames] | None = None
    ) -> None:
        self._path = path
        self._fps = fps
        self._last = ""
        self.found = {} if found is None else found

    def add(self, run: FrameRun) -> NumberedFrames:
        """Add a run, which continues that before if both are of one video.

        Returns:
            The frames of its video so far.

        Raises:
            ValueError: other rows are between it and earlier ones of its video, or its frames are
                not numbered consecutively.
        """
        known = self.found.get(run.name)
        if known is not None and run.name != self._last:
            what = f"the rows of {run.name!r} must be adjacent, got others between them"
            _refuse(self._path, run.line, what)
        self._last = run.name
        images = run.images
        video = known or _numbered(images[0], self._fps)
        places = range(video.num_frames, video.num_frames + len(images))
        follows = [video.path(place) for place in places]
        if images != follows:
            place = next(i for i, image in enumerate(images) if image != follows[i])
            what = f"the next frame must be {follows[place]}, got {images[place]}"
            _refuse(self._path, run.line + place, what)
        self.found[run.name] = video = replace(video, num_frames=places.stop)
        return video


def list_frame_folders(
    folder: str, names: Iterable[str], *, fps: float
) -> dict[str, NumberedFrames]:
    """Find the numbered images in `folder/<name>/`.

    Returns:
        Name -> frames of each video that has some.

    Raises:
        ValueError: the images of a folder are not numbered consecutively.
    """
    found = {}
    for name in names:
        inside = os.path.join(folder, name)
        images = filter(is_image, os.listdir(inside)) if os.path.isdir(inside) else ()
        runs = [_numbered(os.path.join(inside, image), fps) for image in images]
        if not runs:
            continue
        runs.sort(key=lambda run: run.first)
        for place, run in enumerate(runs):
            if run.path(0) != runs[0].path(place):
                raise ValueError(
                    f"{inside}: the next frame must be {runs[0].path(place)}, got {run.path(0)}"
                )
        found[name] = replace(runs[0], num_frames=len(runs))
    return found


def _numbered(path: str, fps: float) -> NumberedFrames:
    """An empty run of frames that begins with this image.

    Raises:
        ValueError: the file name has no number.
    """
    folder, name = os.path.split(path)
    match = _NUMBERED.fullmatch(name)
    if match is None:
        raise ValueError(f"{path}: the file name of a frame must contain its number")
    before, number, after = match.groups()
    return NumberedFrames(
        prefix=os.path.join(folder, before),
        digits=len(number),
        suffix=after,
        first=int(number),
        num_frames=0,
        fps=fps,
    )


def frame_runs(path: str) -> Iterator[FrameRun]:
    """Yield each run of adjacent rows of a video.

    A video that extends beyond a chunk yields several runs.
    """
    with open_text(path, encoding="latin-1") as text:
        file = text.buffer
        line = 2
        header = file.readline().split()
        if b"path" not in header:
            _refuse(path, 1, "the header must have a column `path`")
        while lines := file.readlines(_CHUNK):
            fields = b"".join(lines).split()
            if len(fields) != _NUM_FIELDS * len(lines):
                wrong = [
                    (
                        line + place,
                        f"a row must be {_FORM}, got {text.decode('utf-8', 'replace').strip()!r}",
                    )
                    for place, text in enumerate(lines)
                    if len(text.split()) != _NUM_FIELDS
                ]
                raise_wrong_rows(path, wrong[:50], is_cut=len(wrong) > 50)
            begin = 0
            for name, group in groupby(fields[::_NUM_FIELDS]):
                end = begin + sum(1 for _ in group)
                of_run = fields[begin * _NUM_FIELDS : end * _NUM_FIELDS]
                images = [_text(image) for image in of_run[3::_NUM_FIELDS]]
                labels = of_run[4::_NUM_FIELDS]
                yield FrameRun(_text(name), line + begin, images, labels)
                begin = end
            line += len(lines)


def _text(field: bytes) -> str:
    return field.decode("utf-8", "surrogateescape")


def _refuse(path: str, line: int, what: str) -> None:
    raise_wrong_rows(path, [(line, what)])
