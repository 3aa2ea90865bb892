"""Scripts outside the package, for tests that call them in their own process."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TextIO

from slowfast_maskfeat.commands import main as commands
from slowfast_maskfeat.workers import SIGNALS

ROOT = Path(__file__).resolve().parents[2]


class Done(NamedTuple):
    """How a script ended, named as in `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def load_tool(path: str) -> ModuleType:
    """The script at a path from the root, such as `tools/run_net.py`, as a module."""
    file = ROOT / path
    known = sys.modules.get(file.stem)
    if known is not None and getattr(known, "__file__", None) == str(file):
        return known
    specification = importlib.util.spec_from_file_location(file.stem, file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[file.stem] = module  # dataclasses and pickle look their module up
    try:
        with _parts_beside(file):
            specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[file.stem]
        raise
    return module


def tool_command(path: str, *words: object) -> list[str]:
    """The command line of a script, for tests that need a process of its own."""
    return [sys.executable, str(ROOT / path), *map(str, words)]


def run_tool(path: str, *words: object, cwd: Path | None = None) -> Done:
    """Call the `main` of a script in this process, as its command line would.

    What a script changes for its process (handlers of signals, the display of warnings, the
    current folder) is as before afterwards.

    Args:
        path: of the script from the root, such as `tools/run_net.py`.
        words: of the command line.
        cwd: the current folder of the script; None leaves it.

    Returns:
        the exit code and the output, that of the script's own processes included.
    """
    module = load_tool(path)
    with _parts_beside(ROOT / path):
        return _run(module.main, str(ROOT / path), words, cwd)


def run_command(*words: object, cwd: Path | None = None) -> Done:
    """Call the program `maskfeat` in this process, like `run_tool`.

    Args:
        words: of the command line, without the program.
        cwd: the current folder of the command; None leaves it.
    """
    return _run(commands.main, "maskfeat", words, cwd)


def _run(
    main: Callable[[list[str]], int], program: str, words: Sequence[object], cwd: Path | None
) -> Done:
    arguments = [str(word) for word in words]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", buffering=1) as stdout,
        tempfile.TemporaryFile(
            "w+", encoding="utf-8", errors="backslashreplace", buffering=1
        ) as stderr,
    ):
        with (
            _folder(cwd),
            _named_by([program, *arguments]),
            _signals_as_before(),
            _output_into(stdout, stderr),
            _warnings_of_a_program(),
        ):
            try:
                code = main(arguments)
            except SystemExit as end:  # of argparse
                code = end.code
        stdout.seek(0)
        stderr.seek(0)
        return Done(int(code or 0), stdout.read(), stderr.read())


@contextlib.contextmanager
def _folder(cwd: Path | None) -> Iterator[None]:
    before = Path.cwd()
    if cwd is not None:
        os.chdir(cwd)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _parts_beside(file: Path) -> Iterator[None]:
    """The folder of a script is the first to import from, also for processes that it starts."""
    sys.path.insert(0, str(file.parent))
    try:
        yield
    finally:
        sys.path.remove(str(file.parent))


@contextlib.contextmanager
def _named_by(argv: list[str]) -> Iterator[None]:
    """Messages about the command line begin with the name of the script."""
    before, sys.argv = sys.argv, argv
    try:
        yield
    finally:
        sys.argv = before


@contextlib.contextmanager
def _signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _output_into(stdout: TextIO, stderr: TextIO) -> Iterator[None]:
    """The descriptors, too, for what libraries in C and further processes print."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    try:
        os.dup2(stdout.fileno(), 1)
        os.dup2(stderr.fileno(), 2)
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            yield
    finally:
        for number, copy in enumerate(before, 1):
            os.dup2(copy, number)
            os.close(copy)


@contextlib.contextmanager
def _warnings_of_a_program() -> Iterator[None]:
    """Warnings are printed, and the same are hidden, as where pytest does not collect them."""
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for category in (
            DeprecationWarning,
            PendingDeprecationWarning,
            ImportWarning,
            ResourceWarning,
        ):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = _print_warning
        yield


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    text = warnings.formatwarning(message, category, filename, lineno, line)
    print(text, end="", file=file or sys.stderr)
