"""Makes the pieces of a comparison: each an ordinary run in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slowfast_maskfeat.checkpoints import find_checkpoints
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.log import EventLog, read_events
from slowfast_maskfeat.runs.comparison.plan import Piece, Plan, quiet_config
from slowfast_maskfeat.runs.programs import Usage, run_program
from slowfast_maskfeat.text import printable
from slowfast_maskfeat.workers import SIGNALS

LOG_NAME = "pieces.jsonl"
_HERE = "{output}"  # the folder of the comparison in logged command lines, so that it may be moved
_STOPPED = tuple(128 + number for number in SIGNALS)
_LAST_LINES = 2000  # characters of a program's output that are read for its error


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a piece ended.

    Attributes:
        is_done: whether it succeeded.
        reason: why not; empty if it did.
        seconds: wall-clock time of all its attempts that ended.
        cpu_seconds: the same of its processes' work.
        peak_memory: largest resident set of its processes, in bytes; 0 if unknown.
        rate: learning rate that the grid chose; None without a grid.
    """

    is_done: bool
    reason: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory: int = 0
    rate: float | None = None


class Executor:
    """Makes pieces that are not done yet, with all that they need.

    Args:
        plan: of the comparison.
        output: its folder.
        program: words of the command that runs a configuration, such as `python tools/run_net.py`.

    Raises:
        ValueError: the folder has a piece that was made with other settings.
    """

    def __init__(self, plan: Plan, output: Path, program: Sequence[str]) -> None:
        self._plan = plan
        self._output = output
        self._program = list(program)
        self._path = output / LOG_NAME
        self._events = read_events(self._path) if self._path.is_file() else []
        self._outcomes: dict[str, Outcome] = {}

    def collect(self) -> dict[str, Outcome]:
        """Return the outcomes of the pieces that former calls have made; nothing is run.

        A piece counts if it is done and all that it needs is.
        """
        for name in self._plan.pieces:
            self._collect(name)
        return self._outcomes

    def _collect(self, name: str) -> bool:
        if name in self._outcomes:
            return True
        piece = self._plan.pieces[name]
        needed = (*piece.needs, *piece.rates)
        if not self._is_done(name) or not all(self._collect(other) for other in needed):
            return False
        self._record(piece)
        return True

    def _record(self, piece: Piece) -> None:
        """Record the outcome of a piece that was made, if it was with the settings of the plan."""
        rate = self._chosen_rate(piece)
        self._check_words(piece, self._words(piece, rate))
        self._outcomes[piece.name] = self._outcome(piece.name, rate)

    def make_all(self, *, after_piece: Callable[[], object] | None = None) -> dict[str, Outcome]:
        """Make all pieces in the order of the plan; one that fails costs only what needs it.

        Args:
            after_piece: called after each piece that was made.

        Returns:
            Name -> how it ended.

        Raises:
            CalledProcessError: a signal stopped a piece; the same call goes on from there.
        """
        for piece in self._plan.pieces.values():
            if piece.problem:
                line = f"warning: {piece.name} cannot be made: {piece.problem}"
                print(printable(line), file=sys.stderr, flush=True)
        self.collect()
        log = EventLog(self._path)
        try:
            for name in self._plan.pieces:
                self._make(name, log, after_piece or _nothing)
        finally:
            log.close()
        return self._outcomes

    def outcomes(self) -> Mapping[str, Outcome]:
        """Return how the pieces ended so far."""
        return self._outcomes

    def _make(self, name: str, log: EventLog, after_piece: Callable[[], object]) -> None:
        """Make a piece after those that it needs, unless that has been done."""
        if name in self._outcomes:
            return
        piece = self._plan.pieces[name]
        for other in (*piece.needs, *piece.rates):
            self._make(other, log, after_piece)
        blocked = self._blocked(piece)
        if blocked is not None:
            self._outcomes[name] = blocked
            return
        if self._is_done(name):
            self._record(piece)
            return
        rate = self._chosen_rate(piece)
        words = self._words(piece, rate)
        self._check_words(piece, words)
        self._run(piece, words, log)
        self._outcomes[name] = self._outcome(name, rate)
        after_piece()

    def _blocked(self, piece: Piece) -> Outcome | None:
        """Return the failure of a piece that cannot be started; None if it can."""
        if piece.problem:
            return Outcome(is_done=False, reason=piece.problem)
        for name in piece.needs:
            if not self._outcomes[name].is_done:
                reason = f"needs {name}, which failed: {self._outcomes[name].reason}"
                return Outcome(is_done=False, reason=reason)
        if piece.rates and not any(self._outcomes[name].is_done for name in piece.rates):
            reason = next(self._outcomes[name].reason for name in piece.rates)
            return Outcome(is_done=False, reason=f"all of its learning rates failed: {reason}")
        return None

    def _run(self, piece: Piece, words: Sequence[str], log: EventLog) -> None:
        """Run a piece and log how it ended."""
        number = list(self._plan.pieces).index(piece.name) + 1
        console = self._output / piece.folder / "console.txt"
        head = f"[{number}/{len(self._plan.pieces)}] {piece.title}"
        print(printable(f"{head}; its output: {console}"), file=sys.stderr, flush=True)
        self._write(log, "begin", name=piece.name, words=words)
        command = [word.replace(_HERE, str(self._output)) for word in words]
        self._write_config(piece, command)
        start = time.perf_counter()
        status, reason, usage = "done", "", Usage(0.0)
        try:
            usage = run_program([*self._program, *command], output=console)
        except subprocess.CalledProcessError as error:
            stopped = error.returncode in _STOPPED
            status = "stopped" if stopped else "failed"
            reason = "" if stopped else _reason(console, error.returncode)
            usage = Usage(time.perf_counter() - start)
            if stopped:
                raise
        except KeyboardInterrupt:
            status, usage = "stopped", Usage(time.perf_counter() - start)
            raise
        finally:
            self._write(
                log, "end", name=piece.name, status=status, reason=reason, **usage._asdict()
            )
        if reason:
            print(printable(f"failed: {reason}"), file=sys.stderr, flush=True)

    def _write(self, log: EventLog, event: str, **fields: Any) -> None:
        log.write(event, **fields)
        self._events.append({"event": event, **fields})

    def _write_config(self, piece: Piece, command: Sequence[str]) -> None:
        """Write the configuration of a piece, which its command line makes, as one file."""
        _, file, *pairs = command
        with atomic_write(self._output / piece.folder / f"{piece.kind}.yaml") as part:
            part.write_text(quiet_config([file], pairs).dump(), encoding="utf-8")

    def _is_done(self, name: str) -> bool:
        return any(
            event["event"] == "end" and event["name"] == name and event["status"] == "done"
            for event in self._events
        )

    def _outcome(self, name: str, rate: float | None) -> Outcome:
        """Sum the attempts of a piece."""
        ends = [e for e in self._events if e["event"] == "end" and e["name"] == name]
        is_done = ends[-1]["status"] == "done"
        return Outcome(
            is_done=is_done,
            reason="" if is_done else ends[-1]["reason"],
            seconds=sum(end["seconds"] for end in ends),
            cpu_seconds=sum(end["cpu_seconds"] or 0.0 for end in ends),
            peak_memory=max(end["peak_memory"] or 0 for end in ends),
            rate=rate,
        )

    def _chosen_rate(self, piece: Piece) -> float | None:
        """Return the rate with the best validation accuracy; the first of equal ones."""
        accuracies = {
            rate: accuracy
            for name, rate in piece.rates.items()
            if self._outcomes[name].is_done
            and (accuracy := validation_accuracy(self._output / self._plan.pieces[name].folder))
            is not None
        }
        return max(accuracies, key=lambda rate: accuracies[rate]) if accuracies else None

    def _words(self, piece: Piece, rate: float | None) -> list[str]:
        """Return the command line of a piece, with `_HERE` for the folder of the comparison."""
        keys = dict(piece.keys)
        if rate is not None:
            keys["SOLVER.BASE_LR"] = repr(rate)
        for key, name in piece.checkpoints.items():
            found = last_checkpoint(self._output, self._plan.pieces[name])
            keys[key] = f"{_HERE}/{found.relative_to(self._output).as_posix()}"
        keys["OUTPUT_DIR"] = f"{_HERE}/{piece.folder}"
        words = [word for pair in keys.items() for word in pair]
        return ["--cfg", piece.file, *(word.replace(str(self._output), _HERE) for word in words)]

    def _check_words(self, piece: Piece, words: Sequence[str]) -> None:
        """Check that an earlier start of a piece had the same settings.

        Raises:
            ValueError: it had others.
        """
        begins = [e for e in self._events if e["event"] == "begin" and e["name"] == piece.name]
        if not begins or begins[-1]["words"] == list(words):
            return
        ends = [e for e in self._events if e["event"] == "end" and e["name"] == piece.name]
        has_failed = bool(ends) and ends[-1]["status"] == "failed"
        if has_failed and not find_checkpoints(
            self._output / piece.folder / "checkpoints", piece.task
        ):
            return  # it left nothing that other settings could be mixed with
        before, now = (
            dict(zip(w[2::2], w[3::2], strict=True)) for w in (begins[-1]["words"], words)
        )
        changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        details = ", ".join(f"{key} was {before.get(key)}, is {now.get(key)}" for key in changed)
        raise ValueError(
            f"--output must be a new folder, or that of the same comparison, but {self._output} "
            f"has {piece.name} with other settings: {details or 'another configuration file'}"
        )


def _nothing() -> None:
    """Do nothing after a piece."""


def last_checkpoint(output: Path, piece: Piece) -> Path:
    """Return the last checkpoint of a piece that is done.

    Raises:
        ValueError: it has none.
    """
    folder = output / piece.folder / "checkpoints"
    found = find_checkpoints(folder, piece.task)
    if not found:
        raise ValueError(f"{folder} must have a checkpoint of TASK {piece.task!r}, got none")
    return found[-1]


def validation_accuracy(folder: Path) -> float | None:
    """Return the last top-1 on the validation split in the log of a run; None if there is none."""
    path = folder / "stats.jsonl"
    events = read_events(path) if path.is_file() else []
    found = [event.get("top1") for event in events if event["event"] == "validation"]
    return found[-1] if found else None


def _reason(console: Path, code: int) -> str:
    """Return the error that a program printed, or the signal that killed it."""
    if code < 0:
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"killed by signal {-code}{hint}"
    with open(console, "rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _LAST_LINES, 0))
        lines = file.read().decode("utf-8", "replace").split("\n")
    errors = [line for line in lines if line.startswith("error: ")]
    last = next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
    return (errors[-1] if errors else last).removeprefix("error: ").strip()
