"""Read several lists so that a number means the same class in all of them, as in a training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from slowfast_maskfeat.curation.output_files import write_text
from slowfast_maskfeat.datasets import MissingListError, VideoList, read_class_names, read_list
from slowfast_maskfeat.datasets.list_file import separator_of

Names = tuple[str, ...] | None


class NamedList(NamedTuple):
    """A list with the names of its classes by number; None if it has numbers alone."""

    videos: VideoList
    class_names: Names


def read_lists(paths: Iterable[Path], *, separator: str, prefix: str) -> dict[Path, NamedList]:
    """Read lists.

    The names of classes are those of the file beside a list. Without it, where labels are names,
    they are those in `train.csv` beside the list, or of the lists before it, if the list has no
    others, else its own.

    Args:
        paths: of the lists.
        separator: as of `separator_of`.
        prefix: folder in front of each path in a list.

    Raises:
        ValueError: see `read_list`.
    """
    lists: dict[Path, NamedList] = {}
    for path in paths:
        names = read_class_names(path.parent)
        videos = _read(path, separator, prefix, names)
        if names is None and videos.class_names is not None:
            before = (named.class_names for named in lists.values())
            candidates = [_names_beside(path, separator, prefix), *before, videos.class_names]
            own = set(videos.class_names)
            names = next(names for names in candidates if names and own <= set(names))
            videos = _read(path, separator, prefix, names)
        lists[path] = NamedList(videos, names)
    return lists


def _read(path: Path, separator: str, prefix: str, names: Names) -> VideoList:
    own = separator_of(str(path), separator)
    return read_list(path, separator=own, prefix=prefix, class_names=names)


def _names_beside(path: Path, separator: str, prefix: str) -> Names:
    train = path.with_name("train.csv")
    try:
        return None if train == path else _read(train, separator, prefix, None).class_names
    except (MissingListError, ValueError):  # this list is optional
        return None


def common_class_names(lists: Mapping[Path, NamedList]) -> Names:
    """Return the class names of lists for one folder; None if none has any.

    Raises:
        ValueError: they have different ones.
    """
    found = {named.class_names: path for path, named in lists.items() if named.class_names}
    if len(found) > 1:
        first, second = list(found.values())[:2]
        raise ValueError(
            f"lists for one folder must have the same classes, but those of {first} and {second} "
            "differ; use another --output for each"
        )
    return next(iter(found), None)


def write_class_names(names: Names, folder: Path) -> list[Path]:
    """Write `classes.txt` into a folder, one name in a line; returns it if there are names."""
    if names is None:
        return []
    return [write_text(folder / "classes.txt", "".join(f"{name}\n" for name in names))]
