"""Train loop of all tasks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from slowfast_maskfeat.checkpoints.save_load import (
    best_path,
    checkpoint_path,
    keep_last,
    save_checkpoint,
)
from slowfast_maskfeat.cli import StoppedError
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.clips.batch_transform import BatchTransform
from slowfast_maskfeat.clips.loader import ClipLoader
from slowfast_maskfeat.engine.best_validation import BestValidation
from slowfast_maskfeat.engine.coordination import from_main
from slowfast_maskfeat.engine.finite_watch import FiniteWatch
from slowfast_maskfeat.engine.lost_videos import LostVideos
from slowfast_maskfeat.engine.meter import Meter
from slowfast_maskfeat.engine.monitor import Monitor
from slowfast_maskfeat.engine.optimizer import set_learning_rate, set_weight_decay
from slowfast_maskfeat.engine.reporter import Reporter
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.engine.stop_signals import StopSignals
from slowfast_maskfeat.engine.train_settings import TrainSettings, is_due
from slowfast_maskfeat.engine.train_step import train_step
from slowfast_maskfeat.engine.utilization import Utilization
from slowfast_maskfeat.log import EventLog
from slowfast_maskfeat.trackers import Trackers


def train(
    state: TrainState,
    loader: ClipLoader,
    settings: TrainSettings,
    *,
    lost: LostVideos,
    log: EventLog,
    trackers: Trackers,
    device: torch.device,
    transform: BatchTransform | None = None,
    validate: Callable[[StopSignals], dict[str, Any]] | None = None,
    owes_validation: bool = False,
    best: BestValidation | None = None,
    monitor: Monitor | None = None,
    utilization: Utilization | None = None,
) -> list[Path]:
    """Train from the epoch and step of `state` to the last epoch, or until validations stop it.

    Args:
        state: model, optimizer and task, with the epoch and step.
        loader: of this process's share of the batches.
        settings: length, periods and limits.
        lost: counts the videos that can't be decoded.
        log: receives one event per log period, epoch, validation and checkpoint.
        trackers: receive the scalars too.
        device: of the model.
        transform: of whole batches, before they are split into micro-batches; None for none.
        validate: returns validation metrics; None disables validation.
        owes_validation: make the validation of the restored state first, which was due when the
            run was stopped.
        best: keeps the best validation and may stop the training; None: nothing depends on them.
        monitor: measures the features; None: they are not measured.
        utilization: of the device, for the log; None: it is not logged.

    Returns:
        The checkpoints that were saved and not removed by later ones.

    Raises:
        ValueError: too many videos are lost, too many losses in a row are not finite, or a resumed
            epoch has fewer steps than were already done.
        StoppedError: after a signal, once the step is finished and a checkpoint saved;
            a validation is not finished, but made first when the run is resumed.
    """
    if state.step >= len(loader):
        raise ValueError(
            f"the step of the checkpoint must be below the {len(loader)} steps of an epoch, got "
            f"{state.step}; resume with the training split and TRAIN.BATCH_SIZE it was saved with"
        )
    loop = _TrainLoop(
        state,
        loader,
        settings,
        lost=lost,
        log=log,
        reporter=Reporter(
            log,
            trackers,
            sys.stderr,
            len(loader),
            settings.shown,
            num_workers=loader.num_workers,
            utilization=utilization,
        ),
        device=device,
        transform=transform,
        validate=validate,
        best=best,
        monitor=monitor,
    )
    with StopSignals() as signals:
        if owes_validation:
            loop.validate(signals)
        if monitor is not None and monitor.is_owed:
            loop.monitor(signals)
        while state.epoch < settings.max_epoch and not (best is not None and best.should_stop):
            signal = loop.run_epoch(signals)
            last = state.epoch == settings.max_epoch
            if signal or last or loop.is_save_due():
                loop.save()
            if signal:
                raise StoppedError(signal, state.checkpoint)
            if validate is not None and settings.validates(state.epoch):
                loop.validate(signals)
            if monitor is not None and monitor.is_due(state.epoch, settings.max_epoch):
                loop.monitor(signals)
            if best is not None and best.should_stop and not last:
                loop.stop_early()
    return [path for path in loop.saved if path.exists()]


class _TrainLoop:
    """Steps and epochs of a training; see `train` for the arguments."""

    def __init__(
        self,
        state: TrainState,
        loader: ClipLoader,
        settings: TrainSettings,
        *,
        lost: LostVideos,
        log: EventLog,
        reporter: Reporter,
        device: torch.device,
        transform: BatchTransform | None,
        validate: Callable[[StopSignals], dict[str, Any]] | None,
        best: BestValidation | None,
        monitor: Monitor | None,
    ) -> None:
        self._state = state
        self._loader = loader
        self._settings = settings
        self._lost = lost
        self._log = log
        self._reporter = reporter
        self._device = device
        self._transform = transform
        self._validate = validate
        self._best = best
        self._monitor = monitor
        self._watch = FiniteWatch(settings.max_nonfinite, loader, device, state.scaler.is_enabled())
        self._meter: Meter | None = None
        self._lr = 0.0  # of the last step
        # Kind of measurement -> epoch of the last one.
        self._measured: dict[str, int] = dict(state.resumed.get("measured") or {})
        self.saved: list[Path] = []
        lost.load_state_dict(state.resumed.get("lost", lost.state_dict()))

    def run_epoch(self, signals: StopSignals) -> int:
        """Run the remaining steps of an epoch.

        Returns:
            The signal that was caught in the last step; 0 for none.

        Raises:
            StoppedError: after a signal in an earlier step, once a checkpoint is saved.
        """
        state, num_steps = self._state, len(self._loader)
        self._reporter.start_epoch(state.epoch, self._settings.max_epoch, state.step)
        batches = self._loader.epoch(state.epoch, state.step)
        signal = 0
        while state.step < num_steps:
            self._run_step(batches)
            if state.step == num_steps:
                signal = signals.agreed()
                break  # the checkpoint at the end of the epoch follows
            signal = signals.agreed_before()
            if signal or self.is_save_due():
                self.save()
            if signal:
                self._reporter.close()
                raise StoppedError(signal, state.checkpoint)
        self._watch.check()
        self._report_lost()
        assert self._meter is not None
        state.epoch, state.step = state.epoch + 1, 0
        state.task.after_epoch(state.epoch)
        self._reporter.epoch(state, self._meter.read_epoch(), self._lr, self._lost)
        return signal

    def is_save_due(self) -> bool:
        """Whether a checkpoint is due after the last step."""
        state, settings = self._state, self._settings
        num_steps = state.epoch * len(self._loader) + state.step
        at_end = not state.step and is_due(state.epoch, settings.checkpoint_period)
        return at_end or is_due(num_steps, settings.checkpoint_step_period)

    def _run_step(self, batches: Iterator[ClipBatch]) -> None:
        state, settings, device = self._state, self._settings, self._device
        with self._reporter.throughput.waiting():
            batch = next(batches)
        if self._transform is not None:
            batch = self._transform(batch, device, epoch=state.epoch, step=state.step)
        fractional_epoch = state.epoch + state.step / len(self._loader)
        self._lr = settings.learning_rate(fractional_epoch)
        set_learning_rate(state.stepper.optimizer, self._lr)
        progress = fractional_epoch / settings.max_epoch
        if settings.weight_decay is not None:
            set_weight_decay(state.stepper.optimizer, settings.weight_decay(progress))
        names, sums, result = train_step(state, batch, settings, device, progress=progress)
        if self._meter is None:
            self._meter = Meter(names, device)
            if state.resumed.get("meter"):
                self._meter.load_state_dict(state.resumed["meter"])
        self._meter.add(sums, result.gradient_norm, result.taken)
        self._watch.add(batch, result)
        self._lost.add(batch.lost)
        state.step += 1
        state.checkpoint = None
        self._reporter.step(batch)
        if state.step % settings.log_period == 0:
            self._watch.check()
            self._report_lost()
            self._reporter.window(state, self._meter.read(), self._lr, self._lost)

    def _report_lost(self) -> None:
        self._reporter.lost(self._lost.gather())

    def validate(self, signals: StopSignals) -> None:
        """Validate the current weights and log the result.

        Raises:
            StoppedError: after a signal, once a checkpoint is saved.
        """
        assert self._validate is not None
        results = self._measure(self._validate, signals)
        if self._best is not None:
            best = self._best
            value = from_main(lambda: results.get(best.figure))
            if best.add(value, self._state.epoch) and best.is_kept:
                self._save_best(best.record)
        self._measured["validation"] = self._state.epoch
        self._log.write("validation", **self._place(), **results)
        self._reporter.validation(self._state, results)
        self._stop_after(signals)

    def stop_early(self) -> None:
        """Log why the training ends before its last epoch, once its checkpoint is saved."""
        assert self._best is not None
        if self._state.checkpoint is None:
            self.save()
        best = self._best
        self._log.write(
            "early_stop",
            **self._place(),
            figure=best.figure,
            best=best.value,
            best_epoch=best.epoch,
            num_without_progress=best.num_without_progress,
        )
        self._reporter.say(self._best.summary(self._state.epoch))

    def monitor(self, signals: StopSignals) -> None:
        """Measure the features of the current weights, log the result and keep the best weights.

        Raises:
            StoppedError: after a signal, once a checkpoint is saved.
        """
        assert self._monitor is not None
        results = self._measure(self._monitor.measure, signals)
        best = self._monitor.new_best(results, self._state.epoch)
        if best is not None:
            self._save_best(best)
        self._measured["monitor"] = self._state.epoch
        self._log.write("monitor", **self._place(), **results, is_best=best is not None)
        figures = {name: results[name] for name in self._monitor.figures}
        self._reporter.monitor(self._state, figures)
        if not self._is_untrained:  # else the first step follows
            self._stop_after(signals)

    @property
    def _is_untrained(self) -> bool:
        """Whether no step was made, in this run or before its checkpoint."""
        return not (self._state.epoch or self._state.step)

    def _measure(
        self, work: Callable[[StopSignals], dict[str, Any]], signals: StopSignals
    ) -> dict[str, Any]:
        try:
            return work(signals)
        except StoppedError as stopped:
            if self._is_untrained:  # there is nothing to save
                raise
            raise StoppedError(stopped.number, self._state.checkpoint or self.save()) from None

    def _place(self) -> dict[str, Any]:
        # A resumed run finds by the name of the checkpoint whether it owes an event.
        name = self._state.checkpoint.name if self._state.checkpoint else None
        return {"epoch": self._state.epoch, "checkpoint": name}

    def _stop_after(self, signals: StopSignals) -> None:
        signal = signals.agreed()
        if signal:
            raise StoppedError(signal, self._state.checkpoint or self.save())

    def save(self) -> Path:
        """Save a checkpoint of the current state; only the main process writes it."""
        state, settings = self._state, self._settings
        payload = self._payload()
        path = checkpoint_path(
            settings.folder, prefix=settings.prefix, epoch=state.epoch, step=state.step
        )

        def write() -> None:
            save_checkpoint(path, payload)
            keep_last(settings.folder, settings.prefix, settings.keep_checkpoints)
            self._log.write("checkpoint", path=str(path), epoch=state.epoch, step=state.step)

        from_main(write)
        self.saved.append(path)
        state.checkpoint = path
        return path

    def _save_best(self, best: dict[str, Any]) -> None:
        """Save the current state as the best one, beside the checkpoints of epochs."""
        payload = {**self._payload(), "best": best}
        path = best_path(self._settings.folder, prefix=self._settings.prefix)

        def write() -> None:
            save_checkpoint(path, payload)

        from_main(write)
        if path not in self.saved:
            self.saved.append(path)

    def _payload(self) -> dict[str, Any]:
        self._report_lost()
        state = self._state
        meter = self._meter.state_dict() if self._meter and state.step else None
        further = {} if self._best is None else {"validation": self._best.state_dict()}
        return state.payload(
            lost=self._lost.state_dict(),
            meter=meter,
            measured=dict(self._measured),
            batches={"size": self._loader.batch_size},
            **further,
        )
