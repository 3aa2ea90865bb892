"""Features that stay on the disk until they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class FeatureRows:
    """Rows of several arrays, which are as a rule memory-mapped files, as if they were one tensor.

    What is asked for is copied into memory, and nothing else: `rows[i]` of int64 (B,) or of a slice
    is a tensor (B, ...). Asking is all there is; nothing here can be written to. Of mapped files
    the system may keep what was read, and count it to the process, until it needs the room.

    Args:
        parts: arrays (n, ...) that differ in n alone; at least one.
        part: (N,) which of them each row is in.
        place: (N,) int64, where in it.
    """

    def __init__(
        self,
        parts: Sequence[NDArray[np.generic]],
        part: NDArray[np.integer],
        place: NDArray[np.int64],
    ) -> None:
        assert len(parts)
        assert len(part) == len(place)
        self._parts = tuple(parts)
        self._part = part
        self._place = place

    def __len__(self) -> int:
        return len(self._place)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...), as of a tensor."""
        return (len(self), *self._parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the arrays."""
        return self._parts[0].dtype

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        chosen = rows if isinstance(rows, slice) else rows.numpy()
        part, place = self._part[chosen], self._place[chosen]
        found = np.empty((len(place), *self.shape[1:]), self.dtype)
        for number in np.unique(part):
            here = part == number
            found[here] = self._parts[number][place[here]]
        return torch.from_numpy(found)

    def select(self, rows: Tensor) -> FeatureRows:
        """Those of int64 (B,) alone; they stay where they are."""
        chosen = rows.numpy()
        return FeatureRows(self._parts, self._part[chosen], self._place[chosen])
