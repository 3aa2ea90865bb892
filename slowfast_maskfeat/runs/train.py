"""Training of a model: from its first weights to the figures after the last epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat import distributed
from slowfast_maskfeat.backbones import Classifier, ContrastiveModel, compiled
from slowfast_maskfeat.builders.augment import build_batch_transform
from slowfast_maskfeat.builders.data import build_loader
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.freezing import freeze_blocks
from slowfast_maskfeat.builders.kernels import switch_on_kernels
from slowfast_maskfeat.builders.methods import build_model, build_task, find_method
from slowfast_maskfeat.builders.optimizer import (
    build_optimizer,
    build_schedule,
    build_weight_decay,
)
from slowfast_maskfeat.builders.precision import autocast_precision, precision_note
from slowfast_maskfeat.builders.trackers import open_trackers
from slowfast_maskfeat.checkpoints import checkpoint_folder
from slowfast_maskfeat.clips import ClipLoader
from slowfast_maskfeat.datasets import MissingListError
from slowfast_maskfeat.engine.best_validation import BestValidation
from slowfast_maskfeat.engine.coordination import check_shared
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.lost_videos import LostVideos
from slowfast_maskfeat.engine.monitor import Monitor
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.engine.stop_signals import StopSignals
from slowfast_maskfeat.engine.train import train
from slowfast_maskfeat.engine.train_settings import TrainSettings
from slowfast_maskfeat.engine.utilization import Utilization, matrix_rate
from slowfast_maskfeat.log import EventLog
from slowfast_maskfeat.runs.figures import draw_figures
from slowfast_maskfeat.runs.first_state import set_first_state
from slowfast_maskfeat.runs.model_info import measure_model
from slowfast_maskfeat.runs.monitor import build_monitor
from slowfast_maskfeat.runs.report import data_facts, print_main, print_notes
from slowfast_maskfeat.runs.resume import (
    build_best_validation,
    check_folder,
    is_owed,
    restore_last_validation,
)
from slowfast_maskfeat.runs.test import evaluate_split
from slowfast_maskfeat.tasks.base import Task
from slowfast_maskfeat.trackers import Trackers


def run_training(
    cfg: CfgNode,
    device: torch.device,
    log: EventLog,
    data: DataSource,
    *,
    trackers: Trackers,
    may_change: bool,
) -> list[Path]:
    """Train from the last checkpoint, from given weights, or from scratch.

    Args:
        cfg: frozen configuration.
        device: of this process.
        log: receives the events of the training.
        data: data of the run.
        trackers: of the run; started here.
        may_change: resume also with a configuration that differs from the checkpoint's in keys
            that the training depends on.

    Returns:
        The files that were written, and the folders of the trackers.

    Raises:
        ValueError: something that a user can fix; the message names it.
        StoppedError: after a signal, once a checkpoint is saved.
    """
    check_folder(cfg)
    model, task = _build_networks(cfg, device, data)
    loader = build_loader(cfg, "train", data=data)
    precision = autocast_precision(cfg, device)
    state = _build_state(cfg, model, task, precision)
    state.class_names, state.data = data.class_names, data_facts(cfg, loader)
    print_notes(loader)
    note = precision_note(cfg, device)
    if note:
        print_main(note)
    check_shared(checkpoint_folder(cfg.OUTPUT_DIR))
    started_from = set_first_state(cfg, state, data, may_change=may_change)
    state.check_batches(loader.batch_size)
    state.model = compiled(model, cfg.TRAIN.COMPILE)
    # A backbone for masks as well as classes has a mask token, which these may not use.
    has_idle = task.has_idle_parameters or isinstance(model, Classifier | ContrastiveModel)
    state.model = distributed.wrap(state.model, has_idle_parameters=has_idle)
    cost = _multiply_adds(cfg, data)
    utilization = _utilization(cfg, cost, model, device, precision)
    _log_start(cfg, log, state, loader, device, started_from, cost, utilization)
    open_trackers(cfg, trackers)
    validation = _build_validation(cfg, state, data, device)
    best = build_best_validation(cfg, state)
    settings = _settings(cfg, precision, task.scalar_names, num_steps=len(loader))
    was_validated = restore_last_validation(cfg, state, best)
    owes_validation = (
        validation is not None and settings.validates(state.epoch) and not was_validated
    )
    _say_if_ended(cfg, state, started_from, best)
    written = train(
        state,
        loader,
        settings,
        lost=LostVideos(
            len(loader.dataset), cfg.DATA.MAX_BAD_FRACTION, loader.dataset.videos.source
        ),
        log=log,
        trackers=trackers,
        device=device,
        transform=build_batch_transform(cfg, data=data),
        validate=validation,
        owes_validation=owes_validation,
        best=best,
        monitor=_build_monitor(cfg, state, data, device, settings),
        utilization=utilization,
    )
    trackers.step = state.epoch * len(loader)
    if distributed.is_main():
        drawn = draw_figures(cfg, state, validation.loader if validation else loader, device)
        for path in drawn:
            trackers.picture(path)
        written += drawn
    return written + trackers.folders


def _build_networks(cfg: CfgNode, device: torch.device, data: DataSource) -> tuple[nn.Module, Task]:
    """Build the model and the task, with what is frozen and the kernels of the device."""
    torch.manual_seed(cfg.RNG_SEED)
    model = build_model(cfg, data=data).to(device)
    freeze_blocks(cfg, model)
    task = build_task(cfg, model, data=data).to(device)
    switch_on_kernels(cfg, device, model, task)
    return model, task


def _build_state(
    cfg: CfgNode, model: nn.Module, task: Task, precision: torch.dtype | None
) -> TrainState:
    """Build the state of a training, with its optimizer, before the first weights are loaded."""
    device = next(model.parameters()).device
    stepper = GradientStep(
        build_optimizer(cfg, model),
        clip_l2norm=cfg.SOLVER.CLIP_GRAD_L2NORM,
        clip_value=cfg.SOLVER.CLIP_GRAD_VAL,
        per_parameter=cfg.SOLVER.CLIP_GRAD_PER_PARAM,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    return TrainState(model=model, task=task, stepper=stepper, scaler=scaler, config=cfg.dump())


class _Validation:
    """Validates the current weights, or their average, on a loader."""

    def __init__(
        self, cfg: CfgNode, state: TrainState, loader: ClipLoader, device: torch.device
    ) -> None:
        self._cfg, self._state, self._device = cfg, state, device
        self.loader = loader

    def __call__(self, signals: StopSignals) -> dict[str, Any]:
        cfg, state = self._cfg, self._state
        with state.averaged():
            results, evaluation = evaluate_split(
                cfg, state.model, state.task, self.loader, "val", self._device, signals=signals
            )
        print_main(f"validation: {evaluation.summary(results)}")
        return {**data_facts(cfg, self.loader), **results}


def _build_validation(
    cfg: CfgNode, state: TrainState, data: DataSource, device: torch.device
) -> _Validation | None:
    """Build the validation; None if there is none.

    Raises:
        ValueError: the validation split can't be evaluated, now and not after the first epochs.
    """
    loader = _validation_loader(cfg, data)
    if loader is None:
        return None
    print_notes(loader)
    state.task.evaluation(loader.dataset.videos, 1)
    return _Validation(cfg, state, loader, device)


def _build_monitor(
    cfg: CfgNode,
    state: TrainState,
    data: DataSource,
    device: torch.device,
    settings: TrainSettings,
) -> Monitor | None:
    """Build the monitor of the features; None if there is none. A new run owes its baseline."""
    monitor = build_monitor(cfg, state, data, device)
    if monitor is not None and monitor.is_due(state.epoch, settings.max_epoch):
        monitor.is_owed = state.checkpoint is None or is_owed(cfg, state, "monitor")
    return monitor


def _say_if_ended(
    cfg: CfgNode, state: TrainState, started_from: str, best: BestValidation | None
) -> None:
    """Say that a resumed training has nothing left to do, and why."""
    if best is not None and best.should_stop:
        print_main(f"{started_from}: {best.summary(state.epoch)}; nothing left to train")
    if state.epoch >= cfg.SOLVER.MAX_EPOCH:
        print_main(f"{started_from} is of the last epoch (SOLVER.MAX_EPOCH): nothing left to train")


def _settings(
    cfg: CfgNode, precision: torch.dtype | None, shown: Sequence[str], *, num_steps: int
) -> TrainSettings:
    return TrainSettings(
        max_epoch=cfg.SOLVER.MAX_EPOCH,
        learning_rate=build_schedule(cfg, num_steps=num_steps),
        weight_decay=build_weight_decay(cfg),
        accumulation_steps=cfg.TRAIN.ACCUMULATION_STEPS,
        precision=precision,
        log_period=cfg.LOG_PERIOD,
        eval_period=cfg.TRAIN.EVAL_PERIOD,
        checkpoint_period=cfg.TRAIN.CHECKPOINT_PERIOD,
        checkpoint_step_period=cfg.TRAIN.CHECKPOINT_STEP_PERIOD,
        keep_checkpoints=cfg.TRAIN.KEEP_CHECKPOINTS,
        max_nonfinite=cfg.TRAIN.MAX_NONFINITE,
        folder=checkpoint_folder(cfg.OUTPUT_DIR),
        prefix=cfg.TASK,
        shown=shown,
    )


def _validation_loader(cfg: CfgNode, data: DataSource) -> ClipLoader | None:
    """Build the loader of the validation split; None if pre-training has no such split."""
    try:
        return build_loader(cfg, "val", data=data)
    except MissingListError as error:
        if find_method(cfg).is_tested:
            raise
        print_main(f"{error}: pre-training without validation")
        return None


def _log_start(
    cfg: CfgNode,
    log: EventLog,
    state: TrainState,
    loader: ClipLoader,
    device: torch.device,
    started_from: str,
    cost: int | None,
    utilization: Utilization | None,
) -> None:
    num_parameters, num_trained = _count_parameters(state.bare)
    # Of a resumed run, the cost is in the log since it began.
    multiply_adds = None if state.checkpoint else cost
    log.write(
        "start",
        started_from=started_from,
        epoch=state.epoch,
        step=state.step,
        num_parameters=num_parameters,
        num_trained=num_trained,
        multiply_adds=multiply_adds,
        matrix_tflops=None if utilization is None else utilization.matrix_rate / 1e12,
        num_processes=distributed.world_size(),
        device=str(device),
        torch=torch.__version__,
        config=state.config,
        **state.data,
    )
    if state.checkpoint:
        done = state.epoch * len(loader) + state.step
        # Position as in `train` events: what the log has beyond it is repeated.
        log.write("resume", checkpoint=started_from, epoch=done / len(loader), step=done)
    if not cfg.LOG_MODEL_INFO:
        return
    work = "" if multiply_adds is None else f", {multiply_adds / 1e9:.2f} G multiply-adds per clip"
    rows = find_method(cfg).row_name
    part = f" ({num_trained / 1e6:.2f} M trained)" if cfg.TRAIN.FREEZE_BLOCKS else ""
    print_main(
        f"{cfg.MODEL.MODEL_NAME}: {num_parameters / 1e6:.2f} M parameters{part}{work}; "
        f"{len(loader.dataset)} {rows}; {len(loader)} steps of {loader.batch_size} clips per "
        f"epoch; {device}"
    )


def _count_parameters(model: nn.Module) -> tuple[int, int]:
    """Count the parameters of a model, and those of them that are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, is_trained in sizes if is_trained)


def _multiply_adds(cfg: CfgNode, data: DataSource) -> int | None:
    """Count the multiply-adds of one clip; None without LOG_MODEL_INFO or if counting fails."""
    if not cfg.LOG_MODEL_INFO or not distributed.is_main():
        return None
    try:
        return measure_model(cfg, data=data).complexity.multiply_adds
    except Exception as error:  # whatever the tracer of this torch raises, train anyway
        print_main(f"warning: could not count the multiply-adds: {error}")
        return None


def _utilization(
    cfg: CfgNode,
    cost: int | None,
    model: nn.Module,
    device: torch.device,
    precision: torch.dtype | None,
) -> Utilization | None:
    """Measure the matrix rate of the device; None if the cost of a clip is not known.

    That of a model of several views is counted for one of them, and frozen blocks have no backward
    pass.
    """
    if cost is None or cfg.TRAIN.FREEZE_BLOCKS or isinstance(model, ContrastiveModel):
        return None
    return Utilization(
        multiply_adds=cost,
        matrix_rate=matrix_rate(device, precision),
        num_processes=distributed.world_size(),
    )
