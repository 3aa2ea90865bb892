"""Processes in a session of their own, to which signals are sent as schedulers send them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path


def start(command: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    """Start a command as the leader of a session, and so of a process group."""
    return subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def child_with(parent: int, variable: str) -> int:
    """The process that another one started with a variable, such as ``RANK=1``.

    Raises:
        LookupError: There is none.
    """
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, of_process, *_ = status.read_text().rpartition(")")[2].split()
            variables = status.with_name("environ").read_text().split("\0")
        except OSError:  # it has just ended, or is of another user
            continue
        if int(of_process) == parent and variable in variables:
            return int(status.parent.name)
    raise LookupError(f"process {parent} has started none with {variable}")


def is_over(session: int) -> bool:
    """Whether no process of a session runs any more; those that nobody waits for don't count."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of_process = status.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has just ended
            continue
        if int(of_process) == session and state not in "ZX":
            return False
    return True
