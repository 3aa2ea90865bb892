"""Folders that say it all: one per split, in it one per class, in it videos or images."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from slowfast_maskfeat.datasets.list_file import read_own_list
from slowfast_maskfeat.datasets.video_list import (
    DataFolder,
    MissingListError,
    RowCollector,
    VideoList,
)
from slowfast_maskfeat.videos.media import is_media

_WORDNET_ID = re.compile(r"n\d{8}")
# The test images of ImageNet have no labels, so tests are made on the validation set.
_IMAGENET_FOLDERS = {"train": "train", "val": "val", "test": "val"}


def read_folder(
    data: DataFolder, split: str, class_names: Sequence[str] | None = None
) -> VideoList:
    """A folder a class: `<split>/<class>/.../<file>`, videos or images.

    Classes are numbered in sorted order of the folders of `train`, unless names beside the lists
    say another. A split without class folders gives paths without labels, for pre-training, and a
    folder without any of `train`, `val` and `test` is itself the training set.

    Raises:
        MissingListError: There is neither such a folder nor a list `<split>.csv`.
        ValueError: It has no videos, or a class that is not among the names.
    """
    own = read_own_list(data, split, class_names)
    if own is not None:
        return own
    names = class_names or folder_class_names(data)
    return _read_class_folders(_split_folder(data, split), lambda _: True, names)


def folder_class_names(data: DataFolder) -> tuple[str, ...] | None:
    """The class folders of the training set, sorted."""
    try:
        folder = _split_folder(data, "train")
    except MissingListError:
        return None
    return tuple(_class_folders(folder)) or None


def read_imagenet(
    data: DataFolder, split: str, class_names: Sequence[str] | None = None
) -> VideoList:
    """ImageNet: `train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG`; tests read `val`.

    Classes are numbered in sorted order of the WordNet ids of `train`, as in every published model;
    names beside the lists may be words for them, in that order. An image is a video of one frame.

    Raises:
        MissingListError: There is neither such a folder nor a list `<split>.csv`.
        ValueError: It has no images, or a class that is not among the names.
    """
    own = read_own_list(data, split, class_names)
    if own is not None:
        return own
    folder = os.path.join(data.videos(), _IMAGENET_FOLDERS[split])
    if not os.path.isdir(folder):
        raise MissingListError(f"{data.path} has no {split}.csv, and there is no folder {folder}")
    if not any(map(_is_wordnet_id, _class_folders(folder))):
        raise ValueError(
            f"{folder} has no folders named by WordNet ids (n01440764, ...), into which the "
            "validation images of ImageNet must be sorted, too; set TRAIN.DATASET and TEST.DATASET "
            "to 'folder' for classes of other names"
        )
    names = imagenet_class_names(data) or ()
    if class_names is not None and not set(names) <= set(class_names):
        if len(class_names) != len(names):
            raise ValueError(
                f"{data.path} has names of {len(class_names)} classes beside the lists, and there "
                f"are {len(names)} folders named by WordNet ids"
            )
    elif class_names is not None:
        names = tuple(class_names)
    return _read_class_folders(folder, _is_wordnet_id, names)


def imagenet_class_names(data: DataFolder) -> tuple[str, ...] | None:
    """The WordNet ids of `train`, or else of `val`, sorted."""
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
    raise MissingListError(f"{data.path} has no {split}.csv, and there is no folder {folder}")


def _class_folders(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")
        )


def _read_class_folders(
    folder: str, is_class: Callable[[str], bool], class_names: Sequence[str] | None
) -> VideoList:
    """Rows in the order of their names: those of the class folders, or else of the files alone."""
    folders = _class_folders(folder)
    classes = [name for name in folders if is_class(name)]
    rows = RowCollector(folder, class_names, unit="file")
    passed_over: list[str] = [name for name in folders if not is_class(name)]
    for name in classes:
        for path in _files(folder, name):
            if not is_media(path):
                passed_over.append(path)
                continue
            with rows.row(len(rows) + 1):
                rows.add(len(rows) + 1, path, rows.named(name))
    for path in _files(folder, "", deep=False):
        if classes or not is_media(path):
            passed_over.append(path)
        else:
            rows.add(len(rows) + 1, path, None)
    notes = []
    if passed_over:
        notes.append(
            f"{len(passed_over)} entries are no videos or images of a class and are passed over, "
            f"such as {passed_over[0]!r}"
        )
    return rows.finish(folder, notes=notes)


def _files(folder: str, inside: str, *, deep: bool = True) -> list[str]:
    """Paths relative to `folder` of the files inside a folder of it, sorted; no hidden ones."""
    found = []
    for place, folders, files in os.walk(os.path.join(folder, inside), followlinks=True):
        folders[:] = [name for name in folders if deep and not name.startswith(".")]
        relative = os.path.relpath(place, folder)
        for name in files:
            if not name.startswith("."):
                found.append(name if relative == "." else f"{relative}/{name}")
    return sorted(found)
