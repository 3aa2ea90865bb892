"""Figures of the features during a pre-training, whose loss does not show what was learned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slowfast_maskfeat.engine.stop_signals import StopSignals


@dataclass(kw_only=True)
class Monitor:
    """Measurement of the features every `period` epochs, and of the best epoch so far.

    A training begins with one of its first weights, at epoch 0: the baseline of the others, which
    is never the best.

    Attributes:
        measure: returns the figures of the current weights, equal in all processes; raises
            StoppedError after a signal.
        figures: names of the figures among the results, for the log.
        period: epochs between measurements.
        is_owed: the one of the first or restored weights is still to be made.
        best_figure: figure whose largest value marks the checkpoint to keep; empty: none is kept.
        best_value: the largest value so far.
    """

    measure: Callable[[StopSignals], dict[str, Any]]
    figures: Sequence[str]
    period: int
    is_owed: bool = False
    best_figure: str = ""
    best_value: float = field(default=-math.inf)

    def is_due(self, epoch: int, max_epoch: int) -> bool:
        """Return whether a measurement is due after so many epochs; the last one always is."""
        return epoch == max_epoch or epoch % self.period == 0

    def new_best(self, results: Mapping[str, Any], epoch: int) -> dict[str, Any] | None:
        """Return the figure and its value if it exceeds those of all earlier epochs, else None."""
        value = results.get(self.best_figure)
        if not epoch or not isinstance(value, float) or not value > self.best_value:
            return None
        self.best_value = value
        return {"figure": self.best_figure, "value": value}
