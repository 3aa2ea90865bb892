"""Lazily loaded features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class FeatureRows:
    """Read-only view of rows of several arrays, usually memory-mapped files, as one tensor.

    Only indexed rows are copied into memory: `rows[i]` for i int64 (B,) or a slice is a tensor
    (B, ...). The operating system may cache what was read from mapped files, and count it as memory
    of this process, until it needs the memory.

    Args:
        arrays: one or more arrays (n, ...) that differ only in n.
        array_index: (N,) int, index into `arrays` for each row.
        row_index: (N,) int64, index into that array for each row.
    """

    def __init__(
        self,
        arrays: Sequence[NDArray[np.generic]],
        array_index: NDArray[np.integer],
        row_index: NDArray[np.int64],
    ) -> None:
        assert len(arrays)
        assert len(array_index) == len(row_index)
        self._arrays = tuple(arrays)
        self._array_index = array_index
        self._row_index = row_index

    def __len__(self) -> int:
        return len(self._row_index)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...), as of one tensor."""
        return (len(self), *self._arrays[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Dtype of the arrays."""
        return self._arrays[0].dtype

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        chosen = rows if isinstance(rows, slice) else rows.numpy()
        array_index, row_index = self._array_index[chosen], self._row_index[chosen]
        values = np.empty((len(row_index), *self.shape[1:]), self.dtype)
        for number in np.unique(array_index):
            is_here = array_index == number
            values[is_here] = self._arrays[number][row_index[is_here]]
        return torch.from_numpy(values)

    def select(self, rows: Tensor) -> FeatureRows:
        """View of the rows int64 (B,), without copying."""
        chosen = rows.numpy()
        return FeatureRows(self._arrays, self._array_index[chosen], self._row_index[chosen])
