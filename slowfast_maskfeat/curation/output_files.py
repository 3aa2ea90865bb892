"""Files that commands on data write: text as bytes of any path, tables of what was left out."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.text import printable

_NUM_PRINTED = 10


def write_text(path: Path, text: str) -> Path:
    """Write a text atomically, in UTF-8; surrogate escapes become the bytes that they stand for.

    Args:
        path: of the file; its folder is created.
        text: that may have paths from `os` functions, whose bytes need not be UTF-8.

    Returns:
        The path.

    Raises:
        OSError: the file can't be written.
    """
    with atomic_write(path) as part:
        part.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a table as CSV, like `write_text`.

    Args:
        path: of the file.
        columns: names in the first line.
        rows: cells in the order of the columns.

    Returns:
        The path.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return write_text(path, text.getvalue())


def print_first(lines: Sequence[str], table: Path) -> None:
    """Print the first of the lines about what was left out, and which table has all of them.

    Args:
        lines: one for each row of the table.
        table: the file.
    """
    for line in lines[:_NUM_PRINTED]:
        print(printable(f"  {line}"))
    if len(lines) > _NUM_PRINTED:
        print(f"  ... all {len(lines)} in {table}")


def check_folder(lists: Sequence[Path], output: Path) -> None:
    """Check that files named after lists can be written to a folder without replacing anything.

    Args:
        lists: list files.
        output: the folder.

    Raises:
        ValueError: two lists have the same name, or one is in the folder.
    """
    names = [path.name for path in lists]
    if len(set(names)) < len(names):
        raise ValueError(f"names of lists must be unique, got {names}")
    for path in lists:
        if path.resolve() == (output / path.name).resolve():
            raise ValueError(f"--output must be another folder than that of {path}, got {output}")


def reading_keys(folder: Path, prefix: str, separator: str) -> str:
    """Return the line of keys and values with which a run reads written lists.

    Args:
        folder: of the lists.
        prefix: folder of the videos.
        separator: of the lists.
    """
    words = ("DATA.PATH_TO_DATA_DIR", str(folder), "DATA.PATH_PREFIX", prefix)
    keys = f"read them with {shlex.join(words)}"
    return keys + (' DATA.PATH_LABEL_SEPARATOR ","' if separator == "," else "")
