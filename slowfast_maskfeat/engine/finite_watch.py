"""Watch for losses and gradients that are not finite."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.clips.loader import ClipLoader
from slowfast_maskfeat.engine.gradient_step import StepResult


class FiniteWatch:
    """Watch that stops a run after too many losses in a row that are not finite.

    Args:
        limit: steps in a row (TRAIN.MAX_NONFINITE).
        loader: of the training, which names the clips.
        device: of the model.
        has_scaler: gradients overflow occasionally by design, and only losses count.
    """

    def __init__(
        self, limit: int, loader: ClipLoader, device: torch.device, has_scaler: bool
    ) -> None:
        self._limit = limit
        self._videos = loader.dataset.videos
        self._has_scaler = has_scaler
        self._in_a_row = torch.zeros((), dtype=torch.int64, device=device)
        self._worst = torch.zeros_like(self._in_a_row)
        self._steps: list[tuple[Tensor | None, Tensor]] = []

    def add(self, batch: ClipBatch, result: StepResult) -> None:
        """Record a step, without waiting for the device."""
        finite = result.loss_is_finite
        if not self._has_scaler:
            finite = finite & result.gradient_is_finite
        self._in_a_row = torch.where(finite, 0, self._in_a_row + 1)
        self._worst = torch.maximum(self._worst, self._in_a_row)
        self._steps.append((batch.index, finite))
        self._steps = self._steps[-max(self._limit, 100) :]

    def check(self) -> None:
        """Check the recorded steps; this reads the device.

        Raises:
            ValueError: the limit was reached; the message names the clips of these steps.
        """
        if int(self._worst) < self._limit:
            return
        bad = [index for index, finite in self._steps if index is not None and not bool(finite)]
        rows: Sequence[int] = torch.cat(bad).unique().tolist() if bad else []
        names = ", ".join(self._videos.path(row) for row in rows[:20])
        raise ValueError(
            f"the loss or its gradient was not finite in {int(self._worst)} steps in a row "
            f"(TRAIN.MAX_NONFINITE {self._limit}); their clips: {names}"
            + (f" and {len(rows) - 20} more" if len(rows) > 20 else "")
            + "; try a lower SOLVER.BASE_LR, a longer warm-up or TRAIN.PRECISION float32"
        )
