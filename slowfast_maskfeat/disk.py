"""Errors of the system while a file is written, with its path, and locks on what is written."""

from __future__ import annotations

import errno
import os
import re
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

WRITE_ERRORS = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EMFILE", "ENFILE")
    if hasattr(errno, name)
)
"""Numbers of errors that are not the fault of one file: the next one would fail as well."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
_HELD_BY_ANOTHER = (errno.EACCES, errno.EAGAIN)  # POSIX allows either

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
        path: file or folder that is written inside of the context.

    Raises:
        OSError: with `path`, for the errors in `WRITE_ERRORS`; other errors are unchanged.
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
        OSError: it cannot be created; if a file is in the way, the error names that file.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        in_the_way = next((p for p in (folder, *folder.parents) if os.path.lexists(p)), folder)
        reason = "must be a folder, but is a file"
        raise NotADirectoryError(errno.ENOTDIR, reason, os.fspath(in_the_way)) from None
    return folder


def probe_file(path: str | os.PathLike[str]) -> None:
    """Check that a file can be written; nothing is created, its folder neither.

    Args:
        path: of the file, which may exist.

    Raises:
        OSError: it is a folder, or its folder can't be written or created; the error names what
            is in the way.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "must be a file, but is a folder", os.fspath(path))
    folder = next(parent for parent in path.parents if os.path.lexists(parent))
    if not folder.is_dir():
        reason = "must be a folder, but is a file"
        raise NotADirectoryError(errno.ENOTDIR, reason, os.fspath(folder))
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(folder)) from None


@contextmanager
def creating_hidden(path: Path) -> Iterator[None]:
    """Name the folder in the error of a file that can't be created and that users do not know.

    Args:
        path: of the file that is opened inside of the context. If it exists, the error names it.

    Raises:
        OSError: the file can't be opened.
    """
    try:
        yield
    except OSError as error:
        if not os.path.lexists(path):
            error.filename = os.fspath(path.parent)
        raise


class InUseError(Exception):
    """Another process holds a lock; the message says which."""


def lock_file(path: Path) -> TextIO:
    """Create a file with its folder if needed, and lock it until it is closed.

    The kernel releases the lock when the process ends, however it ends, also on another machine of
    a network file system. Where there are no locks, a warning says so.

    Args:
        path: of a file for this lock alone. Its holder may delete it before closing it.

    Returns:
        The open file; it names this process.

    Raises:
        InUseError: another process holds the lock.
        OSError: the file can't be opened; the error names its folder unless the file exists.
    """
    make_folder(path.parent)
    while True:
        with creating_hidden(path):
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - holds the lock
        try:
            _lock(file)
            if _is_deleted(path, file):  # by its last holder, since it was opened
                file.close()
                continue
        except OSError as error:
            if error.errno in _HELD_BY_ANOTHER:
                file.seek(0)
                owner = file.read(200).strip() or "another process"
                file.close()
                raise InUseError(owner) from None
            if error.errno not in _NO_LOCKS:
                raise
            warnings.warn(
                f"{path.parent} can't be locked ({error.strerror}): do not start two runs in it at "
                "once",
                UserWarning,
                stacklevel=2,
            )
        break
    with suppress(OSError):  # of a full disk, which the run's own files will report
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
    return file


def _lock(file: TextIO) -> None:
    if fcntl is None:
        raise OSError(errno.ENOSYS, "Windows is not supported")
    # Not flock: loading workers would inherit that lock and keep it after their parent's death.
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_deleted(path: Path, file: TextIO) -> bool:
    try:
        return not os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return True
