"""Tables of `benchmark.py`: things that take turns, their times and the ratios of these."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import torch


@dataclass
class Row:
    """One measured thing.

    Attributes:
        name: what it is.
        unit: "s" or "MiB".
        values: one per repeat; wall-clock time if seconds.
        cpu: CPU seconds of this process, all threads, one per repeat; empty where they tell
            nothing.
        per: by how many clips the values are shared out, for a rate; 0 for none.
    """

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    per: int = 0


@dataclass
class Table:
    """Rows that are compared with the last of them.

    Attributes:
        section: which of `SECTIONS`.
        title: what is measured.
        rows: the last is what the others are held against.
    """

    section: str
    title: str
    rows: list[Row]

    def ratios(self, row: Row) -> dict[str, float]:
        """How many times as much the last row takes.

        Returns:
            "ratio": median over the rounds of the ratio within a round; "of_minima": of the
            smallest values; "of_cpu_time": as "ratio", where CPU time was taken.
        """
        last = self.rows[-1]
        ratios = {
            "ratio": _median_ratio(last.values, row.values),
            "of_minima": min(last.values) / min(row.values),
        }
        if row.cpu and last.cpu:
            ratios["of_cpu_time"] = _median_ratio(last.cpu, row.cpu)
        return ratios


def _median_ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, others, strict=True))


def take_turns(
    forms: dict[str, Callable[[int], object]], repeats: int, device: torch.device
) -> dict[str, Row]:
    """Times functions in turns, after one untimed round.

    Args:
        forms: each takes the number of the round, from 0.
        repeats: timed rounds; every other one goes backwards.
        device: waited for before the clock is read.

    Returns:
        A row of seconds for each.
    """
    rows = {name: Row(name, "s") for name in forms}
    for number in range(repeats + 1):
        for name in list(forms)[:: -1 if number % 2 else 1]:
            _wait_for(device)
            wall, cpu = time.perf_counter(), time.process_time()
            forms[name](number)
            _wait_for(device)
            if number:
                rows[name].values.append(time.perf_counter() - wall)
                rows[name].cpu.append(time.process_time() - cpu)
    return rows


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def describe_machine() -> dict[str, str]:
    """Device, versions, threads, load and date."""
    return {
        "date": datetime.date.today().isoformat(),
        "CPU": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "load average": f"{os.getloadavg()[0]:.2f}",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def print_table(table: Table) -> None:
    """One line a row: the times or megabytes, and the last row's over this one's."""
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


def as_json(machine: dict[str, str], tables: Sequence[Table]) -> str:
    """Everything that was measured, every repeat."""
    content = [
        {**asdict(table), "ratios": {row.name: table.ratios(row) for row in table.rows[:-1]}}
        for table in tables
    ]
    return json.dumps({"machine": machine, "tables": content}, indent=2)
