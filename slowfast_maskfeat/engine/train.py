"""The one train loop, for any task."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from slowfast_maskfeat import distributed
from slowfast_maskfeat.checkpoints.save_load import (
    checkpoint_path,
    keep_last,
    save_checkpoint,
)
from slowfast_maskfeat.cli import StoppedError
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.clips.batch_transform import BatchTransform
from slowfast_maskfeat.clips.loader import ClipLoader
from slowfast_maskfeat.engine.gradient_step import StepResult
from slowfast_maskfeat.engine.lost_videos import LostVideos
from slowfast_maskfeat.engine.meter import Meter
from slowfast_maskfeat.engine.optimizer import set_learning_rate
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.engine.stop_signals import StopSignals
from slowfast_maskfeat.log import EventLog, Progress, TensorBoardLog, Throughput


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How long, how often, and when to give up.

    Attributes:
        max_epoch: epochs of the training.
        learning_rate: of a fractional epoch.
        accumulation_steps: parts that each batch is run in.
        precision: of autocast; None for float32.
        log_period: steps between two log lines; the device is read only then.
        eval_period: epochs between two validations.
        checkpoint_period: epochs between two checkpoints.
        checkpoint_step_period: steps of an epoch between two more; 0 for none.
        keep_checkpoints: how many stay; 0 keeps all.
        max_nonfinite: steps in a row with a loss that is not finite before the run stops.
        folder: where the checkpoints go.
        prefix: of their names.
        shown: names of the scalars that people see beside the loss.
    """

    max_epoch: int
    learning_rate: Callable[[float], float]
    accumulation_steps: int = 1
    precision: torch.dtype | None = None
    log_period: int = 10
    eval_period: int = 10
    checkpoint_period: int = 10
    checkpoint_step_period: int = 0
    keep_checkpoints: int = 0
    max_nonfinite: int = 3
    folder: Path
    prefix: str = ""
    shown: Sequence[str] = ()


def train(
    state: TrainState,
    loader: ClipLoader,
    settings: TrainSettings,
    *,
    lost: LostVideos,
    log: EventLog,
    tensorboard: TensorBoardLog,
    device: torch.device,
    transform: BatchTransform | None = None,
    validate: Callable[[], dict[str, Any]] | None = None,
    stream: TextIO | None = None,
) -> None:
    """Train from where `state` stands to the last epoch.

    Args:
        state: model, optimizer and task, and how far they are.
        loader: of this process's share of the batches.
        settings: how long and how often.
        lost: counts the videos that can't be decoded.
        log: receives one event per log period, epoch, validation and checkpoint.
        tensorboard: receives the scalars too.
        device: of the model.
        transform: of whole batches, before they are split into parts; None for none.
        validate: judges the model; None for never.
        stream: for the progress bar and for people; None for stderr.

    Raises:
        ValueError: too many videos are lost, too many losses in a row are not finite, or the epoch
            has other steps than the one to be gone on with.
        StoppedError: SIGTERM or SIGINT came; the step was finished and a checkpoint written.
    """
    if state.step >= len(loader):
        raise ValueError(
            f"the checkpoint stands at step {state.step} of an epoch, which now has {len(loader)} "
            "steps; the list and TRAIN.BATCH_SIZE that it was written with are wanted"
        )
    reporter = _Reporter(log, tensorboard, stream or sys.stderr, len(loader), settings.shown)
    watch = _FiniteWatch(settings.max_nonfinite, loader, device, state.scaler.is_enabled())
    meter: Meter | None = None
    lost.load_state_dict(state.resumed.get("lost", lost.state_dict()))

    def save() -> Path:
        reporter.lost(lost.share(), lost)
        loop = {"meter": meter.state_dict() if meter and state.step else None}
        return _save(state, settings, log, lost=lost.state_dict(), **loop)

    with StopSignals() as signals:
        while state.epoch < settings.max_epoch:
            reporter.start_epoch(state.epoch, settings.max_epoch, state.step)
            batches = loader.epoch(state.epoch, state.step)
            while state.step < len(loader):
                with reporter.throughput.waiting():
                    batch = next(batches)
                if transform is not None:
                    batch = transform(batch, device, epoch=state.epoch, step=state.step)
                lr = settings.learning_rate(state.epoch + state.step / len(loader))
                set_learning_rate(state.stepper.optimizer, lr)
                progress = (state.epoch + state.step / len(loader)) / settings.max_epoch
                names, sums, result = train_step(state, batch, settings, device, progress=progress)
                if meter is None:
                    meter = Meter(names, device)
                    if state.resumed.get("meter"):
                        meter.load_state_dict(state.resumed["meter"])
                meter.add(sums, result.gradient_norm, result.taken)
                watch.add(batch, result)
                lost.add(batch.lost)
                state.step += 1
                reporter.step(batch)
                if state.step % settings.log_period == 0:
                    watch.check()
                    reporter.lost(lost.share(), lost)
                    reporter.window(state, meter.read(), lr, lost)
                signal = signals.agreed()
                if state.step == len(loader):
                    break  # the end of the epoch writes its own checkpoint
                if signal or _is_due(state.step, settings.checkpoint_step_period):
                    path = save()
                if signal:
                    reporter.close()
                    raise StoppedError(signal, path)
            watch.check()
            reporter.lost(lost.share(), lost)
            assert meter is not None
            state.epoch, state.step = state.epoch + 1, 0
            last = state.epoch == settings.max_epoch
            reporter.epoch(state, meter.read_epoch(), lost)
            if signal or last or _is_due(state.epoch, settings.checkpoint_period):
                path = save()
            if signal and not last:
                raise StoppedError(signal, path)
            if validate is not None and (last or _is_due(state.epoch, settings.eval_period)):
                log.write("validation", epoch=state.epoch, **validate())


def _is_due(count: int, period: int) -> bool:
    """Whether a period is over; 0 is never."""
    return period > 0 and count % period == 0


def train_step(
    state: TrainState,
    batch: ClipBatch,
    settings: TrainSettings,
    device: torch.device,
    *,
    progress: float = 0.0,
) -> tuple[list[str], Tensor, StepResult]:
    """One optimizer step on one batch, without reading anything back from the device.

    Gradients are sums over terms: they add up over parts and processes, and are divided once.

    Args:
        state: what is trained.
        batch: of this process.
        settings: parts and precision.
        device: of the model.
        progress: share of the whole training before the step, in [0, 1).

    Returns:
        The names of the terms; the weight and each term times the weight, summed over parts and
        processes, float64; what the step did.
    """
    parts = batch.split(-(-len(batch) // settings.accumulation_steps))
    precision = settings.precision
    total: Tensor | None = None
    for number, part in enumerate(parts, 1):
        # Processes exchange their gradients in the last part only.
        is_last = number == len(parts)
        with nullcontext() if is_last else distributed.without_gradient_exchange(state.model):
            with torch.autocast(device.type, precision, enabled=precision is not None):
                output = state.task.step(state.model, part.to(device))
            state.scaler.scale(output.loss * output.weight).backward()
        terms = torch.stack([output.weight, output.loss.detach(), *output.scalars.values()])
        sums = terms.double() * output.weight.double()
        sums[0] = output.weight
        total = sums if total is None else total + sums
    assert total is not None
    total = distributed.all_reduce(total, "sum")
    if state.scaler.is_enabled():
        state.scaler.unscale_(state.stepper.optimizer)
    result = state.stepper(total[0], total[1])
    if state.scaler.is_enabled():
        state.scaler.update()
    state.stepper.optimizer.zero_grad(set_to_none=True)
    if state.average is not None:
        state.average.update(state.bare, result.taken)
    state.task.after_step(state.bare, progress, result.taken)
    return ["loss", *output.scalars], total, result


def _save(state: TrainState, settings: TrainSettings, log: EventLog, **loop: Any) -> Path:
    """Write a checkpoint of where the run stands; only the main process writes."""
    payload = state.payload(**loop)
    path = checkpoint_path(
        settings.folder, prefix=settings.prefix, epoch=state.epoch, step=state.step
    )
    if distributed.is_main():
        save_checkpoint(path, payload)
        keep_last(settings.folder, settings.prefix, settings.keep_checkpoints)
        log.write("checkpoint", path=str(path), epoch=state.epoch, step=state.step)
    distributed.barrier()
    return path


class _FiniteWatch:
    """Stops a run whose losses stay not finite, and names the clips they came from."""

    def __init__(
        self, limit: int, loader: ClipLoader, device: torch.device, has_scaler: bool
    ) -> None:
        self._limit = limit
        self._videos = loader.dataset.videos
        self._has_scaler = has_scaler
        self._in_a_row = torch.zeros((), dtype=torch.int64, device=device)
        self._worst = torch.zeros_like(self._in_a_row)
        self._steps: list[tuple[Tensor | None, Tensor]] = []

    def add(self, batch: ClipBatch, result: StepResult) -> None:
        """Note a step; the device is not waited for."""
        finite = result.loss_is_finite
        if not self._has_scaler:  # under a scaler, gradients overflow now and then by design
            finite = finite & result.gradient_is_finite
        self._in_a_row = torch.where(finite, 0, self._in_a_row + 1)
        self._worst = torch.maximum(self._worst, self._in_a_row)
        self._steps.append((batch.index, finite))
        self._steps = self._steps[-max(self._limit, 100) :]

    def check(self) -> None:
        """Read the device.

        Raises:
            ValueError: the limit was reached; it names the clips of the bad steps.
        """
        if int(self._worst) < self._limit:
            return
        bad = [index for index, finite in self._steps if index is not None and not bool(finite)]
        rows: Sequence[int] = torch.cat(bad).unique().tolist() if bad else []
        names = ", ".join(self._videos.path(row) for row in rows[:20])
        raise ValueError(
            f"the loss or its gradient was not finite in {int(self._worst)} steps in a row "
            f"(TRAIN.MAX_NONFINITE {self._limit}); their clips: {names}"
            + (f" and {len(rows) - 20} more" if len(rows) > 20 else "")
            + "; a lower SOLVER.BASE_LR, a longer warm-up or TRAIN.PRECISION float32 may help"
        )


class _Reporter:
    """Tells people and files how the training goes; only the main process says anything."""

    def __init__(
        self,
        log: EventLog,
        tensorboard: TensorBoardLog,
        stream: TextIO,
        steps_per_epoch: int,
        shown: Sequence[str],
    ) -> None:
        self.throughput = Throughput()
        self._log = log
        self._tensorboard = tensorboard
        self._stream = stream
        self._steps_per_epoch = steps_per_epoch
        self._names = shown
        self._progress: Progress | None = None
        self._shown: dict[str, Any] = {}

    def start_epoch(self, epoch: int, max_epoch: int, step: int) -> None:
        """A new bar; `step` is where a resumed epoch goes on."""
        self.throughput.take()
        self._progress = Progress(
            self._steps_per_epoch,
            f"epoch {epoch + 1}/{max_epoch}",
            self._stream,
            initial=step,
            enabled=distributed.is_main(),
        )

    def step(self, batch: ClipBatch) -> None:
        """One step was done."""
        self.throughput.count(len(batch) * distributed.world_size())
        if self._progress is not None:
            self._progress.update(1, **self._shown)

    def window(
        self, state: TrainState, means: dict[str, float], lr: float, lost: LostVideos
    ) -> None:
        """A log period is over."""
        measured = self.throughput.take()
        self._shown = {
            "loss": means["loss"],
            **{name: means[name] for name in self._names},
            "lr": lr,
            "clips/s": measured["clips_per_second"],
            "data wait": f"{measured['data_wait']:.0%}",
        }
        scalars = {**means, "lr": lr, **measured, **_memory()}
        step = state.epoch * self._steps_per_epoch + state.step
        epoch = step / self._steps_per_epoch
        self._log.write("train", epoch=epoch, step=step, num_lost=lost.num_distinct, **scalars)
        self._tensorboard.write(step, {f"train/{name}": x for name, x in scalars.items()})

    def lost(self, first: Sequence[Any], lost: LostVideos) -> None:
        """Name each lost video once."""
        for video in first:
            self._log.write("lost", path=video.path, reason=video.reason)
            if distributed.is_main():
                print(f"can't decode {video.path}: {video.reason}", file=self._stream)

    def epoch(self, state: TrainState, means: dict[str, float], lost: LostVideos) -> None:
        """An epoch is over."""
        self.close()
        self._shown = {}
        self._log.write("epoch", epoch=state.epoch, **means, **lost.counts)
        if distributed.is_main():
            figures = ", ".join(f"{name} {means[name]:.4f}" for name in ("loss", *self._names))
            print(
                f"epoch {state.epoch}: {figures}, {means['num_skipped']} steps skipped, "
                f"{lost.num_distinct} videos lost, {lost.num_replaced} clips replaced",
                file=self._stream,
            )

    def close(self) -> None:
        """End the bar."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None


def _memory() -> dict[str, float]:
    """Peak memory of the GPU in GiB since the start, where there is one."""
    if not torch.cuda.is_available():
        return {}
    return {"memory_gib": torch.cuda.max_memory_allocated() / 2**30}
