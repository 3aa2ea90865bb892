"""Class names in a file beside the lists."""

from __future__ import annotations

import json
import os
from collections import Counter

from slowfast_maskfeat.files import is_file, join, open_text
from slowfast_maskfeat.text import quoted

_CLASS_FILES = (
    "classes.txt",
    "class_names.txt",
    "class_names.json",
    "classes.json",
    "kinetics_classnames.json",
)


def read_class_names(folder: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """Read the names of the classes from a file beside the lists.

    The first existing file is read: `classes.txt` or `class_names.txt` (one name per line,
    starting with class 0); `class_names.json`, `classes.json` or `kinetics_classnames.json` (a
    list of names, or an object name -> number).

    Returns:
        The names by number, or None without such a file.

    Raises:
        ValueError: the file is empty or not UTF-8, contains a name twice, or its numbers are not
            0..K-1.
    """
    path = find_class_names(folder)
    return None if path is None else read_names(path)


def find_class_names(folder: str | os.PathLike[str]) -> str | None:
    """Find the file that `read_class_names` reads; None if there is none."""
    paths = (join(os.fspath(folder), name) for name in _CLASS_FILES)
    return next((path for path in paths if is_file(path)), None)


def read_names(path: str) -> tuple[str, ...]:
    """Read the names of the classes from a file: one per line, or JSON if it ends in .json.

    Args:
        path: of the file; JSON is a list of names, or an object name -> number.

    Returns:
        The names by number.

    Raises:
        ValueError: see `read_class_names`, or there is no such file.
    """
    try:
        with open_text(path) as file:
            content = file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text: {error}") from error
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file of class names") from error
    names = _names_in_json(path, content) if path.endswith(".json") else None
    if names is None:
        names = [line.strip() for line in content.splitlines() if line.strip()]
    if not names:
        raise ValueError(f"{path} must contain class names, got none")
    if len(set(names)) != len(names):
        twice = quoted(Counter(names).most_common(1)[0][0])
        raise ValueError(f"{path} must contain each class name once, got {twice} twice")
    return tuple(names)


def _names_in_json(path: str, content: str) -> list[str]:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be valid JSON: {error}") from error
    if isinstance(data, dict):
        if sorted(data.values(), key=str) != sorted(range(len(data)), key=str):
            raise ValueError(f"{path} must map its {len(data)} names to 0..{len(data) - 1}")
        data = sorted(data, key=data.__getitem__)
    if not isinstance(data, list) or not all(isinstance(name, str) for name in data):
        raise ValueError(f"{path} must be a list of names or an object name -> number")
    # The names in the common Kinetics file have quotes of their own.
    return [name.strip().strip('"') for name in data]
