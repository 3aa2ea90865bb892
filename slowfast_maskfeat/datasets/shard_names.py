"""Shards of a split: patterns, lists and folders -> paths in order."""

from __future__ import annotations

import fnmatch
import os
import re

from slowfast_maskfeat.datasets.video_list import DataFolder, MissingListError
from slowfast_maskfeat.files import is_file, is_plain_http, join, list_names, open_text

# A range with more is a typing error.
_MAX_SHARDS = 1_000_000
_GROUP = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)(?:\.\.(\d+))?")


def find_shards(data: DataFolder, split: str) -> tuple[list[str], str]:
    """Find the shards of a split.

    They are named by the pattern of the split in `data.shards`, else by the first of these that
    exists: the list `<split>_shards.txt`; the folder `<split>`; `<split>-*.tar` or `<split>_*.tar`;
    for training, all shards in a folder without any of the splits.

    Returns:
        Paths of the shards, and the pattern, list or folder that names them.

    Raises:
        MissingListError: the split has no shards.
        ValueError: a pattern is malformed, or names a shard twice.
    """
    folder = data.videos()
    pattern = data.shards.patterns.get(split, "")
    if pattern:
        shards, source = _expand(pattern, folder, data.prefix), pattern
        if not shards:
            raise MissingListError(f"DATA.{split.upper()}_SHARDS: {pattern} matches no shard")
    else:
        shards, source = _look_for(data, folder, split)
    seen: set[str] = set()
    for shard in shards:
        if shard in seen:
            raise ValueError(f"{source} must name each shard once, got {shard} twice")
        seen.add(shard)
    return shards, source


def expand_braces(pattern: str) -> list[str]:
    """Expand braces as in a shell: `a-{000..002}.tar`, `a-{1..9..2}.tar`, `{a,b}.tar`.

    Leading zeros set the width of all numbers.

    Raises:
        ValueError: a brace is not closed, is neither a range nor a list, or the result too long.
    """
    found = _GROUP.search(pattern)
    if found is None:
        if "{" in pattern or "}" in pattern:
            raise ValueError(f"{pattern}: a brace is not closed")
        return [pattern]
    names = []
    for choice in _choices(found[1], pattern):
        names += expand_braces(pattern[: found.start()] + choice + pattern[found.end() :])
        if len(names) > _MAX_SHARDS:
            raise ValueError(f"{pattern} must name at most {_MAX_SHARDS} shards, got more")
    return names


def _choices(text: str, pattern: str) -> list[str]:
    numbers = _RANGE.fullmatch(text)
    if numbers is None:
        if "," not in text:
            raise ValueError(
                f"{pattern}: braces must be a range ({{000..099}}) or a list ({{a,b}}), got "
                f"{{{text}}}"
            )
        return text.split(",")
    first, last, step = int(numbers[1]), int(numbers[2]), int(numbers[3] or 1)
    if last < first or step < 1:
        raise ValueError(f"{pattern}: a range must be ascending, got {{{text}}}")
    if (last - first) // step >= _MAX_SHARDS:
        raise ValueError(f"{pattern} must name at most {_MAX_SHARDS} shards, got more")
    is_padded = any(len(end) > 1 and end.startswith("0") for end in numbers.groups()[:2])
    width = max(map(len, numbers.groups()[:2])) if is_padded else 0
    return [f"{number:0{width}d}" for number in range(first, last + 1, step)]


def _expand(pattern: str, folder: str, prefix: str = "") -> list[str]:
    """Shards named by one pattern: braces, wildcards, a folder, or a list of patterns."""
    shards = []
    for name in expand_braces(pattern):
        path = join(folder, name)
        if name.endswith(".txt"):
            shards += _read_list(path, prefix)
        elif "*" in os.path.basename(name):
            above, _, last = path.rpartition("/")
            inside = fnmatch.filter(list_names(above or "."), last)
            shards += [join(above, found) for found in inside]
        elif _is_shard(name):
            shards.append(path)
        else:
            shards += [join(path, found) for found in list_names(path) if _is_shard(found)]
    return shards


def _is_shard(name: str) -> bool:
    """Whether a name is that of a tar; compressed ones are rejected when they are read."""
    return name.lower().endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"))


def _read_list(path: str, prefix: str) -> list[str]:
    """Shards in a list with one pattern per line, relative to the prefix or the list's folder."""
    if not is_file(path):
        raise MissingListError(f"shard list {path} does not exist")
    above = path.replace(os.sep, "/").rpartition("/")[0]
    shards: list[str] = []
    with open_text(path) as file:
        for text in file:
            line = text.strip()
            if line and not line.startswith("#"):
                if line.endswith(".txt"):
                    raise ValueError(f"{path} must name shards, got the list {line}")
                shards += _expand(line, prefix or above)
    return shards


def _look_for(data: DataFolder, folder: str, split: str) -> tuple[list[str], str]:
    listed = join(data.path, f"{split}_shards.txt")
    if is_file(listed):
        shards = _read_list(listed, data.prefix)
        if not shards:
            raise ValueError(f"{listed} has no rows")
        return shards, listed
    inside = join(folder, split)
    if shards := [join(inside, name) for name in _shards_in(inside)]:
        return shards, inside
    names = _shards_in(folder)
    mine, source = _of_split(names, split), join(folder, f"{split}-*.tar")
    if not mine and split == "train":
        others = [name for other in ("val", "test") for name in _of_split(names, other)]
        if not others and not any(_shards_in(join(folder, other)) for other in ("val", "test")):
            mine, source = names, folder
    if not mine:
        raise MissingListError(
            f"{data.path} has no {split}_shards.txt, and {folder} neither a folder {split} with "
            f"shards nor {split}-*.tar; set DATA.{split.upper()}_SHARDS if they have other names"
        )
    return [join(folder, name) for name in mine], source


def _of_split(names: list[str], split: str) -> list[str]:
    return [name for name in names if name.startswith((f"{split}-", f"{split}_", f"{split}.tar"))]


def _shards_in(folder: str) -> list[str]:
    # HTTP servers cannot list folders, so their shards must be named.
    names = [] if is_plain_http(folder) else list_names(folder)
    return [name for name in names if _is_shard(name)]
