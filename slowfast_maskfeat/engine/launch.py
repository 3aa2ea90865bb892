"""Launcher of the processes of a run on this machine, without torchrun."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import multiprocessing.queues
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

import torch

from slowfast_maskfeat import distributed, rendezvous
from slowfast_maskfeat.cli import Terminated, raising_signals, system_error
from slowfast_maskfeat.workers import SIGNALS, starting_workers, unblock_signals

FAILURE_GRACE_SECONDS = 20.0
"""Time for the other processes to end after one has failed; they may hang waiting for it."""

SIGNAL_GRACE_SECONDS = 600.0
"""Time for the others to end after one has ended by a signal; one may be writing a checkpoint."""


def _was_killed(process: multiprocessing.process.BaseProcess) -> bool:
    """Return whether a process was ended by a signal that is not one of `SIGNALS`."""
    code = process.exitcode
    return code is not None and code < 0 and 128 - code not in _SIGNAL_EXITS


_SIGNAL_EXITS = tuple(128 + number for number in SIGNALS)
_MAX_MESSAGE_LENGTH = 4000  # characters; unread messages must fit into a pipe


class _Failure(NamedTuple):
    """Report of a process that ends because of an exception."""

    rank: int
    is_user_error: bool
    message: str
    trace: str


class _Place(NamedTuple):
    """Rank and threads of a process."""

    rank: int
    local_rank: int
    world_size: int
    num_threads: int | None


def launch(
    function: Callable[..., Any],
    num_processes: int,
    args: tuple[Any, ...] = (),
    *,
    num_shards: int = 1,
    shard_id: int = 0,
    init_method: str | None = None,
    backend: str = "gloo",
) -> None:
    """Run `function(*args)` in several processes that form one process group.

    A single process on a single machine runs in this process, without a group. Otherwise the
    processes are spawned, so `function` must be importable and `args` picklable. This process
    forwards SIGTERM, SIGUSR1 and SIGINT to them (a SIGINT from a terminal reaches them twice), and
    ends when they have ended.

    Args:
        function: called in each process after its group is set up.
        num_processes: processes on this machine.
        args: arguments, the same for all processes.
        num_shards: number of machines in the run (`--num_shards`).
        shard_id: index of this machine (`--shard_id`).
        init_method: address where the processes meet (`--init_method`), such as
            `tcp://host:9999`. None, best on one machine, is a new file that no other run uses.
        backend: `gloo` or `nccl`.

    Raises:
        ValueError: if the numbers contradict each other, or a process raised a ValueError (same
            text) or an error of the system.
        RuntimeError: if a process failed otherwise; the text has its rank and traceback.
        SystemExit: with the exit code of the first process that ended with one of its own,
            including 130, 138 and 143.
        KeyboardInterrupt: if a signal, as Terminated unless it is SIGINT, ended them before they
            handle it.
    """
    if num_processes < 1:
        raise ValueError(f"the number of processes must be >= 1, got {num_processes}")
    if not 0 <= shard_id < num_shards:
        raise ValueError(
            f"--shard_id must be in [0, {num_shards}) with --num_shards {num_shards}, got "
            f"{shard_id}"
        )
    if num_shards > 1 and init_method is None:
        raise ValueError(
            f"--init_method must be set with --num_shards {num_shards}; use "
            "tcp://HOST_OF_SHARD_0:9999"
        )
    if init_method is not None:
        rendezvous.check_address(init_method)
    if init_method is not None and shard_id == 0:
        rendezvous.check_port_is_free(init_method)
    world_size = num_processes * num_shards
    if world_size == 1:
        function(*args)
        return
    with tempfile.TemporaryDirectory(prefix="meeting_") as folder:
        meeting = init_method or f"file://{folder}/meeting"
        _spawn(
            function, args, num_processes, shard_id * num_processes, world_size, backend, meeting
        )


def _spawn(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    num_processes: int,
    first_rank: int,
    world_size: int,
    backend: str,
    init_method: str,
) -> None:
    context = multiprocessing.get_context("spawn")
    with starting_workers():  # its semaphore starts Python's resource tracker
        failures = context.SimpleQueue()
    num_threads = None
    if backend == "gloo":  # share the compute threads of this process among them
        num_threads = max(1, torch.get_num_threads() // num_processes)
    processes: list[multiprocessing.process.BaseProcess] = []
    with _forwarding_signals(processes):
        for local_rank in range(num_processes):
            place = _Place(first_rank + local_rank, local_rank, world_size, num_threads)
            process = context.Process(
                target=_run, args=(function, args, place, backend, init_method, failures)
            )
            with starting_workers():  # until `_run`, no signal reaches it
                process.start()
                processes.append(process)
        first_bad = _wait(processes)
    _raise_signal(processes)
    if first_bad is not None and (_was_killed(first_bad) or _exit_code(first_bad) in _SIGNAL_EXITS):
        # The others failed because this one was gone, even if they reported first.
        _raise_exit(first_bad, first_rank + processes.index(first_bad))
    if not failures.empty():
        _raise(failures.get())
    if first_bad is not None:
        _raise_exit(first_bad, first_rank + processes.index(first_bad))


def _run(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    place: _Place,
    backend: str,
    init_method: str,
    failures: multiprocessing.queues.SimpleQueue[_Failure],
) -> None:
    """Set up a spawned process, run the function and report its failure."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # While the processes meet, in C++, no handler of Python would run.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    unblock_signals()
    try:
        if place.num_threads is not None:
            torch.set_num_threads(place.num_threads)
        distributed.setup(place.rank, place.local_rank, place.world_size, backend, init_method)
        with raising_signals():
            function(*args)
    except KeyboardInterrupt as stopped:
        # By the signal, at which the launcher prints a message.
        by = stopped.number if isinstance(stopped, Terminated) else int(signal.SIGINT)
        distributed.exit_process(-by)
    except SystemExit as stopped:
        distributed.end_process(stopped.code if isinstance(stopped.code, int) else 1)
    except Exception as error:
        # Report before leaving the group: processes that fail because this one is gone come later.
        is_user_error = isinstance(error, (ValueError, OSError))
        message = system_error(error) if isinstance(error, OSError) else str(error)
        trace = traceback.format_exc()[-_MAX_MESSAGE_LENGTH:]
        failures.put(_Failure(place.rank, is_user_error, message[:_MAX_MESSAGE_LENGTH], trace))
        distributed.exit_process(1)
    distributed.end_process()


def _end_with_parent() -> None:
    """Exit when the parent process ends, even if it is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(137)  # 128 + SIGKILL, which not every platform defines


def _wait(
    processes: list[multiprocessing.process.BaseProcess],
) -> multiprocessing.process.BaseProcess | None:
    """Wait for all processes to end; after one fails, stop the others.

    Returns:
        The process that failed first, or one that was killed from outside, since the others fail
        because of it.
    """
    running = list(processes)
    ended_here: list[multiprocessing.process.BaseProcess] = []
    first_bad: multiprocessing.process.BaseProcess | None = None
    deadline: float | None = None
    while running:
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        ended = multiprocessing.connection.wait([p.sentinel for p in running], timeout)
        if deadline is not None and not ended:
            for process in running:
                process.kill()
            ended_here = list(running)
            deadline = None
            continue
        for process in [p for p in running if p.sentinel in ended]:
            process.join()
            running.remove(process)
            if process.exitcode and first_bad is None:
                first_bad = process
                by_signal = _exit_code(process) in _SIGNAL_EXITS
                grace = SIGNAL_GRACE_SECONDS if by_signal else FAILURE_GRACE_SECONDS
                deadline = time.monotonic() + grace
                if not by_signal:
                    for other in running:
                        other.terminate()
            elif _was_killed(process) and process not in ended_here:
                first_bad = process
    return first_bad


def _exit_code(process: multiprocessing.process.BaseProcess) -> int:
    """Return the exit code as in a shell: 128 + n after signal n."""
    code = process.exitcode
    assert code is not None
    return code if code >= 0 else 128 - code


@contextmanager
def _forwarding_signals(
    processes: list[multiprocessing.process.BaseProcess],
) -> Iterator[None]:
    def forward(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.pid is not None and process.exitcode is None:
                os.kill(process.pid, number)

    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        yield
        return
    before = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_signal(processes: list[multiprocessing.process.BaseProcess]) -> None:
    """Raise the signal that ended the processes, unless the first has handled it and said so."""
    codes = [_exit_code(process) for process in processes]
    has_said_so = (processes[0].exitcode or 0) > 0
    if all(code in _SIGNAL_EXITS for code in codes) and not has_said_so:
        if codes[0] == 128 + signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(codes[0] - 128)


def _raise(failure: _Failure) -> None:
    if failure.is_user_error:
        raise ValueError(failure.message)
    raise RuntimeError(f"process {failure.rank} failed:\n{failure.trace}")


def _raise_exit(process: multiprocessing.process.BaseProcess, rank: int) -> None:
    code = _exit_code(process)
    if code > 128 and code not in _SIGNAL_EXITS:
        name = signal.Signals(code - 128).name
        hint = " (the system may have been out of memory)" if name == "SIGKILL" else ""
        raise RuntimeError(f"process {rank} was ended by {name}{hint}")
    raise SystemExit(code)
