"""Programs that a command starts and waits for: signals, exit codes and what they cost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from slowfast_maskfeat.cli import Terminated
from slowfast_maskfeat.disk import make_folder
from slowfast_maskfeat.workers import delaying_signals


class Usage(NamedTuple):
    """Cost of a program that has ended.

    Attributes:
        seconds: wall-clock time.
        cpu_seconds: of all its threads and of the processes it waited for; None where the system
            does not say.
        peak_memory: largest resident set of any of these processes, in bytes, and at least that of
            the process that started it (a property of Linux); None where the system does not say.
    """

    seconds: float
    cpu_seconds: float | None = None
    peak_memory: int | None = None


def run_program(
    command: Sequence[str], *, shows_output: bool = True, output: Path | None = None
) -> Usage:
    """Run a program to its end; signals that stop it are passed on to it and end it first.

    Args:
        command: words of the command line.
        shows_output: show its stdout; without `output` its stderr is always shown.
        output: file to which the program's stdout and stderr are appended.

    Returns:
        Its cost.

    Raises:
        CalledProcessError: the program failed, or was stopped and has said so.
        KeyboardInterrupt: it was stopped before it reported its result, or after it finished.
    """
    process: _Process | None = None
    start = time.perf_counter()
    if output is not None:
        make_folder(output.parent)
    try:
        with nullcontext() if output is None else open(output, "ab") as file:
            with delaying_signals():
                stdout = file if shows_output else subprocess.DEVNULL
                process = _Process(command, stdout=stdout, stderr=file)
            code = process.wait_for_end()
    except KeyboardInterrupt as stopped:
        if process is None:
            raise
        number = stopped.number if isinstance(stopped, Terminated) else signal.SIGINT
        process.send_signal(number)
        code = process.wait_or_kill()  # it may be writing a checkpoint
        if code <= 0:
            raise
    if code:
        raise subprocess.CalledProcessError(code, command)
    return Usage(time.perf_counter() - start, *process.cost)


class _Process(subprocess.Popen[bytes]):
    """A process whose exit code no interrupt loses, and whose cost is known after its end."""

    cost: tuple[float | None, int | None] = (None, None)

    def wait_for_end(self) -> int:
        """Return the exit code, which an interrupted `wait()` could lose."""
        if self.returncode is not None or not hasattr(os, "waitid"):
            return self.wait()
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with delaying_signals():
            _, status, usage = os.wait4(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
        self.cost = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit
        return self.returncode

    def wait_or_kill(self) -> int:
        """Return the exit code; a further interrupt kills the process."""
        try:
            return self.wait_for_end()
        except KeyboardInterrupt:  # the second one
            self.kill()
            return self.wait()
