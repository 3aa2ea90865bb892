"""The best validation of a training so far, and when it was too long ago."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LOSS = "loss"


@dataclass(kw_only=True)
class BestValidation:
    """Best value of a figure of the validations, for a checkpoint to keep and for early stopping.

    Attributes:
        figure: name among the results of a validation; the lowest loss is the best, and the highest
            value of every other figure.
        patience: validations without progress after which training stops; 0: it never does.
        min_change: progress is a value that is better by more than this than the last progress.
        is_kept: the checkpoint of the best value is kept.
        value: the best so far; None before the first.
        epoch: of the best value.
        reference: value of the last progress.
        num_without_progress: validations since then.
        last_epoch: epoch of the last validation that was added; -1 for none.
    """

    figure: str
    patience: int = 0
    min_change: float = 0.0
    is_kept: bool = False
    value: float | None = None
    epoch: int = 0
    reference: float | None = None
    num_without_progress: int = 0
    last_epoch: int = -1

    @property
    def should_stop(self) -> bool:
        """Whether the last `patience` validations brought no progress."""
        return 0 < self.patience <= self.num_without_progress

    @property
    def record(self) -> dict[str, Any]:
        """Figure and value, for the checkpoint of the best value."""
        return {"figure": self.figure, "value": self.value}

    def add(self, value: Any, epoch: int) -> bool:
        """Add the figure of a validation; one that is not finite is worse than any other.

        Args:
            value: of `figure`, the same in all processes.
            epoch: number of finished epochs.

        Returns:
            Whether it is the best so far.
        """
        self.last_epoch = epoch
        if self._exceeds(value, self.reference, self.min_change):
            self.reference, self.num_without_progress = value, 0
        else:
            self.num_without_progress += 1
        if not self.is_best(value):
            return False
        self.value, self.epoch = value, epoch
        return True

    def is_best(self, value: Any) -> bool:
        """Return whether the figure of a validation is better than the best so far."""
        return self._exceeds(value, self.value, 0.0)

    def _exceeds(self, value: Any, other: float | None, change: float) -> bool:
        if not (isinstance(value, float) and math.isfinite(value)):
            return False
        if other is None:
            return True
        return other - value > change if self.figure == _LOSS else value - other > change

    def summary(self, epoch: int) -> str:
        """Describe in one line why training stopped after so many epochs."""
        best = "no value of it is finite"
        if self.value is not None:
            best = f"the best is {self.value:.4f} after epoch {self.epoch}"
        return (
            f"stopped early after epoch {epoch}: no progress of {self.figure} in "
            f"{self.num_without_progress} validations (TRAIN.STOP_AFTER); {best}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {
            "figure": self.figure,
            "value": self.value,
            "epoch": self.epoch,
            "reference": self.reference,
            "num_without_progress": self.num_without_progress,
            "last_epoch": self.last_epoch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of `state_dict`.

        Raises:
            ValueError: it is the state of another figure, or of something else.
        """
        kinds = {
            "value": (float, type(None)),
            "reference": (float, type(None)),
            **dict.fromkeys(("epoch", "num_without_progress", "last_epoch"), (int,)),
        }
        fits = all(type(state.get(name, "")) in accepted for name, accepted in kinds.items())
        if state.get("figure") != self.figure or not fits:
            raise ValueError(
                f"the validations in the checkpoint must be of {self.figure!r}, got "
                f"{state.get('figure')!r}; resume with the loss that it was saved with, or with "
                "TRAIN.STOP_AFTER 0 and without TRAIN.KEEP_BEST"
            )
        for name in kinds:
            setattr(self, name, state[name])
