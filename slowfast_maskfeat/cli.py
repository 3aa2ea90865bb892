"""The one mapping of errors and signals to messages and exit codes of commands.

It does not import torch, because the scripts that write annotation files should start fast.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

from slowfast_maskfeat.text import cut_quotes, printable

INVALID_INPUT = 2
INTERRUPTED = 128 + signal.SIGINT  # as shells report it
# More files of one folder than these are reported together.
_MAX_FILES = 10


class StoppedError(Exception):
    """A signal stopped a run after its progress was saved.

    Attributes:
        number: Signal number.
        saved: What was saved, for the message.
    """

    def __init__(self, number: int, saved: object) -> None:
        super().__init__(number, saved)
        self.number = number
        self.saved = saved

    def __str__(self) -> str:
        return f"stopped by signal {self.number}; {self.saved}"


def exit_code(work: Callable[[], object], *, output: object = None, resumable: bool = False) -> int:
    """Run a command; print errors that a user can fix in one line, without a traceback.

    Args:
        work: Command to run; if it returns an int, that is the exit code.
        output: Output of the command, named in the message of a system error without a file name.
        resumable: Whether the same command resumes an interrupted run.

    Returns:
        0 or the exit code of `work`; 2 for invalid input (if the error has a `report`, it is
        printed first); 128 plus the signal number if a signal stopped the command.
    """
    try:
        code = work()
    except (StoppedError, KeyboardInterrupt) as stopped:
        return signal_exit_code(stopped, resumable=resumable)
    except ValueError as error:
        _print(*filter(None, [getattr(error, "report", None)]), f"error: {_one_line(error)}")
        return INVALID_INPUT
    except OSError as error:
        where = error.filename or output
        what = error.strerror or str(error)
        _print(f"error: {what if where is None else cut_quotes(f'{where}: {what}')}")
        return INVALID_INPUT
    return code if isinstance(code, int) else 0


def signal_exit_code(
    stopped: StoppedError | KeyboardInterrupt, *, resumable: bool, printed: bool = True
) -> int:
    """Print that a signal stopped the command; a second SIGINT, from a launcher, is ignored.

    Args:
        stopped: Error that the signal was turned into.
        resumable: Whether the same command resumes an interrupted run.
        printed: False to print nothing, for processes other than the main one.

    Returns:
        128 plus the signal number.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    number, message = signal.SIGINT.value, "interrupted"
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
        paths: Files, or folders whose files belong together; each is reported once.
        stream: Output stream, for a command whose stdout is data; None for stdout.
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
        print(f"wrote {_printable(line)}", file=stream, flush=True)


def _printable(path: str) -> str:
    """A path without the bytes that are not UTF-8, which can't be printed."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _print(*lines: object) -> None:
    # All processes of torchrun on a machine raise the same error.
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(*(printable(str(line)) for line in lines), sep="\n", file=sys.stderr)


def _one_line(error: ValueError) -> str:
    """Message in one line, without the traceback that a data loader worker adds to it."""
    text = str(getattr(error, "summary", error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and "Original Traceback" in text:
        return cut_quotes(lines[-1].removeprefix("ValueError: "))
    return cut_quotes(" ".join(" ".join(lines).split()))
