"""A demo that is stopped stops its training, and one of the two says so."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from helpers import sessions
from helpers.load_tool import ROOT
from helpers.tiny_run import wait_for

DEMO = """
import sys
from demo_runs import run_demo, run_program
sys.exit(run_demo(lambda: run_program([sys.executable, "-c", sys.argv[1], *sys.argv[2:]]) or 0))
"""
# A training that handles signals, and one that is still importing.
READY = """
import os, pathlib, signal, sys, time
def stop(number, frame):
    print(f"stopped by signal {number}; a.pyth", file=sys.stderr, flush=True)
    os._exit(128 + number)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, stop)
pathlib.Path(sys.argv[1]).touch()
time.sleep(100)
"""
STARTING = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
pathlib.Path(sys.argv[1]).touch()
time.sleep(100)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("send", [os.kill, os.killpg])
@pytest.mark.parametrize("training", [READY, STARTING], ids=["ready", "starting"])
def test_a_stopped_demo_is_one_line(tmp_path, number, send, training):
    words = [sys.executable, "-c", DEMO, training, str(tmp_path / "ready")]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tools")])
    process = sessions.start(words, PYTHONPATH=path)
    try:
        wait_for((tmp_path / "ready").exists)
        send(process.pid, number)
        _, printed = process.communicate(timeout=60)
        wait_for(lambda: sessions.is_over(process.pid), seconds=10)
    finally:
        if not sessions.is_over(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 128 + number, printed
    assert len(printed.split("\n\n")) == 1
    (line,) = printed.split("\n")[-2:-1]
    assert line.startswith("interrupted" if "interrupted" in line else "stopped by signal")
    assert [text for text in printed.splitlines() if text] == [line]
