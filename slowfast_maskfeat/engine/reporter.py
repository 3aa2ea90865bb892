"""Progress and results of a training: progress bar, messages and log events."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import torch

from slowfast_maskfeat import distributed
from slowfast_maskfeat.clips.batch import ClipBatch, LostVideo
from slowfast_maskfeat.clips.stage_times import StageTimes
from slowfast_maskfeat.engine.data_wait import MUCH, data_bound
from slowfast_maskfeat.engine.lost_videos import LostVideos
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.engine.utilization import Utilization
from slowfast_maskfeat.log import EventLog, Progress, Throughput
from slowfast_maskfeat.tasks import scalar_metrics
from slowfast_maskfeat.text import printable
from slowfast_maskfeat.trackers import Trackers

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


class Reporter:
    """Progress bar, messages and log events of a training, from the main process only."""

    def __init__(
        self,
        log: EventLog,
        trackers: Trackers,
        stream: TextIO,
        steps_per_epoch: int,
        shown: Sequence[str],
        *,
        num_workers: int = 0,
        utilization: Utilization | None = None,
    ) -> None:
        self.throughput = Throughput()
        self._log = log
        self._trackers = trackers
        self._stream = stream
        self._steps_per_epoch = steps_per_epoch
        self._names = shown
        self._num_workers = num_workers
        self._utilization = utilization
        self._stages = StageTimes()
        self._has_started = False  # whether the workers have: the first period waits for that
        self._last_bound = ""
        self._progress: Progress | None = None
        self._shown: dict[str, Any] = {}

    def start_epoch(self, epoch: int, max_epoch: int, step: int) -> None:
        """Start the progress bar of an epoch, at `step` for a resumed one."""
        self.throughput.take()
        self._stages = StageTimes()  # the steps after the last log period belong to none
        self._progress = Progress(
            self._steps_per_epoch,
            f"epoch {epoch + 1}/{max_epoch}",
            self._stream,
            initial=step,
            enabled=distributed.is_main(),
        )

    def step(self, batch: ClipBatch) -> None:
        """Advance the progress bar by one step."""
        self.throughput.count(len(batch) * distributed.world_size())
        self._stages += batch.stages
        if self._progress is not None:
            self._progress.update(1, **self._shown)

    def window(
        self, state: TrainState, means: dict[str, float], lr: float, lost: LostVideos
    ) -> None:
        """Log the means over a log period."""
        measured = self.throughput.take()
        figures = self._figures(state, means)
        if state.scaler.is_enabled() and means["num_skipped"]:
            figures["skipped"] = means["num_skipped"]
        self._shown = {
            **figures,
            "lr": lr,
            "clips/s": measured["clips_per_second"],
            "data wait": f"{measured['data_wait']:.0%}",
        }
        scalars = {**means, "lr": lr, **measured, **_memory()}
        if self._utilization is not None:
            scalars |= self._utilization.figures(measured["clips_per_second"])
        bound = self._explain_wait(measured)
        step = state.epoch * self._steps_per_epoch + state.step
        epoch = step / self._steps_per_epoch
        self._log.write(
            "train", epoch=epoch, step=step, num_lost=lost.num_distinct, **scalars, **bound
        )
        if "loss" not in figures:  # no step was taken: nothing to plot
            scalars = {name: x for name, x in scalars.items() if not math.isnan(x)}
        self._track("train", step, scalars)

    def _explain_wait(self, measured: Mapping[str, float]) -> dict[str, str]:
        """Return and print what bounds a period that waited for data; empty for any other."""
        stages, self._stages = self._stages, StageTimes()
        is_first, self._has_started = not self._has_started, True
        if is_first or measured["data_wait"] <= MUCH:
            return {}
        bound, line = data_bound(stages, measured["seconds"], num_workers=self._num_workers)
        if distributed.is_main() and bound != self._last_bound:
            print(f"data wait {measured['data_wait']:.0%}: {line}", file=self._stream)
        self._last_bound = bound
        return {"data_bound": bound}

    def lost(self, videos: Sequence[LostVideo]) -> None:
        """Log the videos that were lost for the first time."""
        for video in videos:
            self._log.write("lost", path=video.path, reason=video.reason)
            if distributed.is_main():
                print(printable(f"can't decode {video.path}: {video.reason}"), file=self._stream)

    def epoch(
        self, state: TrainState, means: dict[str, float], lr: float, lost: LostVideos
    ) -> None:
        """Log and print the means over an epoch, and log the learning rate of its last step."""
        self.close()
        self._shown = {}
        self._log.write("epoch", epoch=state.epoch, **means, lr=lr, **lost.counts)
        if distributed.is_main():
            figures = self._figures(state, means)
            texts = [f"{name} {value:.4f}" for name, value in figures.items()] or ["no step taken"]
            print(
                f"epoch {state.epoch}: {', '.join(texts)}, {means['num_skipped']} steps skipped, "
                f"{lost.num_distinct} videos lost, {lost.num_replaced} clips replaced",
                file=self._stream,
            )

    def monitor(self, state: TrainState, figures: Mapping[str, float]) -> None:
        """Track the figures of the features, see `Monitor`."""
        self._track("monitor", state.epoch * self._steps_per_epoch, figures)

    def validation(self, state: TrainState, results: Mapping[str, Any]) -> None:
        """Track the metrics of a validation."""
        self._track("validation", state.epoch * self._steps_per_epoch, scalar_metrics(results))

    def _track(self, group: str, step: int, values: Mapping[str, float]) -> None:
        self._trackers.scalars({f"{group}/{name}": x for name, x in values.items()}, step=step)

    def _figures(self, state: TrainState, means: dict[str, float]) -> dict[str, float]:
        """Return the means to print; none if the gradient scaler of fp16 skipped all steps.

        Such a step is normal while the scale adapts, so its loss is not shown as NaN.
        """
        if state.scaler.is_enabled() and means["num_skipped"] and math.isnan(means["loss"]):
            return {}
        return {name: means[name] for name in ("loss", *self._names)}

    def say(self, message: str) -> None:
        """Print a line."""
        if distributed.is_main():
            print(message, file=self._stream)

    def close(self) -> None:
        """Close the progress bar."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None


def _memory() -> dict[str, float]:
    """Return the peak memory since the start of the process that needs most, in GiB.

    `memory_gib` is of its GPU; without one, `rss_gib` is its resident set, workers not counted,
    where the system says it.
    """
    if torch.cuda.is_available():
        name, own = "memory_gib", torch.cuda.max_memory_allocated() / 2**30
    elif resource is None:
        return {}
    else:
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
        name, own = "rss_gib", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    return {name: float(distributed.all_reduce(torch.tensor(own), "max"))}
