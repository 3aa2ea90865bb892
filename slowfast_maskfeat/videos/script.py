"""How the scripts of ``datasets/`` end: what went wrong is one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

INVALID_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def exit_code(name: str, work: Callable[[], int], *, goes_on: bool = True) -> int:
    """Call what a script does.

    Args:
        name: The script, which begins the line.
        work: Does it and returns the exit code.
        goes_on: Whether the same command keeps what an interrupted one did.

    Returns:
        The exit code of ``work``, 2 after bad input or 130 after Ctrl-C.
    """
    try:
        return work()
    except (ValueError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return INVALID_INPUT
    except KeyboardInterrupt:
        rest = "; the same command goes on from here" if goes_on else ""
        print(f"{name}: interrupted{rest}", file=sys.stderr)
        return INTERRUPTED
