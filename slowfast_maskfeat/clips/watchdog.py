"""Watches what the workers of a loader decode, so that one that hangs is found and ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import torch

# Checks of the workers within a timeout, and the longest time between two of them (seconds).
_CHECKS_PER_TIMEOUT = 4
_MAX_PAUSE = 5.0


class _Task(NamedTuple):
    """A row of the list that a process decodes, and since when (time.monotonic)."""

    process: int
    row: int
    since: float


class WorkerWatchdog:
    """The current row of each worker, in memory that the workers and their parent share.

    A worker writes, a thread of the parent reads. A hang is found without any code running in the
    worker, since a decoder stuck in C code may block its threads and the interpreter, and without
    the parent's main thread, which may be waiting for a message of that very worker.

    Args:
        num_workers: how many there are.
        timeout: seconds after which a row is overdue.
    """

    def __init__(self, num_workers: int, timeout: float) -> None:
        self.timeout = timeout
        # (worker, [process, row, start]); a start of 0 is an idle worker.
        self._tasks = torch.zeros((num_workers, 3), dtype=torch.float64).share_memory_()
        self._hung: list[int] = []

    @contextmanager
    def decoding(self, worker: int, row: int) -> Iterator[None]:
        """Mark `worker`, which is this process, as decoding the video of `row`."""
        task = self._tasks[worker]
        task[0], task[1] = os.getpid(), row
        task[2] = time.monotonic()  # last: it makes the entry valid
        try:
            yield
        finally:
            task[2] = 0.0

    @contextmanager
    def ending_overdue(self) -> Iterator[None]:
        """End workers whose row is overdue, until the context exits."""
        is_over = threading.Event()
        thread = threading.Thread(target=self._end_overdue, args=(is_over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def take_hung(self) -> list[int]:
        """Return the rows whose workers were ended since the last call."""
        rows, self._hung = self._hung, []
        return rows

    def forget(self) -> None:
        """Clear the entries: all workers are gone, and their process ids may be reused."""
        self._tasks.zero_()

    def _end_overdue(self, is_over: threading.Event) -> None:
        """End workers whose row was overdue at two checks.

        Two, because a run that was stopped and continued (Ctrl-Z, a debugger) finds every row
        overdue at first, and most of them done a moment later.
        """
        suspects: frozenset[_Task] = frozenset()
        ended: set[_Task] = set()
        while not is_over.wait(min(self.timeout / _CHECKS_PER_TIMEOUT, _MAX_PAUSE)):
            now = time.monotonic()
            tasks = [_Task(int(process), int(row), at) for process, row, at in self._tasks.tolist()]
            overdue = frozenset(t for t in tasks if t.since and now - t.since > self.timeout)
            for task in (overdue & suspects) - ended:
                ended.add(task)
                self._hung.append(
                    task.row
                )  # first: the main thread reads it once the worker is gone
                # torch's workers leave at once, and without an error code, on this signal of their
                # parent; the handler is C code and needs no interpreter.
                with suppress(ProcessLookupError):  # it may have ended by itself just now
                    os.kill(task.process, signal.SIGTERM)
            suspects = overdue
