"""Sections of `gpu_report.py`, in the order in which it measures them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from gpu_loading import ROWS as LOADING_ROWS
from gpu_loading import measure_loading
from gpu_operators import ROWS as OPERATOR_ROWS
from gpu_operators import measure_operators
from gpu_records import COMPILED, COMPILED_KERNELS, EAGER, KERNELS, PLAIN, Record
from gpu_settings import FINETUNING, IBOT, MAE, L, S, Setting, Training
from gpu_steps import measure_steps


@dataclass(frozen=True)
class Section:
    """Measurements that a process of their own makes.

    Attributes:
        rows: (row, form) of the records, in their order.
        measure: yields the records.
    """

    rows: Sequence[tuple[str, str]]
    measure: Callable[[Setting], Iterator[Record]]


def _section(training: Training, *forms: str) -> Section:
    rows = [(training.name, form) for form in forms]
    return Section(rows, partial(measure_steps, training, forms))


SECTIONS: dict[str, Section] = {
    "s": _section(S, EAGER, PLAIN, KERNELS),
    "operators": Section(OPERATOR_ROWS, measure_operators),
    "loading": Section(LOADING_ROWS, measure_loading),
    "mae": _section(MAE, EAGER, PLAIN),
    "finetuning": _section(FINETUNING, EAGER, PLAIN, KERNELS),
    "l": _section(L, EAGER, PLAIN, KERNELS),
    "ibot": _section(IBOT, EAGER, PLAIN),
    "s-compiled": _section(S, COMPILED, COMPILED_KERNELS),
    "mae-compiled": _section(MAE, COMPILED),
    "finetuning-compiled": _section(FINETUNING, COMPILED),
    "ibot-compiled": _section(IBOT, COMPILED),
    "l-compiled": _section(L, COMPILED),
}
"""By name, the most important ones first: time may not suffice for all."""
