"""Trackers of a run, by LOG.TRACKERS."""

from __future__ import annotations

from pathlib import Path

from fvcore.common.config import CfgNode

from slowfast_maskfeat.checkpoints import checkpoint_folder, find_checkpoints
from slowfast_maskfeat.config.defaults import flatten
from slowfast_maskfeat.engine.coordination import from_main
from slowfast_maskfeat.trackers import TRACKERS, TrackedRun, Trackers


def tracker_names(cfg: CfgNode) -> list[str]:
    """Return the trackers of LOG.TRACKERS, each once; TENSORBOARD.ENABLE means tensorboard."""
    published = ["tensorboard"] if cfg.TENSORBOARD.ENABLE else []
    return list(dict.fromkeys([*published, *cfg.LOG.TRACKERS]))


def check_trackers(cfg: CfgNode) -> None:
    """Check that the trackers are installed; all processes must call it, the main one looks.

    Raises:
        ValueError: one is not; the message has the command that installs it.
    """

    def look() -> None:
        for name in tracker_names(cfg):
            TRACKERS[name].check()

    from_main(look)


def open_trackers(cfg: CfgNode, trackers: Trackers) -> None:
    """Start the trackers of a training; all processes must call it, only the main one tracks.

    Args:
        cfg: configuration; not modified.
        trackers: receive them.

    Raises:
        ValueError: one can't start, for example without a connection to its server.
    """

    def open_all() -> None:
        output = Path(cfg.OUTPUT_DIR)
        run = TrackedRun(
            folder=output,
            task=cfg.TASK,
            config=dict(flatten(cfg)),
            is_resumed=bool(find_checkpoints(checkpoint_folder(cfg.OUTPUT_DIR), cfg.TASK)),
            event_folder=output / (cfg.TENSORBOARD.LOG_DIR or "runs"),
        )
        for name in tracker_names(cfg):
            trackers.add(TRACKERS[name](run))

    from_main(open_all)
