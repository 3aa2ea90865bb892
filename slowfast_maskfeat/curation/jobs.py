"""Work on many files in processes that can be ended, and that go on where they were interrupted."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from slowfast_maskfeat.log import first_line

# A process that a kill does not reach waits in the kernel, for a dead network disk: it is left.
_SECONDS_TO_DIE = 2.0

Item = TypeVar("Item")


class Failure(NamedTuple):
    """Why there is no result for an item, in one line."""

    reason: str


def run_jobs(
    work: Callable[[Item], Any], items: Sequence[Item], *, processes: int, timeout: float
) -> Iterator[tuple[Item, Any]]:
    """Call a function on each item, several at a time, each in a process that may be ended.

    A decoder that hangs in C code hears nothing but a kill, and one that crashes takes its process
    along: both cost that one item.

    Args:
        work: Function of a module, or a `functools.partial` of one. Its result must pickle.
        items: What it is called on, such as paths; not None.
        processes: How many work at a time.
        timeout: Seconds after which an item is given up.

    Yields:
        The item, and its result or a `Failure`: the function raised, hung or crashed. In the order
        in which they are finished.

    Raises:
        ValueError: Less than one process, or no time.
    """
    if processes < 1:
        raise ValueError(f"the number of processes must be at least 1, got {processes}")
    if timeout <= 0:
        raise ValueError(f"the timeout must be more than 0 seconds, got {timeout:g}")
    waiting = deque(items)
    busy = [_Worker(work) for _ in range(min(processes, len(items)))]
    idle: list[_Worker] = []
    try:
        while waiting or any(worker.item is not None for worker in busy):
            while waiting and idle:
                worker = idle.pop()
                worker.give(waiting.popleft(), timeout)
                busy.append(worker)
            for worker in _finished_or_overdue(busy):
                item, result = worker.take(timeout)
                busy.remove(worker)
                if item is not None:
                    yield item, result
                if worker.is_alive:
                    idle.append(worker)
                elif waiting:
                    busy.append(_Worker(work))
    finally:
        for worker in (*busy, *idle):
            worker.end()


def _finished_or_overdue(busy: list[_Worker]) -> list[_Worker]:
    """Wait for those that have something to say or no time left."""
    deadline = min(worker.deadline for worker in busy)
    left = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
    ready = connection.wait([worker.pipe for worker in busy], left)
    now = time.monotonic()
    return [worker for worker in busy if worker.pipe in ready or worker.deadline <= now]


@contextmanager
def _interruption_waits() -> Iterator[None]:
    """Answer Ctrl-C after the block, which starts a process.

    In between, the child would find its work cut short, or die of the signal before it can ignore
    it, and print a traceback of its own.
    """
    is_main = threading.current_thread() is threading.main_thread()  # others get no Ctrl-C
    arrived: list[int] = []
    if is_main:
        # A thread of a library may take the signal, whatever this one blocks.
        before = signal.signal(signal.SIGINT, lambda number, _: arrived.append(number))
    resource_tracker.ensure_running()  # else `start` does it, which unblocks the signal
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # the child inherits it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if is_main:
            signal.signal(signal.SIGINT, before)
    if arrived:
        signal.raise_signal(signal.SIGINT)


class _Worker:
    """A process, the item it works on (None while it starts) and when that is overdue."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        # A forked child would have the locks of the parent's threads.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.item: Any = None
        self.deadline = float("inf")
        self.is_alive = True
        self._process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        with _interruption_waits():
            self._process.start()  # ended with this process, as it is a daemon
        theirs.close()

    def give(self, item: Any, timeout: float) -> None:
        """Hand over an item."""
        self.item, self.deadline = item, time.monotonic() + timeout
        with suppress(OSError):  # it has died since: `take` finds out
            self.pipe.send(item)

    def take(self, timeout: float) -> tuple[Any, Any]:
        """Its item and the result; (None, None) from one that has just started."""
        item, self.item, self.deadline = self.item, None, float("inf")
        try:
            result = self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError):
            code = self.end(patience=_SECONDS_TO_DIE)
            if item is None:
                raise RuntimeError(f"a process could not start (exit code {code})") from None
            how = f"by signal {signal.Signals(-code).name}" if code and code < 0 else f"({code})"
            return item, Failure(f"the process that read it was ended {how}")
        if result is None:
            self.end()
            return item, Failure(f"hung: not done after {timeout:g} s")
        return item, result[0]

    def end(self, *, patience: float = 0.0) -> int | None:
        """End the process, which may leave by itself for some seconds; its exit code."""
        self.is_alive = False
        self._process.join(patience)
        self._process.kill()
        self._process.join(_SECONDS_TO_DIE)
        self.pipe.close()
        return self._process.exitcode


def _serve(pipe: Any, work: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    result: Any = None
    with suppress(EOFError, OSError):  # the parent is done, or gone
        while True:
            pipe.send((result,))
            item = pipe.recv()
            try:
                result = work(item)
            except Exception as error:
                result = Failure(f"{type(error).__name__}: {first_line(error)}")


class Journal:
    """What is done already, one JSON line an item, so that an interrupted run goes on.

    Args:
        path: The file; its folder is made if need be. `remove` it once the results are written.
        settings: What the results depend on.

    Raises:
        ValueError: There is a journal of other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self.done: dict[str, Any] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]  # the last may be cut
        wanted = json.loads(json.dumps(settings))
        if whole and json.loads(whole[0]) != wanted:
            raise ValueError(
                f"{path} is of an interrupted run with the settings {whole[0].strip()}, not "
                f"{json.dumps(wanted)}: repeat that command, or remove the file to start anew"
            )
        for line in whole[1:]:
            item, result, reason = json.loads(line)
            self.done[item] = result if reason is None else Failure(reason)
        self._file = open(path, "a" if whole else "w", encoding="utf-8")  # noqa: SIM115 - stays open
        if whole:
            self._file.truncate(sum(len(line.encode("utf-8")) for line in whole))
        else:
            self._write(wanted)

    def add(self, item: str, result: Any) -> None:
        """Keep a result, of what JSON knows, or a `Failure`."""
        self.done[item] = result
        is_failure = isinstance(result, Failure)
        self._write([item, None if is_failure else result, result.reason if is_failure else None])

    def close(self) -> None:
        """Close the file and leave it."""
        self._file.close()

    def remove(self) -> None:
        """The run is whole."""
        self._file.close()
        os.unlink(self._path)

    def _write(self, row: Any) -> None:
        # ASCII, so that paths that are no UTF-8 survive.
        self._file.write(json.dumps(row, ensure_ascii=True) + "\n")
        self._file.flush()
