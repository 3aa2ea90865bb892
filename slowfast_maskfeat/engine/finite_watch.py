"""Watch for losses and gradients that are not finite."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.clips.loader import ClipLoader
from slowfast_maskfeat.engine.gradient_step import StepResult

# Gradients in a row that overflow in half precision. A scale of 65,536 that is halved as often is
# far below all useful ones.
_MAX_OVERFLOWS = 100


class FiniteWatch:
    """Watch that stops a run after too many losses in a row that are not finite.

    Args:
        limit: steps in a row (TRAIN.MAX_NONFINITE).
        loader: of the training, which names the clips.
        device: of the model.
        has_scaler: gradients overflow by design until the scale has adapted, so that many more in
            a row are allowed than losses.
    """

    def __init__(
        self, limit: int, loader: ClipLoader, device: torch.device, has_scaler: bool
    ) -> None:
        self._limit = limit
        self._videos = loader.dataset.videos
        gradients = max(limit, _MAX_OVERFLOWS) if has_scaler else limit
        self._limits = torch.tensor([limit, gradients], device=device)
        self._in_a_row = torch.zeros(2, dtype=torch.int64, device=device)
        self._worst = torch.zeros_like(self._in_a_row)
        self._steps: list[tuple[Tensor | None, Tensor]] = []

    def add(self, batch: ClipBatch, result: StepResult) -> None:
        """Record a step, without waiting for the device."""
        finite = result.loss_is_finite & result.gradient_is_finite
        each = torch.stack([result.loss_is_finite, finite])
        self._in_a_row = torch.where(each, 0, self._in_a_row + 1)
        self._worst = torch.maximum(self._worst, self._in_a_row)
        self._steps.append((batch.index, finite))
        self._steps = self._steps[-max(self._limit, _MAX_OVERFLOWS) :]

    def check(self) -> None:
        """Check the recorded steps; this reads the device.

        Raises:
            ValueError: the limit was reached; the message names the clips of these steps.
        """
        if not bool((self._worst >= self._limits).any()):
            return
        bad = [index for index, finite in self._steps if index is not None and not bool(finite)]
        rows: Sequence[int] = torch.cat(bad).unique().tolist() if bad else []
        names = ", ".join(self._videos.path(row) for row in rows[:20])
        raise ValueError(
            f"the loss or its gradient was not finite in {int(self._worst.max())} steps in a row "
            f"(TRAIN.MAX_NONFINITE {self._limit}); their clips: {names}"
            + (f" and {len(rows) - 20} more" if len(rows) > 20 else "")
            + "; try a lower SOLVER.BASE_LR, a longer warm-up or TRAIN.PRECISION float32"
        )
