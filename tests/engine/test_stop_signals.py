"""Signals to a whole run: to all of its processes at once, repeated, and to one that is killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from helpers import sessions
from helpers.load_tool import ROOT
from helpers.tiny_run import PRETRAINING, command, events, losses, make_videos, wait_for

from slowfast_maskfeat import distributed
from slowfast_maskfeat.engine import stop_signals
from slowfast_maskfeat.engine.launch import launch
from slowfast_maskfeat.engine.stop_signals import StopSignals
from slowfast_maskfeat.workers import SIGNALS

OPTIONS = {**PRETRAINING, "DATA_LOADER.NUM_WORKERS": 2, "SOLVER.MAX_EPOCH": 100}
OPTIONS.update({"TRAIN.EVAL_PERIOD": 1000, "TRAIN.CHECKPOINT_PERIOD": 1000})

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"))


def _start(words, output):
    process = sessions.start(words, PYTHONPATH=str(ROOT))
    try:
        wait_for(lambda: (output / "stats.jsonl").exists() and losses(output))
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process


def _end(process, send) -> str:
    """Send a signal, wait for the end, and return what was printed."""
    try:
        send()
        _, printed = process.communicate(timeout=100)
        wait_for(lambda: sessions.is_over(process.pid), seconds=20)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return printed


@needs_proc
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_to_the_whole_group_stops_the_run_with_a_checkpoint(data, tmp_path, number):
    process = _start(command(data, tmp_path, OPTIONS), tmp_path)

    def send():
        os.kill(process.pid, number)  # `timeout` sends it to its child and to the group
        os.killpg(process.pid, number)

    printed = _end(process, send)
    assert process.returncode == 128 + number, printed
    (saved,) = (tmp_path / "checkpoints").iterdir()
    assert printed.splitlines()[-1] == f"stopped by signal {int(number)}; {saved}"
    assert "Traceback" not in printed
    assert events(tmp_path, "checkpoint")[-1]["path"] == str(saved)


@needs_proc
@pytest.mark.slow
def test_two_processes_of_torchrun_stop_with_a_checkpoint(data, tmp_path):
    python, *words = command(data, tmp_path, OPTIONS)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    process = _start([python, *torchrun, *words], tmp_path)
    printed = _end(process, lambda: os.killpg(process.pid, signal.SIGTERM))
    (saved,) = (tmp_path / "checkpoints").iterdir()
    assert f"stopped by signal 15; {saved}" in printed.splitlines()
    assert "DataLoader" not in printed


@needs_proc
@pytest.mark.slow
def test_torchrun_restarts_a_run_that_lost_a_process(data, tmp_path):
    """The new processes resume from the last checkpoint."""
    python, *words = command(
        data, tmp_path, OPTIONS, {"SOLVER.MAX_EPOCH": 12, "TRAIN.CHECKPOINT_PERIOD": 2}
    )
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    process = _start([python, *torchrun, "--max-restarts", "1", *words], tmp_path)
    wait_for(lambda: events(tmp_path, "checkpoint"))
    printed = _end(
        process, lambda: os.kill(sessions.child_with(process.pid, "RANK=1"), signal.SIGKILL)
    )
    assert process.returncode == 0, printed
    (resumed,) = events(tmp_path, "resume")
    assert resumed["checkpoint"] in {event["path"] for event in events(tmp_path, "checkpoint")}
    assert events(tmp_path, "epoch")[-1]["epoch"] == 12


@needs_proc
def test_workers_end_with_a_run_that_is_killed(data, tmp_path):
    process = _start(command(data, tmp_path, OPTIONS), tmp_path)
    printed = _end(process, lambda: os.kill(process.pid, signal.SIGKILL))
    assert process.returncode == -signal.SIGKILL
    assert "Traceback" not in printed


@needs_proc
def test_ctrl_c_while_torch_is_imported_is_one_line():
    process = sessions.start([sys.executable, str(ROOT / "tools" / "run_net.py"), "demo/pretrain"])
    maps = f"/proc/{process.pid}/maps"

    def is_importing() -> bool:
        with open(maps) as file:
            return "libtorch" in file.read()

    wait_for(is_importing)
    os.killpg(process.pid, signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert (process.returncode, printed.split()) == (130, ["interrupted"])


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_comes_twice_at_once_is_one(number):
    with StopSignals() as signals:
        assert signals.agreed() == 0
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert signals.agreed() == number


def test_a_later_ctrl_c_ends_a_single_process(monkeypatch):
    monkeypatch.setattr(stop_signals, "SAME_SIGNAL_SECONDS", 0.0)
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)  # of a scheduler that repeats it
        assert signals.agreed() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def _steps_until_agreed(folder):
    """Steps of one of two processes, the second of which receives a signal in step 3."""
    with StopSignals() as signals:
        for step in range(10):
            if step == 3 and distributed.rank() == 1:
                signal.raise_signal(signal.SIGTERM)
            number = signals.agreed_before()
            if number:
                break
        learned = [step, number, signals.agreed()]
    (Path(folder) / f"{distributed.rank()}.json").write_text(json.dumps(learned))


def test_two_processes_learn_of_a_signal_one_step_later(tmp_path):
    launch(_steps_until_agreed, 2, (str(tmp_path),))
    learned = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert learned == [[4, signal.SIGTERM, signal.SIGTERM]] * 2
