"""Several class numbers for each row of a list."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelSets:
    """Any number of class numbers for each row, ascending and each once.

    Attributes:
        numbers: int64 (A,), those of all rows, concatenated.
        ends: int64 (n,), end of the numbers of each row.
    """

    numbers: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def of(self, begin: int, end: int | None = None) -> NDArray[np.int64]:
        """Class numbers of a row, or of any row in [begin, end): ascending, each once."""
        first = int(self.ends[begin - 1]) if begin else 0
        last = self.ends[(begin if end is None else end - 1)]
        found = self.numbers[first:last]
        return found if end is None else np.unique(found)

    def row_of(self, place: int) -> int:
        """Row of one of `numbers`."""
        return int(np.searchsorted(self.ends, place, side="right"))
