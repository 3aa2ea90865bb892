"""Sums over steps that stay on the device until the log reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Meter:
    """Weighted means of what steps report, over the current log window and the epoch.

    Only `read` waits for the device.

    Args:
        names: of the terms, in the order of `add`.
        device: where they are.
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names = tuple(names)
        self._window = torch.zeros(len(self.names) + 4, dtype=torch.float64, device=device)
        self._epoch = torch.zeros_like(self._window)

    def add(self, sums: Tensor, gradient_norm: Tensor, taken: Tensor) -> None:
        """Take in one step.

        Args:
            sums: (1 + len(names),) float64: the weight, then each term times the weight.
            gradient_norm: scalar.
            taken: scalar bool; a step that was skipped is counted and enters no mean.
        """
        counts = torch.stack([gradient_norm.double(), taken.double()])
        reported = torch.where(taken, torch.cat([sums, counts]), 0.0)
        self._window[:-1] += reported
        self._window[-1] += (~taken).double()

    def read(self) -> dict[str, float]:
        """Means over the window, which starts anew: each name, gradient_norm, num_skipped."""
        self._epoch += self._window
        means = self._means(self._window)
        self._window.zero_()
        return means

    def read_epoch(self) -> dict[str, float]:
        """The same over everything since the last call."""
        self._epoch += self._window
        means = self._means(self._epoch)
        self._window.zero_()
        self._epoch.zero_()
        return means

    def _means(self, totals: Tensor) -> dict[str, float]:
        weight, *terms, norm, num_taken, num_skipped = totals.tolist()
        nothing = float("nan")
        means = {
            name: term / weight if weight else nothing
            for name, term in zip(self.names, terms, strict=True)
        }
        means["gradient_norm"] = norm / num_taken if num_taken else nothing
        means["num_skipped"] = int(num_skipped)
        return means

    def state_dict(self) -> dict[str, Any]:
        """Window and epoch as they stand."""
        return {"names": list(self.names), "window": self._window, "epoch": self._epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        assert tuple(state["names"]) == self.names
        self._window.copy_(state["window"])
        self._epoch.copy_(state["epoch"])
