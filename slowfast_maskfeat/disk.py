"""Errors of the system while a file is written, with its path, whatever library raised them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WRITE_ERRORS = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EMFILE", "ENFILE")
    if hasattr(errno, name)
)
"""Numbers of errors that are not the fault of one file: the next one would fail as well."""

# Rust's standard library ends its messages with the number.
_RUST_NUMBER = re.compile(r"\(os error (\d+)\)")
# NumPy's tofile raises an OSError without a number.
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name a file in the errors of the system that are raised while it is written.

    Libraries raise them without a path, or as errors of their own: torch a RuntimeError during the
    handling of the OSError, safetensors an error that has only the message.

    Args:
        path: File or folder that is written inside of the context.

    Raises:
        OSError: With `path`, for the errors in `WRITE_ERRORS`; other errors are unchanged.
    """
    try:
        yield
    except ValueError:  # already a message for users
        raise
    except Exception as error:
        number = write_error(error)
        if number is None and isinstance(error, OSError) and _SHORT_WRITE.search(str(error)):
            number = _why_short(path)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), os.fspath(path)) from error


def write_error(error: BaseException) -> int | None:
    """Return the number, one of `WRITE_ERRORS`, of the system error behind an error, or None."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        number = cause.errno if isinstance(cause, OSError) else None
        found = _RUST_NUMBER.search(str(cause))
        if number is None and found:
            number = int(found[1])
        if number in WRITE_ERRORS:
            return number
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return None


def _why_short(path: str | os.PathLike[str]) -> int | None:
    """Return the number of the error that a further write raises, or None if it does not."""
    try:
        with open(path, "ab", buffering=0) as file:
            file.write(b"\0")
    except OSError as error:
        return error.errno
    return None


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """Create a folder with its parents, unless it exists.

    Returns:
        The folder.

    Raises:
        OSError: It cannot be created; if a file is in the way, the error names that file.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        in_the_way = next((p for p in (folder, *folder.parents) if os.path.lexists(p)), folder)
        reason = "must be a folder, but is a file"
        raise NotADirectoryError(errno.ENOTDIR, reason, os.fspath(in_the_way)) from None
    return folder
