"""Seconds that the stages of loading take, added up sample by sample."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Seconds of a worker, or of the process that loads, summed over samples.

    Attributes:
        opening: finding a file, reading its headers and the table of its frames.
        decoding: decoding frames, reading their bytes included.
        augmentation: crops, colors and the rest that follows.
        waiting: those of the first two in which the process waited for bytes of a disk or network:
            it neither computed nor waited for a free core, where the system reports that
            separately.
    """

    opening: float = 0.0
    decoding: float = 0.0
    augmentation: float = 0.0
    waiting: float = 0.0

    def __add__(self, other: StageTimes) -> StageTimes:
        """Return the sums."""
        return StageTimes(
            opening=self.opening + other.opening,
            decoding=self.decoding + other.decoding,
            augmentation=self.augmentation + other.augmentation,
            waiting=self.waiting + other.waiting,
        )

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return self.opening + self.decoding + self.augmentation
