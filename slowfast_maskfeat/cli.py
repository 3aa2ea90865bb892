"""How commands end: the one mapping of errors and signals to messages and exit codes.

Importing it takes no torch, since the scripts that write annotation files have to start fast.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

INVALID_INPUT = 2
INTERRUPTED = 128 + signal.SIGINT  # as shells report it


class StoppedError(Exception):
    """A signal ended a run after its progress was saved.

    Attributes:
        number: of the signal.
        saved: what was saved, for the message.
    """

    def __init__(self, number: int, saved: object) -> None:
        super().__init__(number, saved)
        self.number = number
        self.saved = saved

    def __str__(self) -> str:
        return f"stopped by signal {self.number}; {self.saved}"


def exit_code(work: Callable[[], object], *, output: object = None, resumable: bool = False) -> int:
    """Run a command; print what a user can fix in one line, without a traceback.

    Args:
        work: the command; an int that it returns is the exit code.
        output: what the command writes, named where a system error names no file.
        resumable: the same command continues an interrupted one.

    Returns:
        0 or the code of `work`; 2 for invalid input (of an error with a `report`, that is printed
        first); 128 plus the number of the signal that stopped it.
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
        _print(f"error: {what if where is None else f'{where}: {what}'}")
        return INVALID_INPUT
    return code if isinstance(code, int) else 0


def signal_exit_code(
    stopped: StoppedError | KeyboardInterrupt, *, resumable: bool, printed: bool = True
) -> int:
    """Print how a signal ended the command; a second SIGINT, of a launcher, is ignored.

    Args:
        stopped: the error that the signal became.
        resumable: the same command continues an interrupted one.
        printed: False prints nothing, for the processes that are not the main one.

    Returns:
        128 plus the number of the signal.
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


def _print(*lines: object) -> None:
    # All processes of torchrun on a machine find the same error.
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(*lines, sep="\n", file=sys.stderr)


def _one_line(error: ValueError) -> str:
    """The message without the traceback that a data loader's process wraps around it."""
    text = str(getattr(error, "summary", error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and "Original Traceback" in text:
        return lines[-1].removeprefix("ValueError: ")
    return " ".join(" ".join(lines).split())
