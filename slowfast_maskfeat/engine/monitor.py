"""Figures of the features during a pre-training, whose loss does not show what was learned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from slowfast_maskfeat.engine.stop_signals import StopSignals

MONITOR_FIGURES = ("knn", "rank", "std")
"""Values of TRAIN.MONITOR: top-1 accuracy of the nearest neighbors in percent, effective rank, and
mean standard deviation of the features."""


@dataclass(kw_only=True)
class Monitor:
    """Measurement of the features every so many epochs, and of the best epoch so far.

    Attributes:
        measure: returns the figures of the current weights, equal in all processes; raises
            StoppedError after a signal.
        period: epochs between measurements.
        is_owed: the one after the restored epoch is still to be made.
        best_figure: figure whose largest value marks the checkpoint to keep; empty: none is kept.
        best_value: the largest value so far.
    """

    measure: Callable[[StopSignals], dict[str, Any]]
    period: int
    is_owed: bool = False
    best_figure: str = ""
    best_value: float = field(default=-math.inf)

    def is_due(self, epoch: int, max_epoch: int) -> bool:
        """Return whether a measurement is due after so many epochs; the last one always is."""
        return epoch == max_epoch or epoch % self.period == 0

    def new_best(self, results: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the figure and its value if it exceeds all earlier ones, else None."""
        value = results.get(self.best_figure)
        if not isinstance(value, float) or not value > self.best_value:
            return None
        self.best_value = value
        return {"figure": self.best_figure, "value": value}
