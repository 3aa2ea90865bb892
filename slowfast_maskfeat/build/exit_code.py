"""How a tool ends: what a user can put right is one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from slowfast_maskfeat.checkpoints import LoadError
from slowfast_maskfeat.engine import distributed
from slowfast_maskfeat.videos.decode import DecodeError

INVALID_INPUT = 2
INTERRUPTED = 128 + signal.SIGINT  # as shells have it


def exit_code(work: Callable[[], object], *, output: object) -> int:
    """Call what a tool does.

    Args:
        work: Does it.
        output: What the tool writes, named where the system's error names no file.

    Returns:
        0, or 2 for invalid input; of weights that do not fit, the table of what would have been
        loaded is printed before the line.
    """
    # What a user can put right is found by all processes that torchrun started on this machine.
    is_told = os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        work()
    except LoadError as error:
        if is_told:
            print(f"{error.report}\nerror: {error.summary}", file=sys.stderr)
    except (ValueError, DecodeError) as error:
        if is_told:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error.filename or output}: {error.strerror or error}", file=sys.stderr)
    else:
        return 0
    return INVALID_INPUT


def tell_interrupted() -> int:
    """Say that features are kept after Ctrl-C; a second SIGINT, of the launcher, is ignored.

    Returns:
        130.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if distributed.is_main():
        print(
            f"\nstopped by signal {signal.SIGINT:d}; the features that are made are kept, and the "
            "same command goes on from here",
            file=sys.stderr,
        )
    return INTERRUPTED
