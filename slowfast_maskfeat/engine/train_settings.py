"""Length, periods and limits of a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Length, periods and limits of a training.

    Attributes:
        max_epoch: number of epochs.
        learning_rate: fractional epoch -> learning rate.
        weight_decay: progress of the training in [0, 1) -> weight decay of the parameters that have
            one; None: as the optimizer was built.
        accumulation_steps: number of micro-batches per batch.
        precision: of autocast; None for float32.
        log_period: steps between log events; the device is read only then.
        eval_period: epochs between validations.
        checkpoint_period: epochs between checkpoints.
        checkpoint_step_period: steps of the run between checkpoints; 0 for none.
        keep_checkpoints: number of checkpoints to keep; 0 keeps all.
        max_nonfinite: steps in a row with a loss that is not finite before the run stops.
        folder: of the checkpoints.
        prefix: of the names of the checkpoints.
        shown: names of the scalars that are printed with the loss.
    """

    max_epoch: int
    learning_rate: Callable[[float], float]
    weight_decay: Callable[[float], float] | None = None
    accumulation_steps: int = 1
    precision: torch.dtype | None = None
    log_period: int = 10
    eval_period: int = 10
    checkpoint_period: int = 10
    checkpoint_step_period: int = 0
    keep_checkpoints: int = 0
    max_nonfinite: int = 3
    folder: Path
    prefix: str = ""
    shown: Sequence[str] = ()

    def validates(self, epoch: int) -> bool:
        """Return whether a validation is due after so many epochs."""
        return epoch == self.max_epoch or is_due(epoch, self.eval_period)


def is_due(count: int, period: int) -> bool:
    """Return whether `count` is a multiple of the period; never for the period 0."""
    return period > 0 and count % period == 0
