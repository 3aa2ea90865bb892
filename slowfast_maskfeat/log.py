"""The run's log for machines (JSON lines, TensorBoard) and for people (a progress bar)."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

import simplejson


def first_line(error: BaseException | str) -> str:
    """The first line of an error's text, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class EventLog:
    """Appends one JSON object a line, flushed at once; what is not finite becomes null.

    Args:
        path: The file, ``OUTPUT_DIR/stats.jsonl``; its folder is made if need be. None writes
            nothing, for the processes that are not the main one.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._file: TextIO | None = None
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            _end_cut_line(Path(path))
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - stays open

    def write(self, event: str, **fields: Any) -> None:
        """Write one event.

        Args:
            event: What happened: ``start``, ``train``, ``epoch``, ``validation`` ...
            **fields: Numbers, strings, lists and dicts. Numpy's and torch's scalars are turned
                into numbers, which waits for the device.
        """
        if self._file is None:
            return
        line = simplejson.dumps({"event": event, **fields}, ignore_nan=True, default=_plain)
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; writing after it is an error."""
        if self._file is not None:
            self._file.close()


def _end_cut_line(path: Path) -> None:
    # A run killed in mid-line would otherwise spoil the first line of the one that resumes.
    if not path.exists() or path.stat().st_size == 0:
        return
    with open(path, "rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def _plain(value: Any) -> Any:
    """Numpy and torch scalars and arrays as numbers and lists; paths as strings."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} has no place in a log line")


# The first steps wait for workers to start, for compilation and for memory. They leave the rate of
# a loop once so many others are there: fewer may be a burst, of workers that started together.
_NUM_WARM_UP, _NUM_AFTER = 2, 10


class Progress:
    """Shows how far a loop is: a bar on a terminal, else a plain line every few seconds.

    Rate and time left are those of the updates after the first two, once there are ten more.

    Args:
        total: Steps of the loop.
        description: What it does, such as ``epoch 3/300``.
        stream: Where to; stderr if None.
        initial: Steps done already, when a run goes on within an epoch.
        seconds_between_lines: Least time between two plain lines. The bar is redrawn 5 times a
            second at most.
        enabled: False shows nothing, for the processes that are not the main one.
    """

    def __init__(
        self,
        total: int,
        description: str,
        stream: TextIO | None = None,
        *,
        initial: int = 0,
        seconds_between_lines: float = 10.0,
        enabled: bool = True,
    ) -> None:
        self._total = total
        self._description = description
        self._stream = sys.stderr if stream is None else stream
        self._enabled = enabled
        self._is_terminal = self._stream.isatty()
        self._period = 0.2 if self._is_terminal else seconds_between_lines
        self._done = initial
        self._shown_at = time.monotonic()
        # Moment and number of steps that the rate is counted from.
        self._counted_from = self._warmed_up = (self._shown_at, initial)
        self._num_updates = 0
        self._shown: dict[str, Any] = {}
        self._last_text = ""

    def update(self, n: int = 1, **shown: Any) -> None:
        """Count steps, and show them if it is time to.

        Args:
            n: Steps done since the last call.
            **shown: What to show beside the rate, such as ``loss=0.123``; kept until given anew.
        """
        self._done += n
        self._shown.update(shown)
        now = time.monotonic()
        self._num_updates += 1
        if self._num_updates == _NUM_WARM_UP:
            self._warmed_up = (now, self._done)
        elif self._num_updates == _NUM_WARM_UP + _NUM_AFTER:
            self._counted_from = self._warmed_up
        if now - self._shown_at >= self._period:
            self._shown_at = now
            self._show()

    def close(self) -> None:
        """Show the last state and end the line."""
        self._show()
        if self._enabled and self._is_terminal:
            self._stream.write("\n")
            self._stream.flush()

    def _show(self) -> None:
        if not self._enabled:
            return
        text = self._text()
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            padding = " " * max(0, min(width, len(self._last_text)) - len(text[:width]))
            self._stream.write("\r" + text[:width] + padding)
        elif text != self._last_text:
            self._stream.write(text + "\n")
        self._last_text = text
        self._stream.flush()

    def _text(self) -> str:
        begin, done_before = self._counted_from
        rate = (self._done - done_before) / max(time.monotonic() - begin, 1e-9)
        share = self._done / self._total if self._total else 1.0
        parts = [f"{self._description} {self._done}/{self._total} ({share:.0%})"]
        if self._is_terminal:
            filled = int(20 * min(share, 1.0))
            parts.insert(0, "[" + "#" * filled + "." * (20 - filled) + "]")
        left = format_duration((self._total - self._done) / rate) if rate > 0 else "?"
        parts.append(
            f"{rate:.2f}/s, {left} left" if rate >= 1 else f"{seconds_per(rate)}, {left} left"
        )
        parts += [f"{name} {_short(value)}" for name, value in self._shown.items()]
        return "  ".join(parts)


def seconds_per(rate: float) -> str:
    """A rate below 1 a second as seconds each."""
    return f"{1 / rate:.2f} s each" if rate > 0 else "? s each"


def format_duration(seconds: float) -> str:
    """Seconds as ``m:ss``, ``h:mm:ss`` or ``d days h:mm:ss``."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} day{'s' if days > 1 else ''} {hours}:{minutes:02d}:{rest:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Throughput:
    """Measures clips per second and the share of the time that went into waiting for data.

    ``with throughput.waiting(): batch = next(batches)``, then ``throughput.count(len(batch))``.
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._num_clips = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The time inside counts as waiting for data."""
        before = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - before

    def count(self, num_clips: int) -> None:
        """Count clips that were worked on."""
        self._num_clips += num_clips

    def take(self) -> dict[str, float]:
        """``seconds``, ``clips_per_second`` and ``data_wait`` (0 to 1) since the last call."""
        now = time.perf_counter()
        seconds = max(now - self._start, 1e-9)
        measured = {
            "seconds": seconds,
            "clips_per_second": self._num_clips / seconds,
            "data_wait": min(self._waited / seconds, 1.0),
        }
        self._start, self._waited, self._num_clips = now, 0.0, 0
        return measured


class ScalarWriter(Protocol):
    """What is used of TensorBoard's SummaryWriter."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Write one number."""

    def close(self) -> None:
        """Write what is left and close."""


class TensorBoardLog:
    """Writes numbers for TensorBoard, which is an optional extra of the package.

    Args:
        folder: Where the event files go; None writes nothing.

    Raises:
        ValueError: If TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self._writer: ScalarWriter | None = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                "TENSORBOARD.ENABLE is True, but TensorBoard is not installed: pip install "
                "'slowfast-maskfeat[tensorboard]', or set it to False"
            ) from error
        self._writer = SummaryWriter(str(folder))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write numbers by name at a step; waits for the device of those that are tensors."""
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, float(value), step)

    def close(self) -> None:
        """Write what is left and close."""
        if self._writer is not None:
            self._writer.close()
