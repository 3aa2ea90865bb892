"""Runs the scripts of datasets/, which is no package."""

from __future__ import annotations

from pathlib import Path

from helpers.load_tool import Done, run_tool, tool_command


def command(name: str, *words: object) -> list[str]:
    """The command line of a script, for tests that need a process of its own."""
    return tool_command(f"datasets/{name}", *words)


def run(name: str, *words: object, code: int = 0, cwd: Path | None = None) -> Done:
    """Run a script to its end, which must have this exit code."""
    done = run_tool(f"datasets/{name}", *words, cwd=cwd)
    assert done.returncode == code, done.stdout + done.stderr
    return done
