"""Counts which files are opened, by an audit hook of Python."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def opened_files(
    record: Path, counted: Callable[[str], bool]
) -> Iterator[Counter[tuple[int, str]]]:
    """Count how often this process, and each process forked from it, opens files.

    Args:
        record: File for what the processes report.
        counted: path -> whether it counts. Files that do not exist never do.

    Yields:
        (process, path) -> times, filled after the block.
    """
    descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    is_active = True

    def hook(event: str, arguments: tuple) -> None:
        if not is_active or event != "open" or isinstance(arguments[0], int):
            return
        path = os.fsdecode(arguments[0])
        if counted(path) and os.path.exists(path):
            os.write(descriptor, f"{os.getpid()} {path}\n".encode("utf-8", "surrogateescape"))

    counts: Counter[tuple[int, str]] = Counter()
    sys.addaudithook(hook)  # there is no way to take one away
    try:
        yield counts
    finally:
        is_active = False
        os.close(descriptor)
    for line in record.read_text("utf-8", "surrogateescape").splitlines():
        process, _, path = line.partition(" ")
        counts[int(process), path] += 1
