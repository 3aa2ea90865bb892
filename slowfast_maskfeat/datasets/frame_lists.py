"""Lists of extracted frames, a row a frame, and folders of such frames."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from slowfast_maskfeat.datasets.video_list import MissingListError, raise_wrong_rows
from slowfast_maskfeat.files import is_file, open_text
from slowfast_maskfeat.videos._numbered_frames import NumberedFrames
from slowfast_maskfeat.videos.media import is_image

_NUM_FIELDS = 5
_FORM = 'name, two numbers, path and "" with blanks between them'
_CHUNK = 2**24  # bytes of a list that are looked at a time
_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)  # the last number counts


def read_frame_lists(
    paths: Sequence[str], folder: str, names: Iterable[str], *, fps: float
) -> dict[str, NumberedFrames]:
    """Reads published lists of frames: rows `name number number path ""`, blanks between them.

    The frames of a video stand together, and their paths hold numbers that count on by one: so a
    few facts of each video are kept, not millions of rows.

    Args:
        paths: The lists, each with a header row.
        folder: In front of the paths in them.
        names: Of the videos that are wanted; others may be there.
        fps: At which the frames were extracted.

    Returns:
        The frames of each video that is wanted and in the lists.

    Raises:
        MissingListError: A list is missing.
        ValueError: A row is malformed, or the frames of a video are not numbered one by one.
    """
    wanted = set(names)
    found: dict[str, NumberedFrames] = {}
    for path in paths:
        if not is_file(path):
            raise MissingListError(f"list of frames {path} does not exist")
        last = ""
        for name, line, images in _runs(path):
            if name not in wanted:
                continue
            known = found.get(name)
            if known is not None and name != last:
                _refuse(path, line, f"the frames of {name!r} do not stand together")
            last = name
            run = known or _numbered(images[0], fps)
            places = range(run.num_frames, run.num_frames + len(images))
            follows = [run.path(place) for place in places]
            if images != follows:
                place = next(i for i, image in enumerate(images) if image != follows[i])
                what = f"{follows[place]} should follow, got {images[place]}: frames are numbered"
                _refuse(path, line + place, what + " one by one")
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
    """The images in `folder/<name>/` by their numbers, of each video that has some.

    Raises:
        ValueError: The images of a folder are not numbered one by one.
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
                    f"{inside}: {runs[0].path(place)} should follow, there is {run.path(0)}: "
                    "frames are numbered one by one"
                )
        found[name] = replace(runs[0], num_frames=len(runs))
    return found


def _numbered(path: str, fps: float) -> NumberedFrames:
    """A run that begins with this image, and has no frame yet.

    Raises:
        ValueError: Its name has no number.
    """
    folder, name = os.path.split(path)
    match = _NUMBERED.fullmatch(name)
    if match is None:
        raise ValueError(f"{path}: the name has no number, by which frames are told apart")
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
    """Name of the video, first line, and paths of frames that stand together.

    A video that goes on beyond a chunk comes in several runs.
    """
    with open_text(path, encoding="latin-1") as text:
        file = text.buffer
        line = 2
        header = file.readline().split()
        if b"path" not in header:
            _refuse(path, 1, "a header with the column `path` is wanted")
        while lines := file.readlines(_CHUNK):
            fields = b"".join(lines).split()
            if len(fields) != _NUM_FIELDS * len(lines):
                wrong = [
                    (
                        line + place,
                        f"{_FORM} wanted, got {text.decode('utf-8', 'replace').strip()!r}",
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
