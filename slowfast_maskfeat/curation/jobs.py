"""Parallel jobs on many files in processes or threads, and a journal to resume from."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from slowfast_maskfeat.disk import make_folder, write_error, writing
from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.text import quoted
from slowfast_maskfeat.workers import become_worker, parent_of_workers, starting_workers

# A process that survives a kill is blocked in the kernel by a dead network disk: it is abandoned.
_SECONDS_TO_DIE = 2.0

_MAX_VALUE = 40  # characters of a setting in a message

Item = TypeVar("Item")


class Failure(NamedTuple):
    """Reason, in one line, why an item has no result."""

    reason: str


class _WriteError(NamedTuple):
    """Number and file of an error that all further items would meet, such as a full disk."""

    number: int
    path: str | None


def run_jobs(
    work: Callable[[Item], Any], items: Sequence[Item], *, processes: int, timeout: float
) -> Iterator[tuple[Item, Any]]:
    """Call a function on each item in parallel processes.

    A decoder that hangs in C code only ends with its process, and one that crashes ends its
    process: both lose a single item.

    Args:
        work: Module-level function, or a `functools.partial` of one. Its result must be picklable.
        items: arguments, such as paths; not None.
        processes: number of processes, >= 1.
        timeout: seconds after which an item fails, > 0.

    Yields:
        Item, and its result or, if the function raised, hung or crashed, a `Failure`, in the order
        of completion.

    Raises:
        OSError: an item met one of `disk.WRITE_ERRORS`, such as a full disk: all others would, too.
    """
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
                if isinstance(result, _WriteError):
                    _let_finish([*busy, *idle])
                    raise OSError(result.number, os.strerror(result.number), result.path)
                if item is not None:
                    yield item, result
                if worker.is_alive:
                    idle.append(worker)
                elif waiting:
                    busy.append(_Worker(work))
    finally:
        for worker in (*busy, *idle):
            worker.end()


def run_threads(
    work: Callable[[Item], Any], items: Sequence[Item], *, threads: int, timeout: float
) -> Iterator[tuple[Item, Any]]:
    """Call a function on each item in threads of this process, for functions of a library.

    The processes of `run_jobs` import the script that they are started from, which would run a
    user's script a second time. A thread that hangs is abandoned, and ends with this process; a
    crash ends this process.

    Args:
        work: function.
        items: arguments.
        threads: number of threads, >= 1.
        timeout: seconds after which an item fails.

    Yields:
        Item, and its result or, if the function raised or hung, a `Failure`, in the order of
        completion.
    """
    done: SimpleQueue[tuple[int, Any]] = SimpleQueue()
    deadlines: dict[int, float] = {}

    def serve(number: int) -> None:
        try:
            done.put((number, work(items[number])))
        except Exception as error:
            done.put((number, Failure(f"{type(error).__name__}: {first_line(error)}")))

    waiting = deque(range(len(items)))
    while waiting or deadlines:
        while waiting and len(deadlines) < threads:
            number = waiting.popleft()
            deadlines[number] = time.monotonic() + timeout
            threading.Thread(target=serve, args=(number,), daemon=True).start()
        first = min(deadlines, key=lambda number: deadlines[number])
        try:
            number, result = done.get(timeout=max(0.0, deadlines[first] - time.monotonic()))
        except Empty:
            number, result = first, Failure(_hung(timeout))
        if deadlines.pop(number, None) is not None:  # else it has failed before
            yield items[number], result


def _hung(timeout: float) -> str:
    return f"hung: not done after {timeout:g} s"


def _let_finish(workers: Sequence[_Worker]) -> None:
    """Wait a moment for the current items, so that their unfinished files are removed."""
    for worker in workers:
        worker.pipe.close()  # a worker ends when it reads or writes it
    for worker in workers:
        worker.end(patience=_SECONDS_TO_DIE)


def _finished_or_overdue(busy: list[_Worker]) -> list[_Worker]:
    """Wait for a result or a timeout, and return the workers concerned."""
    deadline = min(worker.deadline for worker in busy)
    left = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
    ready = connection.wait([worker.pipe for worker in busy], left)
    now = time.monotonic()
    return [worker for worker in busy if worker.pipe in ready or worker.deadline <= now]


class _Worker:
    """A process with its current item (None while it starts) and the deadline of the item."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        # A forked child would inherit the locks of the parent's threads.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.item: Any = None
        self.deadline = float("inf")
        self.is_alive = True
        self._process = context.Process(
            target=_serve, args=(theirs, work, parent_of_workers()), daemon=True
        )
        with starting_workers():
            self._process.start()
        theirs.close()

    def give(self, item: Any, timeout: float) -> None:
        """Start work on an item."""
        self.item, self.deadline = item, time.monotonic() + timeout
        with suppress(OSError):  # if the process has died, `take` reports it
            self.pipe.send(item)

    def take(self, timeout: float) -> tuple[Any, Any]:
        """Item and result; (None, None) if the process has just started."""
        item, self.item, self.deadline = self.item, None, float("inf")
        try:
            result = self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError):
            code = self.end(patience=_SECONDS_TO_DIE)
            if item is None:
                raise RuntimeError(f"a process failed to start (exit code {code})") from None
            how = f"exit code {code}"
            if code is not None and code < 0:
                how = f"signal {signal.Signals(-code).name}"
            return item, Failure(f"the process that read it crashed ({how})")
        if result is None:
            self.end()
            return item, Failure(_hung(timeout))
        return item, result[0]

    def end(self, *, patience: float = 0.0) -> int | None:
        """End the process, after `patience` seconds by a kill, and return its exit code."""
        self.is_alive = False
        self._process.join(patience)
        self._process.kill()
        self._process.join(_SECONDS_TO_DIE)
        self.pipe.close()
        return self._process.exitcode


def _serve(pipe: Any, work: Callable[[Any], Any], parent: int | None) -> None:
    become_worker(parent)
    result: Any = None
    with suppress(EOFError, OSError):  # the parent has finished or died
        while True:
            pipe.send((result,))
            item = pipe.recv()
            try:
                result = work(item)
            except Exception as error:
                number = write_error(error)
                result = Failure(f"{type(error).__name__}: {first_line(error)}")
                if number is not None:
                    result = _WriteError(number, getattr(error, "filename", None))


class Journal:
    """Results so far, one JSON line per item, from which an interrupted run resumes.

    A context in which the results are made and written: the file is removed at its end, and kept
    for the next run if an error ends it.

    Args:
        path: journal file; its folder is created.
        settings: settings that the results depend on.
        force: delete an existing journal, for commands with --force; None: there is no such option.

    Raises:
        ValueError: the file is a journal of other settings, or damaged.
        OSError: it can't be written, as in `add`, because the disk is full, for example.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], *, force: bool | None = None
    ) -> None:
        self._path = path
        self.done: dict[str, Any] = {}
        make_folder(path.parent)
        if force:
            path.unlink(missing_ok=True)
        remedy = f"{'remove the file' if force is None else 'add --force'} to start over"
        rows, num_bytes = _read_rows(path, remedy)
        current = json.loads(json.dumps(settings))
        if rows and rows[0] != current:
            raise ValueError(
                f"{path}: the settings must be those of the interrupted run, but "
                f"{_difference(rows[0], current)}; repeat that command, or {remedy}"
            )
        for item, result, reason in rows[1:]:
            self.done[item] = result if reason is None else Failure(reason)
        # Unbuffered, so that closing writes nothing and can't fail.
        self._file = open(path, "ab" if rows else "wb", buffering=0)  # noqa: SIM115 - stays open
        if rows:
            self._file.truncate(num_bytes)
        else:
            self._write(current)

    def add(self, item: str, result: Any) -> None:
        """Record a result, which must be serializable as JSON, or a `Failure`."""
        self.done[item] = result
        is_failure = isinstance(result, Failure)
        self._write([item, None if is_failure else result, result.reason if is_failure else None])

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.close()
        if kind is None:
            os.unlink(self._path)

    def close(self) -> None:
        """Close the file and keep it."""
        self._file.close()

    def _write(self, row: Any) -> None:
        # ASCII, so that paths that are not UTF-8 survive.
        rest = memoryview(json.dumps(row, ensure_ascii=True).encode("ascii") + b"\n")
        with writing(self._path):
            while rest:
                rest = rest[self._file.write(rest) :]


def _read_rows(path: Path, remedy: str) -> tuple[list[Any], int]:
    """Read the whole lines of a journal; the last one may be incomplete.

    Returns:
        Settings and rows, and the number of bytes that they take.

    Raises:
        ValueError: a line is damaged.
    """
    content = path.read_bytes() if path.exists() else b""
    *lines, rest = content.split(b"\n")
    rows: list[Any] = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line.decode("ascii"))
        except ValueError:
            row = None
        if (number > 1 and not (isinstance(row, list) and len(row) == 3)) or row is None:
            raise ValueError(
                f"{path}, line {number}: the journal of an interrupted run is damaged; {remedy}"
            )
        rows.append(row)
    return rows, len(content) - len(rest)


def _difference(before: Any, now: Mapping[str, Any]) -> str:
    """Name the settings that differ, the first one with its values."""
    if not isinstance(before, dict):
        return "it is no journal"
    names = [
        name
        for name in {**before, **now}
        if name not in before or name not in now or before[name] != now[name]
    ]
    name, *others = names
    values = [quoted(settings.get(name), _MAX_VALUE) for settings in (before, now)]
    more = f", and {', '.join(others)} differ{'s' if len(others) == 1 else ''}" if others else ""
    return f"{name} was {values[0]}, and is {values[1]}{more}"
