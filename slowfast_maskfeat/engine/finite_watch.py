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
        self._videos = loader.dataset.videos
        # Of losses, and of losses or gradients: steps in a row that were not finite.
        self._limits = (limit, max(limit, _MAX_OVERFLOWS) if has_scaler else limit)
        self._in_a_row = torch.zeros(2, dtype=torch.int64, device=device)
        self._worst = torch.zeros_like(self._in_a_row)
        self._steps: list[tuple[Tensor | None, Tensor]] = []

    def add(self, batch: ClipBatch, result: StepResult) -> None:
        """Record a step, without waiting for the device."""
        gradient_is_finite = result.loss_is_finite & result.gradient_is_finite
        finite = torch.stack([result.loss_is_finite, gradient_is_finite])
        self._in_a_row = torch.where(finite, 0, self._in_a_row + 1)
        self._worst = torch.maximum(self._worst, self._in_a_row)
        self._steps.append((batch.index, finite))
        self._steps = self._steps[-max(self._limits) :]

    def check(self) -> None:
        """Check the recorded steps; this reads the device.

        Raises:
            ValueError: a limit was reached; the message names the clips of these steps.
        """
        losses, all_steps = self._worst.tolist()
        if losses >= self._limits[0]:
            raise ValueError(self._message("the loss", 0, losses))
        if all_steps >= self._limits[1]:
            raise ValueError(self._message("the loss or its gradient", 1, all_steps))

    def _message(self, what: str, kind: int, number: int) -> str:
        bad = [i for i, finite in self._steps if i is not None and not bool(finite[kind])]
        rows: Sequence[int] = torch.cat(bad).unique().tolist() if bad else []
        names = ", ".join(self._videos.path(row) for row in rows[:20])
        is_key = self._limits[kind] == self._limits[0]
        limit = f"TRAIN.MAX_NONFINITE {self._limits[0]}" if is_key else "the limit of fp16"
        return (
            f"{what} was not finite in {number} steps in a row ({limit}); their clips: {names}"
            + (f" and {len(rows) - 20} more" if len(rows) > 20 else "")
            + "; try a lower SOLVER.BASE_LR, a longer warm-up or TRAIN.PRECISION float32"
        )
