"""Results of an evaluation that stay on their device until several can be read at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_MAX_NUMBERS = 2**21  # 16 MiB


class ReadLater:
    """Rows of numbers on a device, which the CPU reads together.

    Each read waits for all work that is queued on the device, so that a read per chunk would leave
    the device without work while the next chunk is prepared.

    Args:
        max_numbers: how many numbers stay on the device before they are read.
    """

    def __init__(self, max_numbers: int = _MAX_NUMBERS) -> None:
        self._max_numbers = max_numbers
        self._pending: list[tuple[Callable[[Tensor], None], Tensor]] = []
        self._num_numbers = 0

    def add(self, use: Callable[[Tensor], None], *columns: Tensor) -> None:
        """Add the rows of a chunk.

        Args:
            use: called later, in the order of the calls, with the rows (R, C) float64 on the CPU.
            columns: (R,) or (R, c) each, side by side the C columns of the rows.
        """
        parts = [(x if x.ndim > 1 else x[:, None]).detach().double() for x in columns]
        rows = torch.cat(parts, dim=1)
        self._pending.append((use, rows))
        self._num_numbers += rows.numel()
        if self._num_numbers >= self._max_numbers:
            self.read()

    def read(self) -> None:
        """Read and use what is pending."""
        pending, self._pending, self._num_numbers = self._pending, [], 0
        if not pending:
            return
        rows = torch.cat([rows for _, rows in pending]).cpu()
        for (use, _), part in zip(pending, rows.split([len(x) for _, x in pending]), strict=True):
            use(part)
