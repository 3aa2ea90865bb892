"""Writes that fail as on a full disk, for any user and without a mount."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOO_LARGE = os.strerror(errno.EFBIG)


@contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    """Let this process, and those that it starts, write no file beyond a size (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def unfinished(folder: Path) -> list[Path]:
    """Temporary files below a folder that a write has left behind."""
    return [path for path in folder.rglob("*") if ".part" in path.name]
