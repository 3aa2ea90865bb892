"""Tables of `benchmark.py`: times of functions that run in turns, and their ratios."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch

PHASES = ("input", "forward", "target and loss", "backward", "optimizer")
"""Parts of a step in `Counts`, in their order."""


@dataclass
class Row:
    """One measured variant.

    Attributes:
        name: name of the variant.
        unit: "s" or "MiB".
        values: one per repeat; wall-clock time for "s".
        cpu: CPU seconds of this process, all threads, one per repeat; empty if not meaningful.
        per: number of clips that a value covers, for a rate; 0 for no rate.
    """

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    per: int = 0


@dataclass
class Table:
    """Rows that are compared with the last one.

    Attributes:
        section: one of `SECTIONS`.
        title: measured quantity and its setting.
        rows: measured variants, the baseline last.
        is_cost: ratios are of a row to the last one, not of the last one to a row.
    """

    section: str
    title: str
    rows: list[Row]
    is_cost: bool = False

    def ratios(self, row: Row) -> dict[str, float]:
        """Ratios of the last row to a row, or the reverse if `is_cost`.

        Returns:
            "ratio": median over the rounds of the ratio within a round; "of_minima": ratio of the
            smallest values; "of_cpu_time": as "ratio" for CPU time, if it was measured.
        """
        over, under = (row, self.rows[-1]) if self.is_cost else (self.rows[-1], row)
        ratios = {
            "ratio": _median_ratio(over.values, under.values),
            "of_minima": min(over.values) / min(under.values),
        }
        if over.cpu and under.cpu:
            ratios["of_cpu_time"] = _median_ratio(over.cpu, under.cpu)
        return ratios


def _median_ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, others, strict=True))


def take_turns(
    forms: dict[str, Callable[[int], object]], repeats: int, device: torch.device
) -> dict[str, Row]:
    """Time functions in turns, after one untimed round.

    Args:
        forms: name -> function of the round number, counted from 0.
        repeats: number of timed rounds; every other one runs in reverse order.
        device: device that is synchronized before the clock is read.

    Returns:
        Name -> row of seconds.
    """
    rows = {name: Row(name, "s") for name in forms}
    for number in range(repeats + 1):
        for name in list(forms)[:: -1 if number % 2 else 1]:
            _synchronize(device)
            wall, cpu = time.perf_counter(), time.process_time()
            forms[name](number)
            _synchronize(device)
            if number:
                rows[name].values.append(time.perf_counter() - wall)
                rows[name].cpu.append(time.process_time() - cpu)
    return rows


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def describe_machine() -> dict[str, str]:
    """Date, devices, threads, load and versions."""
    return {
        "date": datetime.date.today().isoformat(),
        "CPU": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "load average": f"{os.getloadavg()[0]:.2f}",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def print_table(table: Table) -> None:
    """Print one line per row: times or memory, and the ratios of the last row to this one."""
    print(f"\n{table.title}")
    rate = any(row.per for row in table.rows)
    heads = ("median", "minimum", "CPU time", "clips/s" if rate else "", "ratio", "of minima")
    print(f"  {'':<28}" + "".join(f"{head:>12}" for head in (*heads, "of CPU time")))
    for row in table.rows:
        median = statistics.median(row.values)
        cells = [_amount(median, row.unit), _amount(min(row.values), row.unit)]
        cells.append(_amount(statistics.median(row.cpu), row.unit) if row.cpu else "")
        cells.append(f"{row.per / median:.1f}" if row.per else "")
        ratios = table.ratios(row) if row is not table.rows[-1] else {}
        for name in ("ratio", "of_minima", "of_cpu_time"):
            cells.append(f"x {ratios[name]:.2f}" if name in ratios else "")
        print(f"  {row.name:<28}" + "".join(f"{cell:>12}" for cell in cells))


def _amount(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"
    return f"{value:.0f} {unit}"


@dataclass
class Count:
    """Operators of one kind.

    Attributes:
        launches: operators that start a kernel; one over many tensors counts once.
        num_bytes: inputs that are read plus outputs that are written. Views are free, a value that
            is repeated by `expand` is read once, and of a selection what is selected is read.
    """

    launches: int = 0
    num_bytes: int = 0


Counts = Mapping[str, Mapping[str, Count]]
"""By phase of the step and kind of operator."""


def total(counts: Mapping[str, Count]) -> Count:
    """Sum over the kinds of operators."""
    return Count(
        sum(count.launches for count in counts.values()),
        sum(count.num_bytes for count in counts.values()),
    )


def print_counts(title: str, counts: Counts, num_clips: int) -> None:
    """Print launches of a step, and megabytes for each clip, by phase and kind of operator."""
    print(f"\n{title}")
    print(f"  {'':<34}{'launches':>12}{'MB/clip':>12}{'share':>12}")
    for phase in (phase for phase in PHASES if phase in counts):
        everything = total(counts[phase])
        kinds = sorted(counts[phase].items(), key=lambda item: -item[1].num_bytes)
        for name, count in ((phase, everything), *kinds):
            name = name if count is everything else f"  {name}"
            megabytes = count.num_bytes / num_clips / 1e6
            share = count.num_bytes / max(everything.num_bytes, 1)
            print(f"  {name:<34}{count.launches:>12}{megabytes:>12.1f}{share:>12.1%}")


def as_json(machine: dict[str, str], tables: Sequence[Table], traffic: Counts) -> str:
    """Machine, all measured values, including every repeat, and all counts, as JSON."""
    content = [
        {**asdict(table), "ratios": {row.name: table.ratios(row) for row in table.rows[:-1]}}
        for table in tables
    ]
    counts = {
        phase: {kind: asdict(count) for kind, count in kinds.items()}
        for phase, kinds in traffic.items()
    }
    return json.dumps({"machine": machine, "tables": content, "traffic": counts}, indent=2)
