"""Running sums over steps, kept on the device until they are logged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Meter:
    """Weighted means of the terms of steps, over the current log window and over the epoch.

    Only `read` waits for the device.

    Args:
        names: of the terms, in the order of `add`.
        device: of the terms.
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names = tuple(names)
        self._window = torch.zeros(len(self.names) + 4, dtype=torch.float64, device=device)
        self._epoch = torch.zeros_like(self._window)

    def add(self, sums: Tensor, gradient_norm: Tensor, taken: Tensor) -> None:
        """Add one step.

        Args:
            sums: (1 + len(names),) float64: the weight, then each term times the weight.
            gradient_norm: scalar.
            taken: scalar bool; a skipped step is counted, but is not part of the means.
        """
        counts = torch.stack([gradient_norm.double(), taken.double()])
        reported = torch.where(taken, torch.cat([sums, counts]), 0.0)
        self._window[:-1] += reported
        self._window[-1] += (~taken).double()

    def read(self) -> dict[str, float]:
        """Return the means over the window and reset it: each name, gradient_norm, num_skipped."""
        self._epoch += self._window
        means = self._means(self._window)
        self._window.zero_()
        return means

    def read_epoch(self) -> dict[str, float]:
        """Return the means over all steps since the last call, as `read`, and reset them."""
        self._epoch += self._window
        means = self._means(self._epoch)
        self._window.zero_()
        self._epoch.zero_()
        return means

    def _means(self, totals: Tensor) -> dict[str, float]:
        weight, *terms, norm, num_taken, num_skipped = totals.tolist()
        undefined = float("nan")
        means = {
            name: term / weight if weight else undefined
            for name, term in zip(self.names, terms, strict=True)
        }
        means["gradient_norm"] = norm / num_taken if num_taken else undefined
        means["num_skipped"] = int(num_skipped)
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of window and epoch, for a checkpoint."""
        return {"names": list(self.names), "window": self._window, "epoch": self._epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of `state_dict`.

        Raises:
            ValueError: it is the state of other terms, or of something else.
        """
        try:
            names, window, epoch = tuple(state["names"]), state["window"], state["epoch"]
            fits = names == self.names and window.shape == epoch.shape == self._window.shape
        except (KeyError, TypeError, AttributeError):
            fits = False
        if not fits:
            raise ValueError(
                f"the meter in the checkpoint must have the terms {', '.join(self.names)}; resume "
                "with the loss that it was saved with, or from a checkpoint at the end of an epoch"
            )
        self._window.copy_(window)
        self._epoch.copy_(epoch)
