"""One of the processes of a run: its messages, and its errors in one line."""

from __future__ import annotations

import sys

from fvcore.common.config import CfgNode

from slowfast_maskfeat import distributed
from slowfast_maskfeat.checkpoints import LoadError
from slowfast_maskfeat.cli import StoppedError, print_written, signal_exit_code
from slowfast_maskfeat.runs.run import run


def run_process(cfg: CfgNode, may_change: bool) -> None:
    """Run one process; the main one prints a message if a signal stops it.

    Args:
        cfg: frozen configuration.
        may_change: see `run`.

    Raises:
        SystemExit: a signal stopped the process; the code is the one that shells expect.
        ValueError: an error that a user can fix.
    """
    if distributed.world_size() == 1:
        _run(cfg, may_change)
        return
    try:
        _run(cfg, may_change)
    except (KeyboardInterrupt, StoppedError) as stopped:
        code = signal_exit_code(stopped, resumable=True, printed=distributed.is_main())
        raise SystemExit(code) from None
    except LoadError as error:
        if distributed.is_main():
            print(error.report, file=sys.stderr)
        raise ValueError(error.summary) from None


def _run(cfg: CfgNode, may_change: bool) -> None:
    try:
        written = run(cfg, may_change=may_change)
    except RuntimeError as error:
        if distributed.world_size() == 1 or not distributed.has_lost_others(error):
            raise
        raise ValueError(
            f"process {distributed.rank()} has lost the connection to another process of the run, "
            "which has ended; its own message says why"
        ) from None
    if distributed.is_main():
        print_written(written)
