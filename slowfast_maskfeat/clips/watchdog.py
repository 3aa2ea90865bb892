"""Watchdog that detects and terminates loader workers that hang while decoding."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import torch

# Checks per timeout, and the longest pause between two checks in seconds.
_CHECKS_PER_TIMEOUT = 4
_MAX_PAUSE = 5.0
# Ends a worker: a signal that nothing else sends. Windows has only SIGTERM, which ends any process.
_END = getattr(signal, "SIGRTMAX", getattr(signal, "SIGUSR2", signal.SIGTERM))
_LARGER_THAN_SIGACTION = 1024  # bytes


def end_worker(process: int) -> None:
    """End a worker process that has called `accept_end`, even if it hangs."""
    with suppress(ProcessLookupError):  # it may have exited in the meantime
        os.kill(process, _END)


def accept_end() -> None:
    """Let this worker of torch's data loader end by `end_worker`, without an error code.

    torch's handler of SIGTERM does that. It is C code and needs no interpreter, which a decoder
    stuck in C code may block. Since workers ignore SIGTERM, which is not only sent by their parent,
    the handler is moved to another signal.
    """
    if os.name != "posix":
        return
    library = ctypes.CDLL(None)
    handler = ctypes.create_string_buffer(_LARGER_THAN_SIGACTION)
    library.sigaction(int(signal.SIGTERM), None, handler)
    library.sigaction(int(_END), handler, None)


class _Task(NamedTuple):
    """The row that a process is decoding, and since when (time.monotonic)."""

    process: int
    row: int
    since: float


class WorkerWatchdog:
    """Tracks the current row of each worker in memory shared with the parent process.

    Workers write and a thread of the parent reads. Detecting a hang runs no code in the worker,
    where a decoder stuck in C code may block all threads and the interpreter, nor in the parent's
    main thread, which may be waiting for a message from that worker.

    Args:
        num_workers: number of workers.
        timeout: seconds after which a row is overdue.
    """

    def __init__(self, num_workers: int, timeout: float) -> None:
        self.timeout = timeout
        # (worker, [process, row, start]); a start of 0 means that the worker is idle.
        self._tasks = torch.zeros((num_workers, 3), dtype=torch.float64).share_memory_()
        self._hung: list[int] = []

    @contextmanager
    def decoding(self, worker: int, row: int) -> Iterator[None]:
        """Mark this worker process as decoding the video of `row`."""
        task = self._tasks[worker]
        task[0], task[1] = os.getpid(), row
        task[2] = time.monotonic()  # set last, since it makes the entry valid
        try:
            yield
        finally:
            task[2] = 0.0

    @contextmanager
    def ending_overdue(self) -> Iterator[None]:
        """Terminate workers whose row is overdue, until the context exits."""
        is_over = threading.Event()
        thread = threading.Thread(target=self._terminate_overdue, args=(is_over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def take_hung(self) -> list[int]:
        """Return the rows whose workers were terminated since the last call."""
        rows, self._hung = self._hung, []
        return rows

    def forget(self) -> None:
        """Clear the entries, since all workers have exited and their process ids may be reused."""
        self._tasks.zero_()

    def _terminate_overdue(self, is_over: threading.Event) -> None:
        """Terminate workers whose row was overdue at two checks.

        Two checks, because right after a run is stopped and continued (Ctrl-Z, a debugger) every
        row is overdue, and most of them finish soon after.
        """
        suspects: frozenset[_Task] = frozenset()
        ended: set[_Task] = set()
        while not is_over.wait(min(self.timeout / _CHECKS_PER_TIMEOUT, _MAX_PAUSE)):
            now = time.monotonic()
            tasks = [_Task(int(process), int(row), at) for process, row, at in self._tasks.tolist()]
            overdue = frozenset(t for t in tasks if t.since and now - t.since > self.timeout)
            for task in (overdue & suspects) - ended:
                ended.add(task)
                # Before the signal: the main thread reads it once the worker has exited.
                self._hung.append(task.row)
                end_worker(task.process)
            suspects = overdue
