"""A stopwatch of wall and computing time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Wall time and computing time of what runs inside of it.

    Attributes:
        seconds: Wall time.
        computing: CPU time of this process, of all threads.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.computing = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add the time inside."""
        start, computing = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start
            self.computing += time.process_time() - computing
