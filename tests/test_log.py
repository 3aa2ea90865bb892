"""The log for machines and the progress for people."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slowfast_maskfeat.log import (
    EventLog,
    Progress,
    Throughput,
    format_duration,
    read_events,
)


def strict(line: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(line, parse_constant=refuse)


def test_one_line_an_event_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "stats.jsonl"
    log = EventLog(path)
    log.write("train", loss=float("nan"), rate=float("inf"), step=3, path=Path("/a/b"))
    log.write("epoch", top1=np.float32(0.5), lost=torch.tensor([1, 2]), count=np.int64(4), no=None)
    lines = [strict(line) for line in path.read_text().splitlines()]  # before it is closed
    assert lines == [
        {"event": "train", "loss": None, "rate": None, "step": 3, "path": "/a/b"},
        {"event": "epoch", "top1": 0.5, "lost": [1, 2], "count": 4, "no": None},
    ]
    with pytest.raises(TypeError, match="object cannot be logged"):
        log.write("x", y=object())
    log.close()


def test_a_resumed_run_appends_after_a_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "stats.jsonl"
    path.write_text('{"event": "a"}\n{"event": "b", "lo')
    for event in ("c", "d"):
        log = EventLog(path)
        log.write(event)
        log.close()
    lines = path.read_text().splitlines()
    assert [strict(line) for line in (lines[0], *lines[2:])] == [
        {"event": "a"},
        {"event": "c"},
        {"event": "d"},
    ]


def test_damaged_lines_of_a_log_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "stats.jsonl"
    path.write_bytes(b'{"event": "a"}\n{"event": "b", "x\n\xff\n7\n\n{"event": "c"}\n{"ev')
    assert [event["event"] for event in read_events(path)] == ["a", "c"]


def test_no_path_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = EventLog(None)
    log.write("train", y=object())
    log.close()
    assert not any(tmp_path.iterdir())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_are_few() -> None:
    stream = io.StringIO()
    progress = Progress(1000, "epoch 1/3", stream, seconds_between_lines=0.05)
    start = time.monotonic()
    for step in range(1000):
        progress.update(loss=1.0 / (step + 1), data_wait="3%")
        time.sleep(0.0002)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert 2 <= len(lines) <= (time.monotonic() - start) / 0.05 + 2
    assert "\r" not in stream.getvalue()
    assert lines[-1].startswith("epoch 1/3: 1000/1000 (100%), ")
    assert "it/s, 00:00 left" in lines[-1]
    assert lines[-1].endswith("loss=0.001, data_wait=3%")


def test_slow_loops_show_seconds_per_step() -> None:
    stream = io.StringIO()
    progress = Progress(61, "test", stream, initial=1, seconds_between_lines=0.0)
    time.sleep(1.05)
    progress.update()
    line = stream.getvalue()
    assert line.startswith("test: 2/61 (3%),  1.")
    assert "s/it, 01:" in line  # 59 steps of at least 1.05 s, those before the start not counted


def test_bar_on_a_terminal_stays_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    progress = Progress(4, "test", stream, initial=2)
    progress.update(1, a_very_long_name_for_something_that_does_not_fit=1.5)
    progress.close()
    progress.close()  # harmless
    text = stream.getvalue()
    assert text.startswith("\rtest:  50%|")
    last = text.split("\r")[-1]
    assert last.startswith("test:  75%|")
    assert "| 3/4 [" in last
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert all(len(drawn) <= 61 for drawn in text.split("\r"))


@pytest.mark.parametrize("on_terminal", [False, True])
def test_the_first_steps_leave_the_rate_once_there_are_others(on_terminal: bool) -> None:
    """Here 0.5 s and then 0.01 s each; over all steps, 88 of 100 would take 4 s."""
    stream = Terminal() if on_terminal else io.StringIO()
    progress = Progress(100, "epoch 1/3", stream, seconds_between_lines=0.0)
    time.sleep(0.5)
    for _ in range(12):
        progress.update()
        time.sleep(0.01)
    progress.close()
    lines = stream.getvalue().split("\r" if on_terminal else "\n")
    first = next(line for line in lines if " 1/100" in line)
    assert _seconds_left(first) >= 49
    last = [line for line in lines if " 12/100" in line][-1]
    assert _seconds_left(last) <= 2
    if not on_terminal:
        assert _seconds_left(lines[10]) >= 4  # 11 steps: those may be a burst


def _seconds_left(line: str) -> int:
    found = re.search(r"(\d+):(\d\d) left", line)
    assert found, line
    return 60 * int(found[1]) + int(found[2])


def test_a_fast_loop_on_a_terminal_shows_its_end() -> None:
    """All 50 steps are done before the bar is drawn again, and the rate starts in between."""
    stream = Terminal()
    progress = Progress(50, "fast", stream)
    for _ in range(50):
        progress.update()
    progress.close()
    assert "50/50" in stream.getvalue()
    assert stream.getvalue().endswith("\n")


NOTEBOOK = """
import sys, types

class Widget:
    def __init__(self, children=(), **settings):
        self.children, self.layout = children, types.SimpleNamespace()
        self.style = types.SimpleNamespace()
        self.bar_style = self.value = ""
    def close(self):
        pass

shown = []
shell = type("ZMQInteractiveShell", (), {})
ipython = types.SimpleNamespace(get_ipython=shell)
widgets = types.SimpleNamespace(HTML=Widget, FloatProgress=Widget, HBox=Widget)
display = types.SimpleNamespace(display=shown.append)
sys.modules.update({"ipykernel.zmqshell": ipython, "IPython": ipython, "IPython.display": display})
sys.modules["ipywidgets"] = widgets

from slowfast_maskfeat.log import Progress

progress = Progress(4, "epoch 1/3")
progress.update(3, loss=0.5)
progress.update()
progress.close()
left, bar, right = shown[0].children
print(len(shown), left.value, bar.value, bar.bar_style, right.value)
"""


def test_widget_in_a_notebook() -> None:
    """The modules that a Jupyter kernel has, and ipywidgets, are stubs here."""
    command = [sys.executable, "-W", "error", "-c", NOTEBOOK]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    text = done.stdout.replace("\u2007", " ")  # tqdm's spaces in HTML
    assert text.startswith("1 epoch 1/3: 100% 4 success  4/4 [")
    assert text.endswith("00:00 left, loss=0.5]\n")


def test_the_import_is_cheap() -> None:
    """Readers of annotation files import it for one function."""
    code = "import slowfast_maskfeat.log, sys; print({'torch', 'tqdm', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_other_processes_show_nothing() -> None:
    stream = io.StringIO()
    progress = Progress(2, "test", stream, enabled=False, seconds_between_lines=0.0)
    progress.update(2)
    progress.close()
    assert stream.getvalue() == ""


def test_durations() -> None:
    seconds = [0.4, 59.6, 3599, 3600, 90061, -1]
    expected = ["0:00", "1:00", "59:59", "1:00:00", "1 day 1:01:01", "0:00"]
    assert [format_duration(s) for s in seconds] == expected


def test_share_of_waiting_for_data() -> None:
    throughput = Throughput()
    with throughput.waiting():
        time.sleep(0.06)
    time.sleep(0.06)
    throughput.count(8)
    measured = throughput.take()
    assert measured["seconds"] >= 0.12
    assert 0.06 / measured["seconds"] <= measured["data_wait"] < 1.0
    assert measured["clips_per_second"] == pytest.approx(8 / measured["seconds"])
    assert throughput.take()["clips_per_second"] == 0.0  # it began anew
