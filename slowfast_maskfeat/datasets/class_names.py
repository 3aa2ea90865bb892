"""Names of the classes, from a file beside the lists."""

from __future__ import annotations

import json
import os

from slowfast_maskfeat.files import is_file, join, open_text

_CLASS_FILES = (
    "classes.txt",
    "class_names.txt",
    "class_names.json",
    "classes.json",
    "kinetics_classnames.json",
)


def read_class_names(folder: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """Names of the classes by number, from a file beside the lists.

    The first that exists of: `classes.txt`, `class_names.txt` (a name a line, the first is class
    0); `class_names.json`, `classes.json`, `kinetics_classnames.json` (a list of names, or an
    object name -> number).

    Returns:
        The names, or None if there is no such file.

    Raises:
        ValueError: The file is empty, holds a name twice, or its numbers are not 0..K-1.
    """
    for name in _CLASS_FILES:
        path = join(os.fspath(folder), name)
        if is_file(path):
            with open_text(path) as file:
                content = file.read()
            names = _names_in_json(path, content) if path.endswith(".json") else None
            if names is None:
                names = [line.strip() for line in content.splitlines() if line.strip()]
            if not names:
                raise ValueError(f"{path} holds no class names")
            if len(set(names)) != len(names):
                twice = next(name for i, name in enumerate(names) if name in names[:i])
                raise ValueError(f"{path} holds the class name {twice!r} more than once")
            return tuple(names)
    return None


def _names_in_json(path: str, content: str) -> list[str]:
    try:
        data = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if isinstance(data, dict):
        if sorted(data.values(), key=str) != sorted(range(len(data)), key=str):
            raise ValueError(f"{path} must map its {len(data)} names to 0..{len(data) - 1}")
        data = sorted(data, key=data.__getitem__)
    if not isinstance(data, list) or not all(isinstance(name, str) for name in data):
        raise ValueError(f"{path} must hold a list of names or an object name -> number")
    # The widespread Kinetics file has quotes within its names.
    return [name.strip().strip('"') for name in data]
