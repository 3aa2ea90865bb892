"""Trackers of experiments: what a run writes for TensorBoard or Weights & Biases."""

from __future__ import annotations

from slowfast_maskfeat.trackers.base import TrackedRun, Tracker, Trackers
from slowfast_maskfeat.trackers.tensorboard import TensorBoardTracker
from slowfast_maskfeat.trackers.wandb import WandbTracker

TRACKERS: dict[str, type[Tracker]] = {
    kind.name: kind for kind in (TensorBoardTracker, WandbTracker)
}
"""The values of LOG.TRACKERS."""

__all__ = [
    "TRACKERS",
    "TensorBoardTracker",
    "TrackedRun",
    "Tracker",
    "Trackers",
    "WandbTracker",
]
