"""Short names of files for figures."""

from __future__ import annotations

import os
from collections.abc import Sequence

MAX_LENGTH = 34  # characters that fit into the height of a row of a panel


def shorten(name: str, length: int = MAX_LENGTH) -> str:
    """Shorten a long name: its middle is left out, since names of clips differ at the ends."""
    if len(name) <= length:
        return name
    start = (length - 3) * 2 // 3
    return f"{name[:start]}...{name[start + 3 - length :]}"


def file_names(paths: Sequence[str]) -> list[str]:
    """Short names of files, with as many of their folders as tell different files apart."""
    parts = [[part for part in path.replace(os.sep, "/").split("/") if part] for path in paths]
    depth = 1
    while depth < max(map(len, parts), default=1):
        different = {tuple(of_path[-depth:]) for of_path in parts}
        if len(different) == len(set(paths)):
            break
        depth += 1
    return [shorten("/".join(of_path[-depth:])) for of_path in parts]
