"""Ending a run politely: SIGTERM and SIGINT finish the step that is under way."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

from slowfast_maskfeat import distributed


class StopSignals:
    """Catches SIGTERM and SIGINT while it is entered; a second one ends the process at once.

    Processes of one run may be hit at different steps; `agreed` makes them stop at the same one. It
    speaks over gloo, in the memory of the hosts, so that no GPU is waited for.
    """

    def __init__(self) -> None:
        self._caught = 0
        self._before: dict[int, Any] = {}
        self._group = dist.new_group(backend="gloo") if distributed.world_size() > 1 else None

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self._caught = number
        # The launcher passes on what a terminal has sent to all processes already, so only a
        # signal other than the first, or the same again by hand after the handler is back, ends.
        if self._group is None:
            signal.signal(number, self._before[number])

    def agreed(self) -> int:
        """The signal that any process has caught, 0 for none; all must call it at each step."""
        if self._group is None:
            return self._caught
        caught = torch.tensor(self._caught)
        dist.all_reduce(caught, op=dist.ReduceOp.MAX, group=self._group)
        return int(caught)
