"""How the videos of Kinetics lie on disk: the layouts that people download."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np

from slowfast_maskfeat.datasets.video_list import VideoList

# Some of the videos are always missing; so many rows, spread over the list, tell the layout.
_NUM_PROBES = 50
# The splits have these names in archives and in the annotations.
_SPLIT_NAMES = (
    ("train", "training"),
    ("val", "validate", "validation"),
    ("test", "testing"),
)


def find_layout(videos: VideoList, folders: Sequence[str], list_name: str) -> VideoList:
    """The rows of an official list with the paths that the videos have on disk.

    Looked for inside `folders` and inside a folder there that is named for the split (`train`,
    `val`, `videos_train`, ...): the label's folder with blanks or with underscores for them, or all
    videos flat. The layout in which most of a sample of the rows is there wins; if none of them is,
    as for an address on the network, it is the label's folder with blanks.

    Args:
        videos: Rows `<label>/<name>`, or `<name>` in lists without labels.
        folders: Where the videos may be.
        list_name: Name of the list file, which says the split.
    """
    spellings: tuple[Callable[[str], str] | None, ...] = (None, _underscored, _flat)
    bases = [base for folder in folders for base in (folder, *_split_folders(folder, list_name))]
    rows = np.unique(np.linspace(0, len(videos) - 1, _NUM_PROBES).astype(int)).tolist()
    best, most = videos, 0
    for base in bases:
        for spelling in spellings:
            candidate = videos.placed(base, spelling)
            found = sum(os.path.isfile(candidate.path(row)) for row in rows)
            if found > most:
                best, most = candidate, found
            if found == len(rows):
                return best
    return best


def _split_folders(folder: str, list_name: str) -> list[str]:
    """Folders of the split inside `folder`."""
    stem = os.path.splitext(list_name)[0].lower()
    names = next((names for names in _SPLIT_NAMES if any(name in stem for name in names)), ())
    forms = ("{}", "videos_{}", "{}_256", "{}_videos")
    inside = (os.path.join(folder, form.format(name)) for name in names for form in forms)
    return [path for path in inside if os.path.isdir(path)]


def _underscored(path: str) -> str:
    label, _, name = path.rpartition("/")
    return f"{label.replace(' ', '_')}/{name}" if label else name


def _flat(path: str) -> str:
    return path.rpartition("/")[2]
