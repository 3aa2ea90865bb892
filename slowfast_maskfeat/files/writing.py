"""Writing of a file completely or not at all: the only atomic write."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slowfast_maskfeat.disk import make_folder, writing

PART_SUFFIX = ".part"


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, shared: bool = False) -> Iterator[Path]:
    """Write a file completely or not at all: a temporary file is flushed to disk, then renamed.

    Args:
        path: file to write; its folder is created.
        shared: whether several processes may write this file at once; each then gets its own
            temporary file. Otherwise a new attempt overwrites the temporary file of a killed one.

    Yields:
        Path of a hidden temporary file in the same folder, which is removed if writing fails.

    Raises:
        OSError: the disk is full or the folder can't be written; the error names `path`.
    """
    path = Path(path)
    make_folder(path.parent)
    unique = f".{secrets.token_hex(8)}" if shared else ""
    temporary = path.parent / f".{path.name}{unique}{PART_SUFFIX}"
    try:
        with writing(path):
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == os.fspath(temporary):
            error.filename = os.fspath(path)  # the name that the user knows
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # The rename itself survives a power failure only if the folder is flushed, too.
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
