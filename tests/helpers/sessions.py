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
