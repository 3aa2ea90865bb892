"""The one mapping of errors and signals to messages and exit codes of commands.

It does not import torch, because the scripts that write annotation files should start fast.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TextIO

from slowfast_maskfeat.text import cut_quotes, printable
from slowfast_maskfeat.workers import SIGNALS

INVALID_INPUT = 2
INTERRUPTED = 128 + signal.SIGINT  # as shells report it
CLOSED_PIPE = 128 + 13  # likewise, of SIGPIPE, which Windows lacks
# More files of one folder than these are reported together.
_MAX_FILES = 10

SAME_SIGNAL_SECONDS = 1.0
"""Within this time a signal that is repeated is the same request: `timeout` and launchers send it
to a process and to its group."""


_SECONDS_UNTIL_AGAIN = 0.2


class StoppedError(Exception):
    """A signal stopped a run after its progress was saved.

    Attributes:
        number: signal number.
        saved: what was saved, for the message.
    """

    def __init__(self, number: int, saved: object) -> None:
        super().__init__(number, saved)
        self.number = number
        self.saved = saved

    def __str__(self) -> str:
        return f"stopped by signal {self.number}; {self.saved}"


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGUSR1, raised like Ctrl-C, so that the same is cleaned up.

    Attributes:
        number: signal number.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.number = int(number)


def exit_code(work: Callable[[], object], *, output: object = None, resumable: bool = False) -> int:
    """Run a command; print errors that a user can fix in one line, without a traceback.

    Args:
        work: command to run; if it returns an int, that is the exit code.
        output: output of the command, named in the message of a system error without a file name.
        resumable: whether the same command resumes an interrupted run.

    Returns:
        0 or the exit code of `work`; 2 for invalid input (if the error has a `report`, it is
        printed first); 128 plus the signal number if a signal stopped the command; `CLOSED_PIPE`,
        without a message, if the reader of its output has ended, such as `head`.
    """
    try:
        with raising_signals():
            return _run(work, output)
    except (StoppedError, KeyboardInterrupt) as stopped:
        return signal_exit_code(stopped, resumable=resumable)


def _run(work: Callable[[], object], output: object) -> int:
    try:
        code = work()
        _flush()
    except ValueError as error:
        _print(*filter(None, [getattr(error, "report", None)]), f"error: {_one_line(error)}")
        return INVALID_INPUT
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _drop_unread():
            return CLOSED_PIPE
        _print(f"error: {system_error(error, output)}")
        return INVALID_INPUT
    return code if isinstance(code, int) else 0


def until_closed(work: Callable[[], int]) -> int:
    """Run what prints to stdout; it ends without a message once the reader has ended.

    Returns:
        The result of `work`, or `CLOSED_PIPE`.
    """
    try:
        try:
            return work()
        finally:
            _flush()
    except BrokenPipeError:
        if not _drop_unread():
            raise
        return CLOSED_PIPE


def signal_exit_code(
    stopped: StoppedError | KeyboardInterrupt, *, resumable: bool, printed: bool = True
) -> int:
    """Print that a signal stopped the command; further signals, from a launcher, are ignored.

    Args:
        stopped: error that the signal was turned into.
        resumable: whether the same command resumes an interrupted run.
        printed: False to print nothing, for processes other than the main one.

    Returns:
        128 plus the signal number.
    """
    if threading.current_thread() is threading.main_thread():
        for ignored in SIGNALS:
            signal.signal(ignored, signal.SIG_IGN)
    number, message = signal.SIGINT.value, "interrupted"
    if isinstance(stopped, Terminated):
        number = stopped.number
        message = f"stopped by signal {number}"
    if isinstance(stopped, StoppedError):
        number, message = stopped.number, str(stopped)
    elif resumable:
        message += "; run the same command again to resume"
    if printed:
        _print(f"\n{message}")
    return 128 + number


def print_written(paths: Iterable[str | os.PathLike[str]], *, stream: TextIO | None = None) -> None:
    """Print `wrote PATH` for each file that a command wrote: the last lines of its output.

    More than ten files of one folder share a line, with the folder and their number.

    Args:
        paths: files, or folders whose files belong together; each is reported once.
        stream: output stream, for a command whose stdout is data; None for stdout.
    """
    files = list(dict.fromkeys(Path(path) for path in paths))
    of_folder: dict[Path, int] = {}
    for file in files:
        of_folder[file.parent] = of_folder.get(file.parent, 0) + 1
    lines = [
        f"{file}" if of_folder[file.parent] <= _MAX_FILES
        # A separator, to tell the files in a folder from a folder that is one result.
        else f"{file.parent}{os.sep} ({of_folder[file.parent]:,} files)"
        for file in files
    ]  # fmt: skip
    for line in dict.fromkeys(lines):
        print(f"wrote {printable(line)}", file=stream, flush=True)


@contextmanager
def raising_signals() -> Iterator[None]:
    """Raise Ctrl-C as KeyboardInterrupt, SIGTERM and SIGUSR1 as Terminated inside of the context.

    Python drops an exception that is raised during a finalizer, for example while torch waits for
    its workers; the signal is then sent again.
    """
    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        yield
        return
    last = -SAME_SIGNAL_SECONDS
    is_over = False

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        is_repeated, last = now - last < SAME_SIGNAL_SECONDS, now
        if not is_repeated:
            raise Terminated(number)

    def send_again(dropped: sys.UnraisableHookArgs) -> None:
        nonlocal last
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            hook_before(dropped)
            return
        last = -SAME_SIGNAL_SECONDS
        error = dropped.exc_value
        number = error.number if isinstance(error, Terminated) else signal.SIGINT
        threading.Timer(
            _SECONDS_UNTIL_AGAIN, lambda: None if is_over else os.kill(os.getpid(), number)
        ).start()

    handlers = {
        number: signal.default_int_handler if number == signal.SIGINT else terminate
        for number in SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN  # as in the background of a script
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    hook_before, sys.unraisablehook = sys.unraisablehook, send_again
    try:
        yield
    finally:
        is_over = True
        sys.unraisablehook = hook_before
        for number, handler in handlers.items():
            if signal.getsignal(number) is handler:  # not ignored since a signal came
                signal.signal(number, before[number])


def end_on_interrupt() -> None:
    """End this process with one line at Ctrl-C, until `exit_code` runs the command.

    Programs call this before the imports that take seconds.
    """

    def end(number: int, frame: FrameType | None) -> None:
        _print("\ninterrupted")
        os._exit(INTERRUPTED)  # an exception could be lost in the C code of an import

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in the background of a script
        signal.signal(signal.SIGINT, end)


def system_error(error: OSError, output: object = None) -> str:
    """One line for an error of the system: file name, reason and, if there is one, the remedy.

    Args:
        error: the error.
        output: output of the command, named if the error has no file name.
    """
    where = error.filename or output
    text = error.strerror or _one_line(error)
    if error.errno == errno.EMFILE:
        text += " in this process; raise the limit (ulimit -n)"
    return text if where is None else cut_quotes(f"{where}: {text}")


def _flush() -> None:
    """Write what stdout holds, of which an error at the end of the process would be printed."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _drop_unread() -> bool:
    """Whether the reader of stdout or stderr has ended; the rest of the output is then dropped."""
    is_closed = False
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with suppress(OSError):  # of a stream that is no file
            if not _has_reader(stream):
                is_closed = True
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
    return is_closed


def _has_reader(stream: TextIO) -> bool:
    try:
        stream.flush()
    except BrokenPipeError:
        return False
    if not hasattr(select, "poll"):  # Windows
        return True
    # The system also reports it where nothing is left to write.
    state = select.poll()
    state.register(stream.fileno(), 0)
    return not any(events & (select.POLLERR | select.POLLHUP) for _, events in state.poll(0))


def _print(*lines: object) -> None:
    # All processes of torchrun on a machine raise the same error.
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(*(printable(str(line)) for line in lines), sep="\n", file=sys.stderr, flush=True)


def _one_line(error: Exception) -> str:
    """Message in one line, without the traceback that a data loader worker adds to it."""
    text = str(getattr(error, "summary", error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and "Original Traceback" in text:
        return cut_quotes(lines[-1].removeprefix("ValueError: ").removeprefix("OSError: "))
    return cut_quotes(" ".join(" ".join(lines).split()))
