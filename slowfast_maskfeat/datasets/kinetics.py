"""Layouts in which Kinetics videos are stored on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np

from slowfast_maskfeat.datasets.video_list import VideoList

# Some videos are always missing, so the layout is determined from this many rows of the list.
_NUM_PROBES = 50
# Names of the splits in archives and annotations.
_SPLIT_NAMES = (
    ("train", "training"),
    ("val", "validate", "validation"),
    ("test", "testing"),
)


def find_layout(videos: VideoList, folders: Sequence[str], list_name: str) -> VideoList:
    """Map the rows of an official list to the paths of the videos on disk.

    `folders` and their subfolders named after the split (`train`, `val`, `videos_train`, ...) are
    searched for class folders, spelled with spaces or with underscores, and for videos without
    class folders. The layout with most of the probed rows is chosen; if none of them exists, as on
    the network, it is class folders spelled with spaces.

    Args:
        videos: samples `<label>/<name>`, or `<name>` in lists without labels.
        folders: folders in which the videos may be.
        list_name: name of the list file, which contains the split.
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
    """Existing folders of the split inside `folder`."""
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
