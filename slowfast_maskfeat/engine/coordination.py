"""What the processes of a run settle together before they work in one folder."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from slowfast_maskfeat import distributed

Item = TypeVar("Item")


def from_main(work: Callable[[], Item]) -> Item:
    """What the main process finds out, on every process.

    Args:
        work: called in the main process alone; its answer can be pickled.

    Raises:
        ValueError: it raised one, or an error of the system: the same text, in every process, so
            that none waits for the others.
    """
    found: Item | None = None
    problem: str | None = None
    if distributed.is_main():
        try:
            found = work()
        except OSError as error:
            problem = f"{error.filename or 'the system'}: {error.strerror or error}"
        except ValueError as error:
            problem = str(error)
    found, problem = distributed.broadcast_object((found, problem))
    if problem is not None:
        raise ValueError(problem)
    return found  # type: ignore[return-value]


def check_shared(folder: Path) -> None:
    """Make a folder, and make sure that all processes mean the same one.

    Raises:
        ValueError: it can't be written, or some process, as a rule on another machine, has a
            different folder of that name, or none.
    """

    def mark() -> str:
        # A new name each time: what a network's file system remembers of it can't be out of date.
        name = f".seen_by_all_{uuid.uuid4().hex}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        except OSError as error:
            reason = error.strerror or error
            raise ValueError(f"OUTPUT_DIR: {folder} can't be written: {reason}") from error
        return name

    path = folder / from_main(mark)
    answers = distributed.gather_objects((path.exists(), socket.gethostname()))
    if distributed.is_main():
        path.unlink(missing_ok=True)
    for rank, (is_seen, host) in enumerate(answers):
        if not is_seen:
            raise ValueError(
                f"OUTPUT_DIR: {folder} is another folder for process {rank} (on {host}) than for "
                f"process 0 (on {answers[0][1]}); a folder that all machines share is right"
            )
