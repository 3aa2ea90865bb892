"""A script in the test's own process leaves that process as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

from helpers.load_tool import load_tool, run_tool

from slowfast_maskfeat.workers import SIGNALS

SCRIPT = "datasets/make_motion_clips.py"


def _state() -> tuple[object, ...]:
    handlers = [signal.getsignal(number) for number in SIGNALS]
    return handlers, warnings.filters[:], warnings.showwarning, list(sys.path), Path.cwd()


def test_what_a_script_changes_is_as_before(tmp_path, monkeypatch):
    def change(*_: object, **__: object) -> int:
        assert Path.cwd() == tmp_path
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        warnings.simplefilter("error")
        warnings.showwarning = print
        raise KeyboardInterrupt  # after which SIGINT is ignored

    monkeypatch.setattr(load_tool(SCRIPT), "make_data_set", change)
    before = _state()
    assert run_tool(SCRIPT, "--output", tmp_path, cwd=tmp_path).returncode == 130
    assert _state() == before


def test_all_that_is_printed_is_given_back(tmp_path, monkeypatch, capfd):
    def speak(*_: object, **__: object) -> list[str]:
        print("a text")
        warnings.warn("a warning", stacklevel=1)
        warnings.warn("an old name", DeprecationWarning, stacklevel=1)
        os.write(1, b"a descriptor\n")
        subprocess.run(["sh", "-c", "echo a process; echo an error >&2"], check=True)
        return []

    monkeypatch.setattr(load_tool(SCRIPT), "make_data_set", speak)
    done = run_tool(SCRIPT, "--output", tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[:3] == ["a text", "a descriptor", "a process"]
    assert "UserWarning: a warning" in done.stderr
    assert "old name" not in done.stderr  # as Python hides it in a program
    assert done.stderr.endswith("an error\n")
    assert capfd.readouterr() == ("", "")


def test_words_that_are_refused_are_an_exit_code():
    done = run_tool(SCRIPT, "--output", "x", "--no-such-option")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("make_motion_clips.py: error: ")
    assert "--no-such-option" in last
