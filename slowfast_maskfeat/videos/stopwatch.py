"""A stopwatch of wall and computing time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

# Of the calling thread: nanoseconds on a core, and in the queue for one (Linux, sched-stats.rst).
_SCHEDULED = "/proc/thread-self/schedstat"


class Stopwatch:
    """Wall time and computing time of what runs inside of it.

    Attributes:
        seconds: wall time.
        computing: CPU time of this process, of all threads.
        queued: seconds in which this thread could have run, but no core was free; 0 where the
            system does not say it.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.computing = 0.0
        self.queued = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add the time inside."""
        start, computing, queued = time.perf_counter(), time.process_time(), _queued()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start
            self.computing += time.process_time() - computing
            self.queued += _queued() - queued

    @property
    def waiting(self) -> float:
        """Seconds in which the process neither computed nor could have, such as for a disk."""
        return max(self.seconds - self.computing - self.queued, 0.0)


def _queued() -> float:
    try:
        with open(_SCHEDULED, "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):  # another system, or a kernel without the figures
        return 0.0
