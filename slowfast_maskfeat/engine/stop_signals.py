"""Clean stop of a run: after SIGTERM, SIGUSR1 or SIGINT the current step is finished."""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

from slowfast_maskfeat import distributed
from slowfast_maskfeat.cli import SAME_SIGNAL_SECONDS, StoppedError
from slowfast_maskfeat.workers import SIGNALS


class StopSignals:
    """Context manager that catches SIGTERM, SIGUSR1 and SIGINT.

    A single process ends at the second Ctrl-C. A repeated SIGTERM changes nothing: `timeout` and
    launchers send it twice, and a scheduler that does not wait sends SIGKILL.

    The processes of a run may receive a signal at different steps; `agreed` makes them stop at the
    same one, and `agreed_before` too, one step later but without waiting for one another. They
    communicate over gloo, in host memory, so that no GPU is waited for.
    """

    def __init__(self) -> None:
        self._caught = 0
        self._caught_at = 0.0
        self._before: dict[int, Any] = {}
        self._group = dist.new_group(backend="gloo") if distributed.world_size() > 1 else None
        self._exchange: tuple[torch.Tensor, dist.Work] | None = None

    def __enter__(self) -> StopSignals:
        for number in SIGNALS:
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
        if kind is None or issubclass(kind, StoppedError):  # the others come to this point too
            self._finish_exchange()

    def _catch(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        is_again = self._caught and now - self._caught_at >= SAME_SIGNAL_SECONDS
        if is_again and number == signal.SIGINT and self._group is None:
            raise KeyboardInterrupt
        if not self._caught:
            self._caught, self._caught_at = number, now

    @property
    def caught(self) -> int:
        """The signal that this process caught; 0 for none."""
        return self._caught

    def agreed(self) -> int:
        """Return the signal that any process caught, 0 for none; all call it at the same points."""
        if self._group is None:
            return self._caught
        self._finish_exchange()
        self._start_exchange()
        return self._finish_exchange()

    def agreed_before(self) -> int:
        """Return what `agreed` would have at the call before; 0 at the first call after it.

        All call it at the same points. A single process learns of its signal at once.
        """
        if self._group is None:
            return self._caught
        before = self._finish_exchange()
        self._start_exchange()
        return before

    def _start_exchange(self) -> None:
        caught = torch.tensor(self._caught)
        work = dist.all_reduce(caught, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._exchange = caught, work

    def _finish_exchange(self) -> int:
        if self._exchange is None:
            return 0
        (caught, work), self._exchange = self._exchange, None
        work.wait()
        return int(caught)
