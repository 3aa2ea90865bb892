"""Clean stop of a run: after SIGTERM or SIGINT the current step is finished."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

from slowfast_maskfeat import distributed


class StopSignals:
    """Context manager that catches SIGTERM and SIGINT; a single process ends at the second one.

    The processes of a run may receive a signal at different steps; `agreed` makes them stop at the
    same one. It communicates over gloo, in host memory, so that no GPU is waited for.
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
        # With several processes a SIGINT from a terminal arrives twice, since the launcher forwards
        # it too, so the handler is restored only in a single process.
        if self._group is None:
            signal.signal(number, self._before[number])

    @property
    def caught(self) -> int:
        """The signal that this process caught; 0 for none."""
        return self._caught

    def agreed(self) -> int:
        """Return the signal that any process caught, 0 for none; all call it at the same points."""
        if self._group is None:
            return self._caught
        caught = torch.tensor(self._caught)
        dist.all_reduce(caught, op=dist.ReduceOp.MAX, group=self._group)
        return int(caught)
