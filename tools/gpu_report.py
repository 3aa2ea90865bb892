#!/usr/bin/env python3
"""Run the tests that need a GPU, measure its speed in a few minutes, and write a page about it.

Nothing is downloaded: videos are rendered, weights are random. Sections are measured one after the
other, the most important ones first, each in a process of its own, until the time is up; the page
says what was left out. What does not fit into memory costs one row.

After Ctrl-C, the page has what was measured until then.
"""

from __future__ import annotations

if __name__ == "__main__":
    from slowfast_maskfeat.cli import end_on_interrupt

    end_on_interrupt()  # during the imports, which take seconds

import argparse
import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from benchmark import ROOT
from benchmark_report import describe_machine
from gpu_page import Report, Tests, as_json, page
from gpu_records import STEPS, Deadline, Record
from gpu_sections import SECTIONS
from gpu_settings import Setting

from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.log import first_line

PAGE = ROOT / "docs/benchmarks_gpu.md"
_LEAST = 5.0  # seconds for which starting a process makes sense
_MARK = "gpu-record "
TIME_IS_UP = "the time was up"


class _ProcessError(RuntimeError):
    """A section's process ended before its work."""


# --- sections -----------------------------------------------------------------------------------


def measure(
    names: Sequence[str], setting: Setting, deadline: Deadline, report: Report, *, in_process: bool
) -> Iterator[Record]:
    """Measure sections until the time is up; yields the records that it adds to the report.

    Args:
        names: of `SECTIONS`.
        setting: where to measure, and how.
        deadline: when to stop.
        report: gets the records; what it has as left out is what is expected.
        in_process: measure in this process: a row that hangs then holds up all others.
    """
    for name in names:
        reason = TIME_IS_UP
        try:
            if deadline.left() > _LEAST:
                print(f"{deadline} left: {name}", flush=True)
                run = _in_process if in_process else _in_child
                for record in run(name, setting, deadline):
                    report.records.append(record)
                    report.left_out.pop((record.row, record.form), None)
                    yield record
                if deadline.left():
                    reason = "the section ended without it"
        except _ProcessError as error:
            reason = str(error)
        for place in SECTIONS[name].rows:
            if place in report.left_out:
                report.left_out[place] = reason


def _in_process(name: str, setting: Setting, deadline: Deadline) -> Iterator[Record]:
    records = SECTIONS[name].measure(setting)
    while deadline.left():
        try:
            yield next(records)
        except StopIteration:
            return
        except Exception as error:  # costs this section alone
            raise _ProcessError(f"{type(error).__name__}: {first_line(error)}") from error


def _in_child(name: str, setting: Setting, deadline: Deadline) -> Iterator[Record]:
    """Records of a process, which is ended when the time is up.

    Raises:
        _ProcessError: it failed.
    """
    command = [sys.executable, __file__, "--child", name, *["--quick"][: setting.quick]]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        try:
            for line in _lines_until(process, deadline):
                if line.startswith(_MARK):
                    yield Record.of_line(line.removeprefix(_MARK))
            if not deadline.left():
                return
            if process.wait(timeout=60):
                errors.seek(0)
                last = [line.strip() for line in errors if line.strip()][-1:]
                text = last[0][:200] if last else "it printed nothing"
                raise _ProcessError(f"the process ended with code {process.returncode}: {text}")
        finally:
            _end_group(process)


def _end_group(process: subprocess.Popen[str]) -> None:
    """End a process that has a session of its own, with all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _lines_until(process: subprocess.Popen[str], deadline: Deadline) -> Iterator[str]:
    """Lines that a process prints, until its end or until the time is up."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while deadline.left():
        has_ended = process.poll() is not None
        try:
            line = lines.get(timeout=min(deadline.left(), 1.0))
        except queue.Empty:
            if has_ended:  # what it has started keeps its output open
                return
            continue
        if line is None:
            return
        yield line


def print_records(name: str, setting: Setting) -> None:
    """Measure a section and print its records, each on a line, for `_in_child`."""
    for record in SECTIONS[name].measure(setting):
        print(_MARK + record.to_line(), flush=True)


def describe(record: Record) -> str:
    """One line about a record, for the progress."""
    values = record.values
    texts = [f"{values['seconds'] * 1000:.3g} ms"] if "seconds" in values else []
    if "clips_per_second" in values:
        texts.append(f"{values['clips_per_second']:.4g} clips/s")
    if "mfu" in values:
        texts.append(f"{values['mfu']:.1%} of the matrix rate")
    if "memory_gib" in values:
        texts.append(f"{values['memory_gib']:.1f} GiB")
    if "data_wait" in values:
        texts.append(f"data wait {values['data_wait']:.0%}")
    setting = f" ({record.setting})" if record.table == STEPS else ""
    return f"{record.name}{setting}: {record.error or ', '.join(texts)}"


# --- the machine and its tests ------------------------------------------------------------------


def describe_gpu() -> dict[str, str]:
    """Machine as in `benchmark_report`, with the driver and the libraries of the GPU."""
    machine = describe_machine()
    if torch.cuda.is_available():
        gib = torch.cuda.get_device_properties(0).total_memory / 2**30
        machine["GPU"] += f", {gib:.0f} GiB"
        machine["driver"] = _driver()
        machine["CUDA, cuDNN"] = f"{torch.version.cuda}, {torch.backends.cudnn.version()}"
    return machine


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.split("\n")[0].strip()
    return "unknown"


def run_tests(words: Sequence[str], minutes: float) -> Tests:
    """Run pytest, whose output is shown, and read its outcome.

    Args:
        words: of its command line.
        minutes: after which it is ended.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", *words, "--junitxml", str(file)]
        process = subprocess.Popen(command, cwd=ROOT, text=True, start_new_session=True)
        try:
            code = process.wait(timeout=minutes * 60)
        except subprocess.TimeoutExpired:
            return Tests(error=f"not finished after {minutes:g} minutes")
        finally:
            _end_group(process)
        if not file.is_file():
            return Tests(error=f"pytest ended with code {code}, without an outcome")
        return read_tests(file, time.monotonic() - start)


def read_tests(file: Path, seconds: float) -> Tests:
    """Outcome of tests from a JUnit file of pytest."""
    failed, num_passed, num_skipped = [], 0, 0
    for case in ElementTree.parse(file).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif case.find("skipped") is not None:
            num_skipped += 1
        else:
            num_passed += 1
    return Tests(num_passed, num_skipped, tuple(failed), seconds)


# --- the command --------------------------------------------------------------------------------


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--minutes", type=float, default=8.0, help="time to measure (default: 8)")
    parser.add_argument("--no-tests", action="store_true", help="measure without the tests before")
    parser.add_argument(
        "--tests-minutes", type=float, default=10.0, help="time for the tests (default: 10)"
    )
    parser.add_argument("--output", type=Path, help=f"page (default: {PAGE.relative_to(ROOT)})")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, also without a GPU")
    parser.add_argument(
        "--in-process", action="store_true", help="one process, which a hanging row holds up"
    )
    parser.add_argument("--child", choices=SECTIONS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def work(options: argparse.Namespace) -> int:
    """Test, measure and write.

    Returns:
        1 if a test failed, else 0.

    Raises:
        ValueError: there is no GPU, or no output for tiny sizes.
    """
    has_gpu = torch.cuda.is_available()
    if not (has_gpu or options.quick):
        raise ValueError(
            "torch must find a CUDA device to measure it, got none; check nvidia-smi and "
            f"torch.version.cuda (here {torch.version.cuda}), or try --quick on a CPU"
        )
    if options.minutes <= 0 or options.tests_minutes <= 0:
        raise ValueError("--minutes and --tests-minutes must be > 0")
    setting = Setting(torch.device("cuda" if has_gpu else "cpu"), options.quick)
    if options.child:
        print_records(options.child, setting)
        return 0
    if options.quick and options.output is None:
        raise ValueError("--output must name a file with --quick, whose numbers mean nothing")
    output = (options.output or PAGE).resolve()
    report = Report(describe_gpu(), quick=options.quick)
    report.left_out = {
        place: "interrupted" for name in options.only for place in SECTIONS[name].rows
    }
    for name, value in report.machine.items():
        print(f"{name:<14}{value}")
    try:
        if not options.no_tests:
            print("\ntests that need a GPU", flush=True)
            report.tests = run_tests(["-m", "cuda", "-q", "tests"], options.tests_minutes)
            print(f"tests: {report.tests}", flush=True)
        deadline = Deadline(options.minutes * 60)
        measuring = measure(options.only, setting, deadline, report, in_process=options.in_process)
        with contextlib.closing(measuring):
            for record in measuring:
                print(f"{deadline} left: {describe(record)}", flush=True)
                _write(report, output)
    finally:
        print_written(_write(report, output))
    return int(report.tests is not None and not report.tests.is_good)


def _write(report: Report, output: Path) -> list[Path]:
    files = {output: page(report), output.with_suffix(".json"): as_json(report)}
    for path, text in files.items():
        with atomic_write(path) as temporary:
            temporary.write_text(text)
    return list(files)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = parse_arguments(arguments)
    return exit_code(lambda: work(options), output=options.output or PAGE)


if __name__ == "__main__":
    sys.exit(main())
