"""Makes the pieces of a comparison: each an ordinary run in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slowfast_maskfeat.checkpoints import checkpoint_folder, find_checkpoints
from slowfast_maskfeat.config.defaults import flatten
from slowfast_maskfeat.config.yaml_file import read_yaml
from slowfast_maskfeat.engine.coordination import locked
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.log import EventLog, event_log_path, read_events
from slowfast_maskfeat.runs.comparison.lists import replace_folder
from slowfast_maskfeat.runs.comparison.pieces import Piece, Plan, quiet_config
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
        is_partial: an attempt was killed, and its time is not known.
    """

    is_done: bool
    reason: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory: int = 0
    rate: float | None = None
    is_partial: bool = False


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
        events = read_events(self._path) if self._path.is_file() else []
        self._events = [event for event in events if _is_of_piece(event)]
        self._outcomes: dict[str, Outcome] = {}

    def collect(self, *, with_failures: bool = False) -> dict[str, Outcome]:
        """Return the outcomes of the pieces that former calls have made; nothing is run.

        A piece counts if it is done and all that it needs is.

        Args:
            with_failures: also of those that have failed, or need one that has.
        """
        for name in self._plan.pieces:
            self._collect(name)
        for name, piece in self._plan.pieces.items() if with_failures else ():
            if name not in self._outcomes and all(n in self._outcomes for n in piece.needs):
                failure = self._blocked(piece) or self._failure(name)
                if failure is not None:
                    self._outcomes[name] = failure
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
        self._check_settings(piece, self._settings(piece, rate))
        self._outcomes[piece.name] = self._outcome(piece.name, rate)

    def _failure(self, name: str) -> Outcome | None:
        """Return how the last attempt of a piece failed; None if it did not."""
        ends = self._ends(name)
        return self._outcome(name, None) if ends and ends[-1]["status"] == "failed" else None

    def make_all(self, *, after_piece: Callable[[], object] | None = None) -> dict[str, Outcome]:
        """Make all pieces in the order of the plan; one that fails costs only what needs it.

        Args:
            after_piece: called after each piece that was made.

        Returns:
            Name -> how it ended.

        Raises:
            ValueError: the folder has pieces with other settings, or another program makes one.
            CalledProcessError: a signal stopped a piece; the same call resumes from there.
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
        settings = self._settings(piece, rate)
        self._check_settings(piece, settings)
        self._run(piece, rate, settings, log)
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
            folder = self._output / self._plan.pieces[name].folder
            is_gone = last_checkpoint(folder, self._plan.pieces[name]) is None
            if is_gone and not self._is_done(piece.name):
                reason = f"needs the checkpoint of {name}, which is gone; delete {folder}"
                return Outcome(is_done=False, reason=f"{reason} to make it again")
        tried = [self._outcomes[name] for name in piece.rates if name in self._outcomes]
        if len(tried) == len(piece.rates) > 0 and not any(outcome.is_done for outcome in tried):
            reason = tried[0].reason
            return Outcome(is_done=False, reason=f"all of its learning rates failed: {reason}")
        return None

    def _run(
        self, piece: Piece, rate: float | None, settings: Mapping[str, Any], log: EventLog
    ) -> None:
        """Run a piece and log how it ended."""
        words = self._words(piece, rate)
        with locked(self._output / piece.folder):
            pass  # an error now: a run that outlived a killed comparison is no failure of the piece
        number = list(self._plan.pieces).index(piece.name) + 1
        console = self._output / piece.folder / "console.txt"
        head = f"[{number}/{len(self._plan.pieces)}] {piece.title}"
        print(printable(f"{head}; its output: {console}"), file=sys.stderr, flush=True)
        self._write(log, "begin", name=piece.name, words=words, settings=_digest(settings))
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
        with atomic_write(self._config_path(piece)) as part:
            part.write_text(quiet_config([file], pairs).dump(), encoding="utf-8")

    def _config_path(self, piece: Piece) -> Path:
        return self._output / piece.folder / f"{piece.kind}.yaml"

    def _is_done(self, name: str) -> bool:
        """Whether a piece was made, and its folder is still there."""
        log = event_log_path(self._output / self._plan.pieces[name].folder)
        return log.is_file() and any(end["status"] == "done" for end in self._ends(name))

    def _ends(self, name: str) -> list[dict[str, Any]]:
        return [e for e in self._events if e["event"] == "end" and e["name"] == name]

    def _begins(self, name: str) -> list[dict[str, Any]]:
        return [e for e in self._events if e["event"] == "begin" and e["name"] == name]

    def _outcome(self, name: str, rate: float | None) -> Outcome:
        """Sum the attempts of a piece, without those before it was done and deleted."""
        ends = self._ends(name)
        is_done = ends[-1]["status"] == "done"
        done = [number for number, end in enumerate(ends[:-1]) if end["status"] == "done"]
        counted = ends[done[-1] + 1 :] if done else ends
        return Outcome(
            is_done=is_done,
            reason="" if is_done else ends[-1].get("reason") or "no reason is known",
            seconds=sum(end.get("seconds") or 0.0 for end in counted),
            cpu_seconds=sum(end.get("cpu_seconds") or 0.0 for end in counted),
            peak_memory=max(end.get("peak_memory") or 0 for end in counted),
            rate=rate,
            is_partial=len(self._begins(name)) > len(ends),
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
            needed = self._plan.pieces[name]
            found = last_checkpoint(self._output / needed.folder, needed)
            assert found is not None, name  # else the piece is blocked
            keys[key] = f"{_HERE}/{found.relative_to(self._output).as_posix()}"
        keys["OUTPUT_DIR"] = f"{_HERE}/{piece.folder}"
        words = [word for pair in keys.items() for word in pair]
        return ["--cfg", piece.file, *(self._moveable(word) for word in words)]

    def _moveable(self, text: str) -> str:
        return replace_folder(text, str(self._output), _HERE)

    def _settings(self, piece: Piece, rate: float | None) -> dict[str, Any]:
        """Return all keys of a piece with their values, but for its folder and checkpoints."""
        _, pairs = piece.files_and_pairs
        chosen = [] if rate is None else ["SOLVER.BASE_LR", repr(rate)]
        found = flatten(quiet_config([piece.file], [*pairs, *chosen]))
        return self._comparable(piece, dict(found), self._output)

    def _comparable(self, piece: Piece, keys: Mapping[str, Any], output: Path) -> dict[str, Any]:
        return {
            key: replace_folder(value, str(output), _HERE) if isinstance(value, str) else value
            for key, value in keys.items()
            if key not in piece.checkpoints and key != "OUTPUT_DIR"
        }

    def _check_settings(self, piece: Piece, settings: Mapping[str, Any]) -> None:
        """Check that an earlier start of a piece had the same settings.

        Keys that this version has added are not compared.

        Raises:
            ValueError: it had others.
        """
        begins, ends, path = (
            self._begins(piece.name),
            self._ends(piece.name),
            self._config_path(piece),
        )
        if not begins or begins[-1].get("settings") == _digest(settings) or not path.is_file():
            return
        has_failed = bool(ends) and ends[-1]["status"] == "failed"
        folder = checkpoint_folder(self._output / piece.folder)
        if has_failed and not find_checkpoints(folder, piece.task):
            return  # it left nothing that other settings could be mixed with
        before = dict(flatten(read_yaml(path)[0]))
        # The comparison may have been moved since.
        output = Path(str(before.get("OUTPUT_DIR")).removesuffix(f"/{piece.folder}"))
        before = self._comparable(piece, before, output)
        now = json.loads(json.dumps(settings))  # without tuples, which YAML does not have
        changed = [key for key in before if key in now and before[key] != now[key]]
        if not changed:
            return
        details = ", ".join(f"{key} was {before[key]}, is {now[key]}" for key in changed)
        if any(_HERE in str(values[key]) for key in changed for values in (before, now)):
            details += (
                " (other samples: the data, hold_out, labels_per_class or few_labels were changed)"
            )
        raise ValueError(
            f"--output must be a new folder, or that of the same comparison, but {self._output} "
            f"has {piece.name} with other settings: {details}"
        )


def _is_of_piece(event: Mapping[str, Any]) -> bool:
    """Whether an event of the log of a comparison has what is read of it."""
    expected = {"begin": ("words", list), "end": ("status", str)}.get(event["event"])
    return (
        expected is not None
        and isinstance(event.get("name"), str)
        and isinstance(event.get(expected[0]), expected[1])
    )


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _nothing() -> None:
    """Do nothing after a piece."""


def last_checkpoint(folder: Path, piece: Piece) -> Path | None:
    """Return the last checkpoint in the folder of a piece; None without one."""
    found = find_checkpoints(checkpoint_folder(folder), piece.task)
    return found[-1] if found else None


def validation_accuracy(folder: Path) -> float | None:
    """Return the last top-1 on the validation split in the log of a run; None if there is none."""
    path = event_log_path(folder)
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
