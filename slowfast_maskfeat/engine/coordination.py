"""Coordination of the processes of a run before they work in one folder."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

from slowfast_maskfeat import distributed
from slowfast_maskfeat.cli import system_error
from slowfast_maskfeat.disk import InUseError, creating_hidden, lock_file, make_folder

Item = TypeVar("Item")


def from_main(work: Callable[[], Item]) -> Item:
    """Call a function in the main process and return its result in every process.

    Args:
        work: called in the main process only; its result must be picklable.

    Raises:
        ValueError: `work` raised a ValueError or an OSError. Every process raises it with the same
            text, so that none waits for the others.
    """
    found: Item | None = None
    problem: str | None = None
    if distributed.is_main():
        try:
            found = work()
        except OSError as error:
            problem = system_error(error)
        except ValueError as error:
            problem = str(error)
    found, problem = distributed.broadcast_object((found, problem))
    if problem is not None:
        raise ValueError(problem)
    return found  # type: ignore[return-value]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder; the main process holds it for all.

    The kernel releases the lock when the process ends, however it ends, also on another machine of
    a network file system. Where there are no locks, a warning says so. The file `.lock`
    stays: deleting it could let two runs lock two files of that name.

    Args:
        folder: OUTPUT_DIR; created if needed.

    Raises:
        ValueError: another run holds the lock, or the folder can't be written.
    """
    with ExitStack() as held:

        def acquire() -> None:
            held.enter_context(_lock(folder))

        from_main(acquire)
        yield


def _lock(folder: Path) -> TextIO:
    try:
        return lock_file(folder / ".lock")
    except InUseError as error:
        raise ValueError(
            f"OUTPUT_DIR must have no other run in it, but {folder} is in use by {error}; wait "
            "until it ends, or set another OUTPUT_DIR"
        ) from None
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> ValueError:
    """Error for a folder that can't be written; it names the file or folder in the way."""
    where = "" if error.filename in (None, os.fspath(folder)) else f"{error.filename}: "
    reason = error.strerror or error
    return ValueError(f"OUTPUT_DIR must be writable, got {folder}: {where}{reason}")


def check_shared(folder: Path) -> None:
    """Create a folder and check that all processes see the same one.

    Raises:
        ValueError: the folder can't be written, or is not the same for some process (usually one
            on another machine).
    """

    def mark() -> str:
        # A new name each time, so that the cache of a network file system can't be out of date.
        name = f".seen_by_all_{uuid.uuid4().hex}"
        try:
            make_folder(folder)
            with creating_hidden(folder / name):
                (folder / name).touch()
        except OSError as error:
            raise _unwritable(folder, error) from error
        return name

    path = folder / from_main(mark)
    seen = distributed.gather_objects((path.exists(), socket.gethostname()))
    if distributed.is_main():
        path.unlink(missing_ok=True)
    for rank, (is_seen, host) in enumerate(seen):
        if not is_seen:
            raise ValueError(
                f"OUTPUT_DIR must be a folder that all machines share, got {folder}, which is not "
                f"the same folder for process {rank} (on {host}) as for process 0 (on "
                f"{seen[0][1]})"
            )
