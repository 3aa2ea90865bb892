"""Starting processes: what becomes of errors, exit codes and signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import sessions
from helpers.tiny_run import wait_for

from slowfast_maskfeat import distributed
from slowfast_maskfeat.engine.launch import launch
from slowfast_maskfeat.rendezvous import check_address


def fail(kind: str) -> None:
    if distributed.rank() == 1:
        if kind == "user":
            raise ValueError("DATA.PATH must be a folder, got 'x'")
        if kind == "bug":
            raise KeyError("the cause")
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        sys.exit(143)
    if kind == "exit":
        sys.exit(143)
    distributed.barrier()  # the other one never comes


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("user", ValueError, "^DATA.PATH must be a folder, got 'x'$"),
        pytest.param(
            "bug", RuntimeError, "(?s)process 1 failed.*the cause", marks=pytest.mark.slow
        ),
        pytest.param(
            "kill", RuntimeError, "process 1 was ended by SIGKILL", marks=pytest.mark.slow
        ),
        pytest.param("exit", SystemExit, "143", marks=pytest.mark.slow),
    ],
)
def test_the_first_failure_comes_out(kind: str, error: type[BaseException], text: str) -> None:
    with pytest.raises(error, match=text):
        launch(fail, 2, (kind,))


MAIN = """
import signal, sys, time
from pathlib import Path
from slowfast_maskfeat import distributed
from slowfast_maskfeat.engine.launch import launch
from slowfast_maskfeat.rendezvous import check_address

def work(folder):
    stopped = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    (Path(folder) / f"ready{distributed.rank()}").touch()
    while not stopped:
        (Path(folder) / f"beat{distributed.rank()}").touch()
        time.sleep(0.01)
    distributed.barrier()
    (Path(folder) / f"saved{distributed.rank()}").touch()
    sys.exit(143)

if __name__ == "__main__":
    launch(work, 2, (sys.argv[1],))
"""


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_signals_to_the_starting_process(tmp_path: Path, number: int) -> None:
    script = tmp_path / "main.py"
    script.write_text(MAIN)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment)
    try:
        wait_for(lambda: all((tmp_path / f"ready{rank}").exists() for rank in (0, 1)))
        assert process.poll() is None
        process.send_signal(number)
        code = process.wait(timeout=120)
    finally:
        process.kill()
    if number == signal.SIGTERM:
        assert code == 143
        assert all((tmp_path / f"saved{rank}").exists() for rank in (0, 1))
    else:  # no orphan goes on
        wait_for(lambda: not _beats(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_signal_to_the_whole_group_reaches_them_twice(tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(MAIN)
    process = sessions.start(
        [sys.executable, str(script), str(tmp_path)], PYTHONPATH=str(Path(__file__).parents[2])
    )
    try:
        wait_for(lambda: all((tmp_path / f"ready{rank}").exists() for rank in (0, 1)))
        os.killpg(process.pid, signal.SIGTERM)
        _, printed = process.communicate(timeout=120)
        assert process.returncode == 143, printed
        assert all((tmp_path / f"saved{rank}").exists() for rank in (0, 1))
        wait_for(lambda: sessions.is_over(process.pid), seconds=20)
    finally:
        process.kill()


EARLY = """
import signal, sys, time
from pathlib import Path
from slowfast_maskfeat import distributed
from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.engine.launch import launch
from slowfast_maskfeat.rendezvous import check_address

def work(folder):
    (Path(folder) / f"ready{distributed.rank()}").touch()
    time.sleep(100)

if __name__ == "__main__":
    sys.exit(exit_code(lambda: launch(work, 2, (sys.argv[1],)), resumable=True))
"""


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (signal.SIGINT, "interrupted"),
        (signal.SIGTERM, "stopped by signal 15"),
        (signal.SIGUSR1, f"stopped by signal {int(signal.SIGUSR1)}"),
    ],
)
def test_a_signal_that_no_process_handles_is_one_line(
    tmp_path: Path, number: int, text: str
) -> None:
    script = tmp_path / "main.py"
    script.write_text(EARLY)
    process = sessions.start(
        [sys.executable, str(script), str(tmp_path)], PYTHONPATH=str(Path(__file__).parents[2])
    )
    try:
        wait_for(lambda: all((tmp_path / f"ready{rank}").exists() for rank in (0, 1)))
        os.killpg(process.pid, number)
        _, printed = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + number, printed
    assert printed.split("\n") == ["", f"{text}; run the same command again to resume", ""]


def test_a_port_in_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        address = f"tcp://127.0.0.1:{port}"
        with pytest.raises(ValueError, match=f"^--init_method {address}: port {port} is in use"):
            launch(print, 1, num_shards=2, init_method=address)
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(port))
        with pytest.raises(ValueError, match=f"^MASTER_PORT {port}: port {port} is in use"):
            distributed.setup(0, 0, 2, "gloo", "env://")


def full() -> None:
    if distributed.is_main():
        raise OSError(28, "No space left on device", "/output/a.pyth")
    distributed.barrier()


@pytest.mark.slow
def test_a_full_disk_of_one_process_is_an_error_for_users() -> None:
    with pytest.raises(ValueError, match=r"^/output/a\.pyth: No space left on device$"):
        launch(full, 2)


def _beats(folder: Path) -> bool:
    """Whether a process is at work within half a second."""
    for rank in (0, 1):
        (folder / f"beat{rank}").unlink(missing_ok=True)
    time.sleep(0.5)
    return any(folder.glob("beat*"))


def test_one_process_is_this_one() -> None:
    seen: list[tuple[int, int]] = []
    launch(lambda value: seen.append((value, os.getpid())), 1, (7,))
    assert seen == [(7, os.getpid())]


def write_num_threads(folder: Path) -> None:
    (folder / str(distributed.rank())).write_text(str(torch.get_num_threads()))
    distributed.barrier()  # one that is gone already could not be found by the other


@pytest.mark.slow
def test_processes_share_the_threads_of_the_one_that_starts_them(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        launch(write_num_threads, 2, (tmp_path,))
    finally:
        torch.set_num_threads(before)
    assert [(tmp_path / str(rank)).read_text() for rank in (0, 1)] == ["2", "2"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_processes": 0}, "processes must .* got 0"),
        ({"num_processes": 1, "num_shards": 2, "shard_id": 2}, "--shard_id must .* got 2"),
        ({"num_processes": 1, "num_shards": 2}, "--init_method"),
    ],
)
def test_contradictions(arguments: dict[str, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        launch(print, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "address",
    [
        *("foo", "", "file://", "http://host:9999"),
        *("tcp://host", "tcp://:9999", "tcp://host:0", "tcp://host:99999", "tcp://host:x"),
    ],
)
def test_an_address_of_another_form_is_an_error_before_anything_starts(address: str) -> None:
    with pytest.raises(ValueError, match=f"^--init_method must be tcp://.*, got {address!r}$"):
        launch(print, 1, num_shards=2, shard_id=1, init_method=address)


@pytest.mark.parametrize("address", ["tcp://[::1]:9999", "tcp://host:1", "file:///a/b", "env://"])
def test_addresses_of_torch_are_accepted(address: str) -> None:
    check_address(address)
