"""Runs the scripts of datasets/, which is no package, as a user does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "datasets"


def command(name: str, *words: object) -> list[str]:
    """The command line of a script."""
    return [sys.executable, str(FOLDER / name), *map(str, words)]


def run(name: str, *words: object, code: int = 0, **kwargs) -> subprocess.CompletedProcess:
    """Run a script to its end, which must have this exit code."""
    done = subprocess.run(
        command(name, *words), capture_output=True, text=True, timeout=300, **kwargs
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done
