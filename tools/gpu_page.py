"""The page and the JSON file that `gpu_report.py` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from gpu_records import (
    B_IBOT,
    EAGER,
    GOALS,
    KERNELS,
    LOADING,
    OPERATORS,
    PLAIN,
    STEPS,
    Goal,
    Record,
    memory_of_a_clip,
    plain_of,
)

NOT_MEASURED = "not yet measured"
_INTRODUCTION = """\
# Benchmarks on a GPU

This page, and the file of all figures beside it, are written by a command that
[benchmarks](benchmarks.md#on-a-gpu) describes:

```sh
make gpu-report
```
"""


@dataclass(frozen=True)
class Tests:
    """Outcome of the tests that need a GPU.

    Attributes:
        num_passed: tests that passed.
        num_skipped: tests that were skipped.
        failed: names of those that failed.
        seconds: how long they took.
        error: reason why there is no outcome; empty for none.
    """

    num_passed: int = 0
    num_skipped: int = 0
    failed: tuple[str, ...] = ()
    seconds: float = 0.0
    error: str = ""

    @property
    def is_good(self) -> bool:
        """Whether none failed."""
        return not (self.failed or self.error)

    def __str__(self) -> str:
        if self.error:
            return self.error
        text = f"{self.num_passed} passed, {len(self.failed)} failed, {self.num_skipped} skipped"
        return f"{text} in {self.seconds:.0f} s"


@dataclass
class Report:
    """Everything that was found.

    Attributes:
        machine: device, driver, versions, date.
        tests: outcome of the tests; None: they were not run.
        records: measured rows.
        left_out: (row, form) of what was not measured -> the reason.
        quick: tiny sizes, whose numbers mean nothing.
    """

    machine: Mapping[str, str]
    tests: Tests | None = None
    records: list[Record] = field(default_factory=list)
    left_out: dict[tuple[str, str], str] = field(default_factory=dict)
    quick: bool = False


def as_json(report: Report) -> str:
    """All figures, and the goals with what was reached."""
    goals = [
        {"goal": goal.text, "limit": goal.limit, "measured": goal.find(report.records)}
        for goal in GOALS
    ]
    left_out = [[*place, reason] for place, reason in report.left_out.items()]
    content = {**asdict(report), "left_out": left_out, "goals": goals}
    return json.dumps(content, indent=2) + "\n"


def page(report: Report | None) -> str:
    """The page as Markdown.

    Args:
        report: what was measured; None: nothing yet.
    """
    if report is None:
        return "\n".join([_INTRODUCTION, f"Measurements: {NOT_MEASURED}.\n", *_goals([])]) + "\n"
    parts = [_INTRODUCTION]
    if report.quick:
        parts.append("**Tiny sizes, as a smoke test: the numbers mean nothing.**\n")
    parts += [*_machine(report), *_goals(report.records), *_left_out(report)]
    parts += [*_steps(report.records), *_operators(report.records), *_loading(report.records)]
    return "\n".join(parts) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines] + [""]


def _machine(report: Report) -> list[str]:
    rows = [[name, value] for name, value in report.machine.items()]
    tests = "not run" if report.tests is None else str(report.tests)
    lines = ["## Machine\n", *_table(["", ""], [*rows, ["tests that need a GPU", tests]])]
    failed = report.tests.failed if report.tests is not None else ()
    return [*lines, *(f"- failed: `{name}`" for name in failed), *([""] if failed else [])]


def _goals(records: Sequence[Record]) -> list[str]:
    rows = [[goal.text, _limit(goal), *_outcome(goal, goal.find(records))] for goal in GOALS]
    heads = ["fastest form", "goal", "measured", ""]
    about = "Set for one H100 in bfloat16, loading with 16 cores.\n"
    return ["## Goals\n", about, *_table(heads, rows)]


def _limit(goal: Goal) -> str:
    return f"{'at least' if goal.at_least else 'at most'} {goal.show(goal.limit)}"


def _outcome(goal: Goal, value: float | None) -> tuple[str, str]:
    if value is None:
        return NOT_MEASURED, ""
    return goal.show(value), "reached" if goal.is_reached(value) else "**below the goal**"


def _left_out(report: Report) -> list[str]:
    forms: dict[str, dict[str, list[str]]] = {}  # by reason and row
    for record in report.records:
        if record.error:
            form = f"{record.form} ({record.setting})" if record.setting else record.form
            forms.setdefault(record.error, {}).setdefault(record.row, []).append(form)
    for (row, form), reason in report.left_out.items():
        forms.setdefault(reason, {}).setdefault(row, []).append(form)
    if not forms:
        return ["Nothing was left out.\n"]
    lines = ["## Left out\n"]
    for reason, rows in forms.items():
        lines += [f"{_cell(reason[:1].upper() + reason[1:])}:", ""]
        lines += [*(f"- {row}: {'; '.join(names)}" for row, names in rows.items()), ""]
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _number(value: float | None, shape: str = ".1f", scale: float = 1.0, unit: str = "") -> str:
    return "" if value is None else f"{value * scale:{shape}}{unit}"


def _milliseconds(value: float | None) -> str:
    return _number(value, ".3g" if value is not None and value < 0.1 else ".0f", 1e3, " ms")


def _steps(records: Sequence[Record]) -> list[str]:
    ours = [record for record in records if record.table == STEPS]
    if not ours:
        return []
    trainings = list(dict.fromkeys(record.row for record in ours))
    ours.sort(key=lambda record: trainings.index(record.row))  # compiled forms come much later
    heads = ["training", "form", "setting", "step", "clips/s", "of plain", "TFLOP/s"]
    heads += ["of the matrix rate", "peak memory", "of plain, a clip", "HOG", "first step"]
    rows = []
    for record in ours:
        start = [record.row, record.form, record.setting]
        if record.error:
            rows.append([*start, _cell(record.error), *[""] * (len(heads) - 4)])
            continue
        values, speed, memory = record.values, *_of_plain(record, ours)
        rows.append(
            [
                *start,
                _milliseconds(values["seconds"]),
                _number(values["clips_per_second"], ".4g"),
                _number(speed, ".2f", unit=" x"),
                _number(values.get("tflops")),
                _number(values.get("mfu"), ".1f", 100, " %"),
                _number(values.get("memory_gib"), ".1f", unit=" GiB"),
                _number(memory, ".0f", 100, " %"),
                _number(values.get("hog_share"), ".2f", 100, " %"),
                _number(values["first_seconds"], ".1f", unit=" s"),
            ]
        )
    rates = [r.values["matrix_tflops"] for r in ours if r.values]
    rate = f" Large matrix products: {max(rates):.0f} TFLOP/s." if rates else ""
    about = (
        "A step is copying, normalization, forward, target, loss, backward, clipping and AdamW, on "
        "random clips, without loading. *kernels* is MODEL.KERNELS triton, *compiled* is "
        "TRAIN.COMPILE, whose first step compiles. *plain* is the form of PySlowFast: the matrix "
        "of attention scores in memory, relative positions added to it, textbook HOG, a cast for "
        "each weight, torch's depthwise convolution. TFLOP/s count the multiply-adds of the model, "
        f"forward and backward; of {B_IBOT}, whose views differ in size, they are not "
        f"counted.{rate}\n"
    )
    return ["## Steps\n", about, *_table(heads, rows)]


def _of_plain(record: Record, records: Sequence[Record]) -> tuple[float | None, float | None]:
    """Clips per second, and memory of a clip, of a record divided by those of the plain form."""
    plain = plain_of(records, record.row)
    if plain is None or record.form == PLAIN:
        return None, None
    ours, theirs = memory_of_a_clip(record), memory_of_a_clip(plain)
    memory = None if ours is None or theirs is None else ours / theirs
    speed = record.values["clips_per_second"] / plain.values["clips_per_second"]
    return speed, memory


def _operators(records: Sequence[Record]) -> list[str]:
    ours = {(r.row, r.form): r for r in records if r.table == OPERATORS and r.values}
    if not ours:
        return []
    forms = {PLAIN: "plain", EAGER: "fast", KERNELS: "kernels"}
    heads = ["operator", "setting"]
    heads += [f"{name}{part}" for name in forms.values() for part in ("", ", memory")]
    rows = []
    for row in dict.fromkeys(row for row, _ in ours):
        found = {form: ours.get((row, form)) for form in forms}
        setting = next(record.setting for record in found.values() if record is not None)
        cells = []
        for record in found.values():
            values = {} if record is None else record.values
            cells.append(_milliseconds(values.get("seconds")))
            cells.append(_number(values.get("memory_gib"), ".2f", unit=" GiB"))
        rows.append([row, setting, *cells])
    about = "Forward and backward pass of one module of MViTv2-S; HOG has no backward pass.\n"
    return ["## Operators\n", about, *_table(heads, rows)]


def _loading(records: Sequence[Record]) -> list[str]:
    ours = [record for record in records if record.table == LOADING]
    if not ours:
        return []
    heads = ["", "form", "setting", "clips/s", "of compute alone", "data wait"]
    rows = []
    for record in ours:
        start = [record.row, record.form, record.setting]
        if record.error:
            rows.append([*start, _cell(record.error), "", ""])
            continue
        rows.append(
            [
                *start,
                _number(record.values["clips_per_second"], ".4g"),
                _number(record.values.get("of_compute"), ".0f", 100, " %"),
                _number(record.values.get("data_wait"), ".0f", 100, " %"),
            ]
        )
    about = (
        "MaskFeat with MViTv2-S, eager, from H.264 of 340x256 that was rendered for it. The "
        "end-to-end figures are those that the training command logs, without its first third.\n"
    )
    return ["## Loading\n", about, *_table(heads, rows)]
