"""Worker processes: unaffected by the signals that stop a run, and ended with their parent.

Schedulers, `timeout` and terminals send SIGTERM, SIGUSR1 or SIGINT to all processes of a run. The
main process decides what to do; workers go on until it ends them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import TracebackType

# SIGUSR1 is what SLURM's --signal usually sends before the end of a job; Windows has none.
SIGNALS: tuple[signal.Signals, ...] = (
    signal.SIGINT,
    signal.SIGTERM,
    *(signal.Signals[name] for name in ("SIGUSR1",) if hasattr(signal, name)),
)
"""Signals that stop a run. SIGUSR1 acts as SIGTERM."""

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


@contextmanager
def starting_workers() -> Iterator[None]:
    """Delay `SIGNALS` until after the block, which starts processes.

    The processes inherit that these signals are blocked, so that none reaches them before they call
    `become_worker` or `unblock_signals`.
    """
    if os.name != "posix":
        yield
        return
    # Also by handlers: a library's thread may receive a signal, whatever this thread blocks.
    with delaying_signals():
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            # Else the start does this. It ignores SIGINT and SIGTERM, and unblocks them here, too.
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def delaying_signals() -> Iterator[None]:
    """Delay `SIGNALS` until after the block, which could not be undone halfway."""
    if threading.current_thread() is not threading.main_thread():  # others handle no signals
        yield
        return
    arrived: list[int] = []
    before = {
        of_stop: signal.signal(of_stop, lambda number, _: arrived.append(number))
        for of_stop in SIGNALS
    }
    try:
        yield
    finally:
        for of_stop, handler in before.items():
            signal.signal(of_stop, handler)
    for number in dict.fromkeys(arrived):
        signal.raise_signal(number)


def become_worker(parent: int | None = None) -> None:
    """Ignore `SIGNALS` in this process, and end with its parent.

    Args:
        parent: from `parent_of_workers`, called where this process was started. None leaves it to
            the caller that the process ends with its parent.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if parent is not None and sys.platform == "linux" and parent == os.getppid():
        # By the kernel, so that it works during a call of C code that never returns.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it ended in between
            os._exit(128 + signal.SIGKILL)
        _report_no_lost_connection()
    unblock_signals()


def _report_no_lost_connection() -> None:
    """Let the kernel end this process before it prints that a connection to its parent is lost.

    The connections of a process that is killed are closed just before it has ended. The thread that
    hands tensors over (multiprocessing.resource_sharer) then calls this hook.
    """
    report = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, OSError | EOFError):
            time.sleep(1.0)
        report(kind, error, trace)

    sys.excepthook = hook


def unblock_signals() -> None:
    """Let the signals reach this process that `starting_workers` blocked."""
    if os.name == "posix":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def parent_of_workers() -> int | None:
    """Return the id of this process, for `become_worker`; None outside of the main thread.

    The kernel ends a worker with the thread that started it, and only the main thread lasts as long
    as its process.
    """
    return os.getpid() if threading.current_thread() is threading.main_thread() else None
