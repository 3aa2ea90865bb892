"""Results of `gpu_report.py`, and the goals that they are compared with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

STEPS, OPERATORS, LOADING = "steps", "operators", "loading"
S_PRETRAINING = "MViTv2-S, MaskFeat"
L_PRETRAINING = "MViTv2-L, MaskFeat"
S_FINETUNING = "MViTv2-S, fine-tuning"
L_AUTOENCODER = "ViT-L, MAE"
B_IBOT = "ViT-B, iBOT"
EAGER, PLAIN, KERNELS, COMPILED = "eager", "plain", "kernels", "compiled"
COMPILED_KERNELS = "compiled, kernels"
END_TO_END = "training, end to end"
NUM_CORES = 16
"""Cores for which the goal of the training from end to end is set."""


@dataclass(frozen=True)
class Record:
    """One measured row.

    Attributes:
        table: STEPS, OPERATORS or LOADING.
        row: training, operator, or part of loading.
        form: form that was measured.
        setting: batch and the like, as text.
        values: by name; seconds, clips per second, TFLOP/s, fractions and GiB.
        error: reason why there are no values; empty for none.
    """

    table: str
    row: str
    form: str
    setting: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    error: str = ""

    @property
    def name(self) -> str:
        """Row and form in one text."""
        return f"{self.row}, {self.form}"

    def to_line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def of_line(line: str) -> Record:
        """Inverse of `to_line`."""
        return Record(**json.loads(line))


class Deadline:
    """Time that is left for the measurements.

    Args:
        seconds: from now on.
        clock: seconds since any moment.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Seconds until the end, at least 0."""
        return max(0.0, self._end - self._clock())

    def __str__(self) -> str:
        seconds = round(self.left())
        return f"{seconds // 60}:{seconds % 60:02d}"


@dataclass(frozen=True)
class Goal:
    """A figure to reach.

    Attributes:
        text: measured quantity.
        limit: number to reach.
        find: records -> the figure, or None if it was not measured.
        at_least: the limit is the smallest accepted number; otherwise the largest.
        unit: how it is printed: "clips/s", "%" or "x".
    """

    text: str
    limit: float
    find: Callable[[Sequence[Record]], float | None]
    at_least: bool = True
    unit: str = "clips/s"

    def is_reached(self, value: float) -> bool:
        """Whether a figure is at the limit or better."""
        return value >= self.limit if self.at_least else value <= self.limit

    def show(self, value: float) -> str:
        """The figure with its unit."""
        if self.unit == "%":
            return f"{value:.1%}".replace("%", " %")
        return f"{value:.0f} clips/s" if self.unit == "clips/s" else f"{value:.2f} x"


def find_records(
    records: Iterable[Record], row: str, forms: Sequence[str] | None = None
) -> list[Record]:
    """Records of a row that have values; of all forms but the plain one if `forms` is None."""
    return [
        record
        for record in records
        if record.row == row
        and record.values
        and (record.form != PLAIN if forms is None else record.form in forms)
    ]


def fastest(records: Sequence[Record], row: str) -> Record | None:
    """The form of a training with the most clips per second, the plain one left out."""
    found = find_records(records, row)
    return max(found, key=lambda record: record.values["clips_per_second"], default=None)


def plain_of(records: Sequence[Record], row: str) -> Record | None:
    """The plain form of a training; the largest batch that fits."""
    found = find_records(records, row, (PLAIN,))
    return max(found, key=lambda record: record.values["batch"], default=None)


def memory_of_a_clip(record: Record) -> float | None:
    """GiB of the peak divided by the batch; None where memory is not measured."""
    memory = record.values.get("memory_gib")
    return None if memory is None else memory / record.values["batch"]


def _of_fastest(row: str, name: str) -> Callable[[Sequence[Record]], float | None]:
    def find(records: Sequence[Record]) -> float | None:
        best = fastest(records, row)
        return None if best is None else best.values.get(name)

    return find


def _speed_of_plain(records: Sequence[Record]) -> float | None:
    best, plain = fastest(records, S_PRETRAINING), plain_of(records, S_PRETRAINING)
    if best is None or plain is None:
        return None
    return best.values["clips_per_second"] / plain.values["clips_per_second"]


def _memory_of_plain(records: Sequence[Record]) -> float | None:
    best, plain = fastest(records, S_PRETRAINING), plain_of(records, S_PRETRAINING)
    if best is None or plain is None:
        return None
    ours, theirs = memory_of_a_clip(best), memory_of_a_clip(plain)
    return None if ours is None or theirs is None else ours / theirs


def _hog_share(records: Sequence[Record]) -> float | None:
    shares = [r.values.get("hog_share") for r in find_records(records, S_PRETRAINING)]
    return min((share for share in shares if share is not None), default=None)


def _share_of_compute(records: Sequence[Record]) -> float | None:
    shares = [
        record.values["of_compute"]
        for record in find_records(records, END_TO_END)
        if record.values["clips_per_video"] > 1
    ]
    return max(shares, default=None)


GOALS = (
    Goal(f"{S_PRETRAINING}: speed", 380, _of_fastest(S_PRETRAINING, "clips_per_second")),
    Goal(f"{S_PRETRAINING}: of the matrix rate", 0.2, _of_fastest(S_PRETRAINING, "mfu"), unit="%"),
    Goal(f"{L_AUTOENCODER}: speed", 606, _of_fastest(L_AUTOENCODER, "clips_per_second")),
    Goal(f"{L_AUTOENCODER}: of the matrix rate", 0.3, _of_fastest(L_AUTOENCODER, "mfu"), unit="%"),
    Goal(f"{S_PRETRAINING}: speed, of the plain form's", 3, _speed_of_plain, unit="x"),
    Goal(
        f"{S_PRETRAINING}: memory of a clip, of the plain form's",
        1 / 3,
        _memory_of_plain,
        at_least=False,
        unit="%",
    ),
    Goal(f"{S_PRETRAINING}: HOG's share of a step", 0.01, _hog_share, at_least=False, unit="%"),
    Goal(
        f"{S_PRETRAINING}: training from end to end, several clips of a video, of compute alone",
        0.9,
        _share_of_compute,
        unit="%",
    ),
)
"""Set for an H100 in bfloat16, with 16 cores for loading."""
