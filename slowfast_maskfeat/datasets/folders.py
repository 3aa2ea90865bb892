"""Data sets without lists: `<split>/<class>/` folders of videos or images."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from slowfast_maskfeat.datasets.list_file import read_own_list
from slowfast_maskfeat.datasets.row_collector import RowCollector
from slowfast_maskfeat.datasets.video_list import DataFolder, MissingListError, VideoList
from slowfast_maskfeat.videos.media import is_media

_WORDNET_ID = re.compile(r"n\d{8}")
# The test images of ImageNet have no labels, so the validation set is tested.
_IMAGENET_FOLDERS = {"train": "train", "val": "val", "test": "val"}


def read_folder(
    data: DataFolder, split: str, class_names: Sequence[str] | None = None
) -> VideoList:
    """Read class folders, `<split>/<class>/.../<file>`, of videos or images.

    Classes are numbered in the order of `class_names`, by default in sorted order of the folders in
    `train`. A split without class folders has no labels, which suits pre-training, and a folder
    without any of `train`, `val` and `test` is itself the training set.

    Raises:
        MissingListError: there is neither a folder of the split nor a list `<split>.csv`.
        ValueError: the folder has no videos, or a class that is not among the names.
    """
    own = read_own_list(data, split, class_names)
    if own is not None:
        return own
    names = class_names or folder_class_names(data)
    return _read_class_folders(_split_folder(data, split), lambda _: True, names)


def folder_class_names(data: DataFolder) -> tuple[str, ...] | None:
    """Sorted names of the class folders of the training set."""
    try:
        folder = _split_folder(data, "train")
    except MissingListError:
        return None
    return tuple(_class_folders(folder)) or None


def read_imagenet(
    data: DataFolder, split: str, class_names: Sequence[str] | None = None
) -> VideoList:
    """Read ImageNet: `train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG`; a test reads `val`.

    Classes are numbered in sorted order of the WordNet ids in `train`, as in every published model;
    `class_names` may be words for them in that order. An image is a video of one frame.

    Raises:
        MissingListError: there is neither a folder of the split nor a list `<split>.csv`.
        ValueError: the folder has no images, or a class that is not among the names.
    """
    own = read_own_list(data, split, class_names)
    if own is not None:
        return own
    folder = os.path.join(data.videos(), _IMAGENET_FOLDERS[split])
    if not os.path.isdir(folder):
        raise _missing(data, split, folder)
    if not any(map(_is_wordnet_id, _class_folders(folder))):
        raise ValueError(
            f"{folder} must contain folders named after WordNet ids (n01440764, ...), got none; "
            "sort the validation images of ImageNet into such folders, or set TRAIN.DATASET and "
            "TEST.DATASET to 'folder' for classes with other names"
        )
    names = imagenet_class_names(data) or ()
    if class_names is not None and not set(names) <= set(class_names):
        if len(class_names) != len(names):
            raise ValueError(
                f"{data.path} must have as many class names as {folder} has folders named after "
                f"WordNet ids, got {len(class_names)} names and {len(names)} folders"
            )
    elif class_names is not None:
        names = tuple(class_names)
    return _read_class_folders(folder, _is_wordnet_id, names)


def imagenet_class_names(data: DataFolder) -> tuple[str, ...] | None:
    """Sorted WordNet ids of the folders in `train`, else in `val`."""
    for split in ("train", "val"):
        folder = os.path.join(data.videos(), split)
        if os.path.isdir(folder):
            return tuple(filter(_is_wordnet_id, _class_folders(folder))) or None
    return None


def _is_wordnet_id(name: str) -> bool:
    return _WORDNET_ID.fullmatch(name) is not None


def _split_folder(data: DataFolder, split: str) -> str:
    root = data.videos()
    folder = os.path.join(root, split)
    if os.path.isdir(folder):
        return folder
    others = [name for name in ("train", "val", "test") if os.path.isdir(os.path.join(root, name))]
    if split == "train" and not others and os.path.isdir(root):
        return root
    raise _missing(data, split, folder)


def _missing(data: DataFolder, split: str, folder: str) -> MissingListError:
    hint = ""
    if split == "train":
        hint = "; pre-training needs no labels: a train.csv with one path per line is enough"
    return MissingListError(f"{data.path} has no {split}.csv, and {folder} does not exist{hint}")


def _class_folders(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")
        )


def _read_class_folders(
    folder: str, is_class: Callable[[str], bool], class_names: Sequence[str] | None
) -> VideoList:
    """Samples in sorted order: files in class folders, or else files without labels."""
    folders = _class_folders(folder)
    classes = [name for name in folders if is_class(name)]
    rows = RowCollector(folder, class_names, unit="file")
    ignored: list[str] = [name for name in folders if not is_class(name)]
    for name in classes:
        for path in files_below(folder, name):
            if not is_media(path):
                ignored.append(path)
                continue
            with rows.row(len(rows) + 1):
                rows.add(len(rows) + 1, path, rows.named(name))
    for path in files_below(folder, "", deep=False):
        if classes or not is_media(path):
            ignored.append(path)
        else:
            rows.add(len(rows) + 1, path, None)
    notes = []
    if ignored:
        notes.append(
            f"ignored {len(ignored)} entries that are not videos or images of a class, such as "
            f"{ignored[0]!r}"
        )
    return rows.finish(folder, notes=notes)


def files_below(folder: str, inside: str = "", *, deep: bool = True) -> list[str]:
    """Sorted paths, relative to `folder`, of the files in its subfolder `inside`; none hidden.

    Links are followed, except those to a folder that the walk came through.

    Args:
        folder: where to look.
        inside: subfolder of it.
        deep: whether the files in subfolders are included.
    """
    found = []
    for place, folders, files in os.walk(os.path.join(folder, inside), followlinks=True):
        folders[:] = [
            name
            for name in folders
            if deep and not name.startswith(".") and not _leads_back(folder, place, name)
        ]
        relative = os.path.relpath(place, folder)
        for name in files:
            if not name.startswith("."):
                found.append(name if relative == "." else f"{relative}/{name}")
    return sorted(found)


def _leads_back(root: str, place: str, name: str) -> bool:
    """Whether a folder is a link to one of those from `root` to `place`."""
    path = os.path.join(place, name)
    if not os.path.islink(path):
        return False
    inside = os.path.relpath(place, root)
    above = [root]
    for part in inside.split(os.sep) if inside != "." else ():
        above.append(os.path.join(above[-1], part))
    return os.path.realpath(path) in map(os.path.realpath, above)
