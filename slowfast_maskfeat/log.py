"""Logs of a run: JSON lines for programs, progress for people."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import simplejson

from slowfast_maskfeat.disk import make_folder, writing


def first_line(error: BaseException | str) -> str:
    """The first line of an error's message, or its type where that is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class EventLog:
    """Appends one JSON object per line, flushed at once; numbers that are not finite become null.

    Args:
        path: the file, that of `event_log_path`; its folder is created if needed. None
            writes nothing, for the processes that are not the main one.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._file: BinaryIO | None = None
        if path is not None:
            self._path = Path(path)
            make_folder(self._path.parent)
            with writing(self._path):
                _end_cut_line(self._path)
            # Unbuffered, so that closing writes nothing and can't fail.
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - stays open

    def write(self, event: str, **fields: Any) -> None:
        """Write one event.

        Args:
            event: kind of event: `start`, `train`, `epoch`, `validation` ...
            **fields: numbers, strings, lists and dicts. NumPy and torch scalars are converted to
                numbers, which synchronizes with the device.

        Raises:
            TypeError: if a value cannot be written as JSON.
            OSError: if the disk is full; the error names the file.
        """
        if self._file is None:
            return
        line = simplejson.dumps({"event": event, **fields}, ignore_nan=True, default=_plain)
        rest = memoryview(f"{line}\n".encode())
        with writing(self._path):
            while rest:
                rest = rest[self._file.write(rest) :]

    def close(self) -> None:
        """Close the file; writing afterwards is an error."""
        if self._file is not None:
            self._file.close()


def event_log_path(folder: str | os.PathLike[str]) -> Path:
    """Path of the log in the folder of a run, `OUTPUT_DIR`."""
    return Path(folder) / "stats.jsonl"


def read_events(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the events of a log; lines that are not events are counted in a warning.

    A run that is killed leaves half a line, a full disk or another program any other.
    """
    lines = Path(path).read_bytes().decode("utf-8", "replace").split("\n")
    found = {number: _event(line) for number, line in enumerate(lines, 1) if line.strip()}
    events = [event for event in found.values() if event is not None]
    wrong = [number for number, event in found.items() if event is None]
    if wrong:
        one, several = (
            "1 line is left out, which is no event",
            "lines are left out, which are no events",
        )
        count = one if len(wrong) == 1 else f"{len(wrong)} {several}"
        print(f"warning: {path}: {count} in JSON, such as line {wrong[0]}", file=sys.stderr)
    return events


def _event(line: str) -> dict[str, Any] | None:
    """The event of a line; None if it is none."""
    try:
        event = simplejson.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _end_cut_line(path: Path) -> None:
    # A run killed in the middle of a line would otherwise corrupt the first line of its resume.
    if not path.exists() or path.stat().st_size == 0:
        return
    with open(path, "rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def _plain(value: Any) -> Any:
    """NumPy and torch scalars and arrays as numbers and lists; paths as strings."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be logged as JSON")


# The first updates wait for workers to start, for compilation and for memory allocation. They are
# left out of the rate once this many others follow: fewer may be a burst from workers that started
# together.
_NUM_WARM_UP, _NUM_AFTER = 2, 10

# Without the elapsed time: tqdm's runs from where the rate is measured, after the warm-up.
_BAR = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{rate_fmt}, {remaining} left{postfix}]"
)
_LINE = "{desc}: {n_fmt}/{total_fmt} ({percentage:.0f}%), {rate_fmt}, {remaining} left{postfix}"


class Progress:
    """Progress of a loop: a tqdm bar on a terminal or in a notebook, else plain lines.

    The lines, one every few seconds, are for logs that are files. Rate and time left are averages
    over all updates so far; after the first twelve, over those after the first two.

    Args:
        total: steps of the loop.
        description: name of the loop, such as `epoch 3/300`.
        stream: output stream; None for stderr.
        initial: steps done before, when a run resumes within an epoch.
        seconds_between_lines: shortest time between two plain lines.
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
        self._seconds_between_lines = seconds_between_lines
        self._enabled = enabled
        self._bar = _make_bar(total, description, self._stream, initial) if enabled else None
        self._done = initial
        self._num_updates = 0
        self._line_time = time.time()
        # Time and number of steps from which the rate is measured.
        self._rate_start = self._warm_up_end = (self._line_time, initial)
        self._shown: dict[str, Any] = {}
        self._last_line = ""

    def update(self, n: int = 1, **shown: Any) -> None:
        """Count steps, and show them if it is time to.

        Args:
            n: steps done since the last call.
            **shown: values shown after the rate, such as `loss=0.123`; kept until replaced.
        """
        if not self._enabled:
            return
        self._done += n
        self._shown.update(shown)
        self._leave_out_warm_up()
        if self._bar is not None:
            self._bar.set_postfix_str(self._postfix(), refresh=False)
            self._bar.update(n)
        elif time.time() - self._line_time >= self._seconds_between_lines:
            self._line_time = time.time()
            self._write_line()

    def close(self) -> None:
        """Show the last state and end the line."""
        if self._bar is not None:
            self._bar.close()
        elif self._enabled:
            self._write_line()

    def _leave_out_warm_up(self) -> None:
        self._num_updates += 1
        if self._num_updates == _NUM_WARM_UP:
            self._warm_up_end = (time.time(), self._done)
        elif self._num_updates == _NUM_WARM_UP + _NUM_AFTER:
            self._rate_start = self._warm_up_end
            if self._bar is not None:
                self._bar.start_t, self._bar.initial = self._rate_start
                # tqdm's close() draws nothing if the last drawing was before `start_t`.
                self._bar.last_print_t = max(self._bar.last_print_t, self._bar.start_t)

    def _write_line(self) -> None:
        from tqdm import tqdm

        begin, before = self._rate_start
        line = tqdm.format_meter(
            self._done,
            self._total,
            time.time() - begin,
            prefix=self._description,
            bar_format=_LINE,
            postfix=self._postfix(),
            initial=before,
        )
        if line != self._last_line:
            self._stream.write(line + "\n")
            self._stream.flush()
        self._last_line = line

    def _postfix(self) -> str:
        return ", ".join(f"{name}={_short(value)}" for name, value in self._shown.items())


def _make_bar(total: int, description: str, stream: TextIO, initial: int) -> Any:
    """A tqdm bar, or None where the stream is neither a terminal nor a notebook's output."""
    from tqdm import auto, autonotebook, std  # on use: `auto` imports asyncio

    in_notebook = autonotebook.tqdm is not std.tqdm and stream in (sys.stdout, sys.stderr)
    if not in_notebook and not stream.isatty():
        return None
    # Not `dynamic_ncols`, which draws nothing on terminals that report a width of 0.
    columns, lines = shutil.get_terminal_size()
    size = {} if in_notebook else {"ncols": columns - 1, "nrows": lines}
    return auto.tqdm(
        total=total,
        desc=description,
        file=stream,
        initial=initial,
        bar_format=_BAR,
        mininterval=0.2,
        miniters=1,
        smoothing=0,  # the average since `start_t`, which leaves the warm-up out
        **size,
    )


def format_duration(seconds: float) -> str:
    """Seconds as `m:ss`, `h:mm:ss` or `d days h:mm:ss`."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} day{'s' if days > 1 else ''} {hours}:{minutes:02d}:{rest:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Throughput:
    """Measures clips per second and the share of time spent waiting for data.

    `with throughput.waiting(): batch = next(batches)`, then `throughput.count(len(batch))`.
    """

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._num_clips = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        before = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - before

    def count(self, num_clips: int) -> None:
        """Count processed clips."""
        self._num_clips += num_clips

    def take(self) -> dict[str, float]:
        """`seconds`, `clips_per_second` and `data_wait` (0 to 1) since the last call."""
        now = time.perf_counter()
        seconds = max(now - self._start, 1e-9)
        measured = {
            "seconds": seconds,
            "clips_per_second": self._num_clips / seconds,
            "data_wait": min(self._waited / seconds, 1.0),
        }
        self._start, self._waited, self._num_clips = now, 0.0, 0
        return measured
