"""Lists of extracted frames, one row per frame, and folders of such frames."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

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
        paths: The lists, each with a header.
        folder: Folder in front of the paths in the lists.
        names: Names of the videos to read; others are skipped.
        fps: Frame rate at which the frames were extracted.

    Returns:
        Name -> frames of each requested video that is in the lists.

    Raises:
        MissingListError: A list is missing.
        ValueError: A row is malformed, or the frames of a video are not numbered consecutively.
    """
    requested = set(names)
    found: dict[str, NumberedFrames] = {}
    for path in paths:
        if not is_file(path):
            raise MissingListError(f"frame list {path} does not exist")
        last = ""
        for name, line, images in _runs(path):
            if name not in requested:
                continue
            known = found.get(name)
            if known is not None and name != last:
                _refuse(
                    path, line, f"the rows of {name!r} must be adjacent, got others between them"
                )
            last = name
            run = known or _numbered(images[0], fps)
            places = range(run.num_frames, run.num_frames + len(images))
            follows = [run.path(place) for place in places]
            if images != follows:
                place = next(i for i, image in enumerate(images) if image != follows[i])
                what = f"the next frame must be {follows[place]}, got {images[place]}"
                _refuse(path, line + place, what)
            found[name] = replace(run, num_frames=places.stop)
    if folder:
        return {
            name: replace(run, prefix=os.path.join(folder, run.prefix))
            for name, run in found.items()
        }
    return found


def list_frame_folders(
    folder: str, names: Iterable[str], *, fps: float
) -> dict[str, NumberedFrames]:
    """Find the numbered images in `folder/<name>/`.

    Returns:
        Name -> frames of each video that has some.

    Raises:
        ValueError: The images of a folder are not numbered consecutively.
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
        ValueError: The file name has no number.
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


def _runs(path: str) -> Iterator[tuple[str, int, list[str]]]:
    """Yield name, first line, and frame paths of each run of adjacent rows of a video.

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
                images = fields[3 + begin * _NUM_FIELDS : end * _NUM_FIELDS : _NUM_FIELDS]
                yield _text(name), line + begin, [_text(image) for image in images]
                begin = end
            line += len(lines)


def _text(field: bytes) -> str:
    return field.decode("utf-8", "surrogateescape")


def _refuse(path: str, line: int, what: str) -> None:
    raise_wrong_rows(path, [(line, what)])
