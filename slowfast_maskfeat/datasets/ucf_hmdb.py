"""UCF101 and HMDB51: three official splits each, in text files."""

from __future__ import annotations

import os
from collections.abc import Sequence

from slowfast_maskfeat.datasets.list_file import read_own_list
from slowfast_maskfeat.datasets.row_collector import RowCollector, RowError
from slowfast_maskfeat.datasets.video_list import DataFolder, MissingListError, VideoList
from slowfast_maskfeat.files import join, list_names, open_text

_UCF_FOLDERS = ("", "ucfTrainTestlist", "splits")
_UCF_VIDEOS = ("UCF-101", "videos")
_HMDB_FOLDERS = ("", "testTrainMulti_7030_splits", "test_train_splits", "splits")
_HMDB_VIDEOS = ("hmdb51_org", "hmdb51", "videos")


def read_ucf101(
    data: DataFolder, split: str, class_names: Sequence[str] | None = None
) -> VideoList:
    """Read UCF101: `trainlist0<n>.txt` for training, `testlist0<n>.txt` for validation and test.

    These and `classInd.txt` are in the folder or in its `ucfTrainTestlist`. The class of a video is
    its folder, which must agree with the number (from 1) in a training list. Videos are in
    DATA.PATH_PREFIX, or in `UCF-101` or `videos`.

    Raises:
        MissingListError: there is neither such a file nor a list `<split>.csv`.
        ValueError: rows are malformed; the message names file and lines.
    """
    own = read_own_list(data, split, class_names)
    if own is not None:
        return own
    name = f"{'train' if split == 'train' else 'test'}list{data.official_split:02d}.txt"
    path = data.find(*(os.path.join(folder, name) for folder in _UCF_FOLDERS))
    if path is None:
        raise MissingListError(f"{data.path} has neither {split}.csv nor {name}")
    class_names = class_names or ucf101_class_names(data)
    if class_names is None:
        raise ValueError(f"{data.path} must contain classInd.txt, the class names of {name}")
    rows = RowCollector(path, class_names)
    for line, text in _lines(path):
        with rows.row(line):
            video, number = _ucf_fields(text)
            label = rows.named(video.partition("/")[0] if "/" in video else "")
            if number and number != str(label + 1):
                raise RowError(
                    f"the number of {class_names[label]!r} must be {label + 1}, got {number}"
                )
            rows.add(line, video, label)
    return rows.finish(data.videos(*_UCF_VIDEOS))


def ucf101_class_names(data: DataFolder) -> tuple[str, ...] | None:
    """Class names in `classInd.txt`, whose numbers start at 1.

    Raises:
        ValueError: the file is malformed.
    """
    path = data.find(*(os.path.join(folder, "classInd.txt") for folder in _UCF_FOLDERS))
    if path is None:
        return None
    names: list[str] = []
    for line, text in _lines(path):
        number, _, name = text.partition(" ")
        if number != str(len(names) + 1) or not name.strip():
            raise ValueError(
                f"{path}, line {line}: the line must be `{len(names) + 1} <name>`, got {text!r}"
            )
        names.append(name.strip())
    if not names:
        raise ValueError(f"{path} must contain class names, got none")
    return tuple(names)


def read_hmdb51(
    data: DataFolder, split: str, class_names: Sequence[str] | None = None
) -> VideoList:
    """Read HMDB51: `<class>_test_split<n>.txt`, one file per class.

    A row is a file name and 1 (training), 2 (validation and test) or 0 (unused in this split). The
    files are in the folder or in its `testTrainMulti_7030_splits`; the classes are numbered in
    sorted order. Videos are `<class>/<name>` in DATA.PATH_PREFIX, or in `hmdb51_org` or `videos`.

    Raises:
        MissingListError: there are neither such files nor a list `<split>.csv`.
        ValueError: rows are malformed; the message names file and lines.
    """
    own = read_own_list(data, split, class_names)
    if own is not None:
        return own
    files = _hmdb_files(data)
    if not files:
        raise MissingListError(
            f"{data.path} has neither {split}.csv nor files "
            f"<class>_test_split{data.official_split}.txt"
        )
    folder = os.path.dirname(next(iter(files.values())))
    used = "1" if split == "train" else "2"
    source = os.path.join(folder, f"*_test_split{data.official_split}.txt")
    rows = RowCollector(source, class_names or tuple(files), unit="row")
    number = 0
    for name, path in files.items():
        for line, text in _lines(path):
            number += 1
            with rows.row(number):
                video, _, use = text.rpartition(" ")
                if not video.strip() or use not in ("0", "1", "2"):
                    what = f"the line must be `<file name> 0, 1 or 2`, got {text!r}"
                    raise RowError(f"{os.path.basename(path)}, line {line}: {what}")
                if use == used:
                    rows.add(number, f"{name}/{video.strip()}", rows.named(name))
    return rows.finish(data.videos(*_HMDB_VIDEOS))


def hmdb51_class_names(data: DataFolder) -> tuple[str, ...] | None:
    """Sorted names of the classes that have a split file."""
    return tuple(_hmdb_files(data)) or None


def _hmdb_files(data: DataFolder) -> dict[str, str]:
    """Class -> split file, in sorted order."""
    end = f"_test_split{data.official_split}.txt"
    for folder in (join(data.path, name) for name in _HMDB_FOLDERS):
        names = [name for name in list_names(folder) if name.endswith(end)]
        if names:
            return {name[: -len(end)]: join(folder, name) for name in names}
    return {}


def _ucf_fields(text: str) -> tuple[str, str]:
    """Path, and the number after it or ""."""
    video, _, number = text.rpartition(" ")
    return (video.strip(), number) if number.isdigit() and video.strip() else (text, "")


def _lines(path: str) -> list[tuple[int, str]]:
    """Line number and content of each line that is not blank."""
    with open_text(path, errors="surrogateescape") as file:
        return [(line, text.strip()) for line, text in enumerate(file, 1) if text.strip()]
