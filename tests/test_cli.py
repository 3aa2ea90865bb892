"""Errors and signals become one line and an exit code."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.load_tool import ROOT, load_tool, run_tool

from slowfast_maskfeat.checkpoints.report import LoadError, LoadReport
from slowfast_maskfeat.cli import StoppedError, exit_code, print_written
from slowfast_maskfeat.videos.decode import DecodeError
from slowfast_maskfeat.workers import SIGNALS


@pytest.fixture(autouse=True)
def _interrupts_as_before():
    """The command ignores these signals once it ends by a signal."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _raise(error: BaseException):
    raise error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("MODEL.ARCH: 'x'\n  is unknown"), "error: MODEL.ARCH: 'x' is unknown"),
        (DecodeError("a.mp4", "no frames"), "error: a.mp4: no frames"),
        (
            PermissionError(13, "Permission denied", "/r/o.png"),
            "error: /r/o.png: Permission denied",
        ),
        (OSError(28, "No space left"), "error: out.npz: No space left"),
        (
            OSError(24, "Too many open files", "a.mp4"),
            "error: a.mp4: Too many open files in this process; raise the limit (ulimit -n)",
        ),
        (
            ValueError(
                "Caught\nOriginal Traceback (most recent call last):\n\nValueError: no rows"
            ),
            "error: no rows",
        ),
    ],
)
def test_what_a_user_can_fix_is_one_line(error, line, capsys):
    assert exit_code(lambda: _raise(error), output="out.npz") == 2
    assert capsys.readouterr().err == f"{line}\n"


def test_a_system_error_without_a_file_stands_alone(capsys):
    assert exit_code(lambda: _raise(OSError(28, "No space left"))) == 2
    assert capsys.readouterr().err == "error: No space left\n"


def test_the_report_of_weights_comes_before_the_error(capsys):
    report = LoadReport(
        path=Path("a.pyth"),
        loaded=("a",),
        missing=("b",),
        unexpected=(),
        reshaped={},
        refused={},
        left_out=(),
        coverage=0.5,
        classifier="",
        unchecked_order=False,
        initialized=False,
    )
    assert exit_code(lambda: _raise(LoadError("b is missing", report))) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "error: b is missing"
    assert "\n".join(lines[:-1]) == str(report)


@pytest.mark.parametrize(
    ("error", "resumable", "code", "line"),
    [
        (KeyboardInterrupt(), False, 130, "interrupted"),
        (KeyboardInterrupt(), True, 130, "interrupted; run the same command again to resume"),
        (StoppedError(15, "a.pyth"), True, 143, "stopped by signal 15; a.pyth"),
    ],
)
def test_signals_become_the_codes_of_shells(error, resumable, code, line, capsys):
    assert exit_code(lambda: _raise(error), resumable=resumable) == code
    assert capsys.readouterr().err == f"\n{line}\n"


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (signal.SIGINT, "interrupted; run the same command again to resume"),
        (signal.SIGTERM, "stopped by signal 15; run the same command again to resume"),
        (
            signal.SIGUSR1,
            f"stopped by signal {int(signal.SIGUSR1)}; run the same command again to resume",
        ),
    ],
)
def test_a_signal_during_a_command_is_one_line(number, line, capsys):
    assert exit_code(lambda: signal.raise_signal(number), resumable=True) == 128 + number
    assert capsys.readouterr().err == f"\n{line}\n"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_during_a_finalizer_is_not_lost(number, capsys):
    class Finalized:
        def __del__(self):
            signal.raise_signal(number)

    def work():
        Finalized()
        time.sleep(30)

    assert exit_code(work) == 128 + number
    assert "Traceback" not in capsys.readouterr().err


_PRINTS = "from slowfast_maskfeat.cli import exit_code; exit(exit_code(lambda: print({})))"


@pytest.mark.parametrize(
    "program",
    [
        ("-c", _PRINTS.format("'a\\n' * 10**6")),
        ("-c", _PRINTS.format("1")),  # held until the process ends
        ("-m", "slowfast_maskfeat", "-h"),
        ("-m", "slowfast_maskfeat", "info", "-h"),
    ],
    ids=["long", "short", "list of commands", "help"],
)
def test_output_that_nobody_reads_is_no_error(program):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, *program], stdout=writer, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writer)
    assert done.stderr == b""
    # argparse itself ends without an error where it can't print a help.
    assert done.returncode in ((0, 141) if program[-2:] == ("info", "-h") else (141,))


def test_a_broken_pipe_to_another_program_is_an_error(capsys):
    assert exit_code(lambda: _raise(BrokenPipeError(32, "Broken pipe")), output="a.mp4") == 2
    assert capsys.readouterr().err == "error: a.mp4: Broken pipe\n"


def test_ignored_signals_stay_ignored(capsys):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # in the background of a script
    assert exit_code(lambda: signal.raise_signal(signal.SIGINT)) == 0
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_handlers_are_as_before_after_a_command():
    before = signal.getsignal(signal.SIGTERM)
    assert exit_code(lambda: None) == 0
    assert signal.getsignal(signal.SIGTERM) == before


_SCRIPTS = [
    path
    for folder in ("tools", "datasets")
    for path in sorted((ROOT / folder).glob("*.py"))
    if re.search(r"exit_code\(|run_demo\(|import main\b", path.read_text("utf-8"))
    if "__main__" in path.read_text("utf-8")
]


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: path.stem)
def test_ctrl_c_is_handled_before_the_slow_imports(script):
    first = ast.parse(script.read_text("utf-8")).body[2]  # after docstring and __future__
    assert ast.unparse(first).splitlines() == [
        "if __name__ == '__main__':",
        "    from slowfast_maskfeat.cli import end_on_interrupt",
        "    end_on_interrupt()",
    ]


def test_ctrl_c_before_the_command_runs_ends_it_with_one_line():
    code = "from slowfast_maskfeat.cli import *; end_on_interrupt(); import signal; "
    code += "signal.raise_signal(signal.SIGINT); print('goes on')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\ninterrupted\n")


@pytest.mark.parametrize("local_rank", ["0", "1"])
def test_one_process_of_a_machine_prints(local_rank, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert exit_code(lambda: _raise(ValueError("x"))) == 2
    assert capsys.readouterr().err == ("error: x\n" if local_rank == "0" else "")


def test_what_nobody_foresaw_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: 1 // 0)


@pytest.mark.parametrize(("result", "code"), [("anything", 0), (None, 0), (1, 1)])
def test_a_command_that_ends_by_itself_has_its_own_code(result, code, capsys):
    assert exit_code(lambda: result) == code
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["make_motion_clips", "make_motion_boxes", "make_shape_images"])
def test_interrupted_demo_data_can_be_resumed(name, tmp_path, monkeypatch):
    script = load_tool(f"datasets/{name}.py")
    monkeypatch.setattr(script, "make_data_set", lambda *_, **__: _raise(KeyboardInterrupt()))
    done = run_tool(f"datasets/{name}.py", "--output", tmp_path)
    assert done.returncode == 130
    assert done.stderr.endswith("interrupted; run the same command again to resume\n")


def test_each_written_file_is_a_line_and_many_of_a_folder_share_one(capsys):
    print_written(["a/x.png", Path("a/y.csv"), "a/x.png", *(f"b/{n}.mp4" for n in range(11)), "b"])
    assert capsys.readouterr().out.splitlines() == [
        *("wrote a/x.png", "wrote a/y.csv", "wrote b/ (11 files)", "wrote b"),
    ]
    print_written(["a/no \udce9.png"])  # a name that is not UTF-8
    assert capsys.readouterr().out.startswith("wrote a/no ")
    print_written([])
    assert capsys.readouterr().out == ""
