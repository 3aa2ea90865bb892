"""Run of a configuration from end to end: training and test, or a probe."""

from __future__ import annotations

from pathlib import Path

import torch
from fvcore.common.config import CfgNode

from slowfast_maskfeat import distributed
from slowfast_maskfeat.builders.data import read_videos
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.kernels import check_kernels
from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.builders.precision import set_precision
from slowfast_maskfeat.builders.preflight import check_files, check_named_decoder, check_training
from slowfast_maskfeat.builders.trackers import check_trackers
from slowfast_maskfeat.config import import_extensions
from slowfast_maskfeat.engine.coordination import locked
from slowfast_maskfeat.log import EventLog, event_log_path
from slowfast_maskfeat.runs.probe import run_probe
from slowfast_maskfeat.runs.report import print_main
from slowfast_maskfeat.runs.test import check_results_path, run_test
from slowfast_maskfeat.runs.train import run_training
from slowfast_maskfeat.trackers import Trackers


def run(cfg: CfgNode, *, may_change: bool = True) -> list[Path]:
    """Train if TRAIN.ENABLE and test if TEST.ENABLE, in this process of the run.

    With PROBE.KIND evaluate the features of a frozen network instead, see `run_probe`.

    Args:
        cfg: frozen configuration.
        may_change: resume also with another configuration; False for an OUTPUT_DIR that nobody
            named.

    Returns:
        The files that were written, in the main process.

    Raises:
        ValueError: something that a user can fix, such as another run in OUTPUT_DIR; the message
            names it.
        StoppedError: after a signal, once a checkpoint is saved.
    """
    import_extensions(cfg.IMPORTS)  # a spawned process has not imported them yet
    device = distributed.own_device(distributed.choose_device(cfg.NUM_GPUS).type)
    if not (cfg.TRAIN.ENABLE or cfg.TEST.ENABLE or cfg.PROBE.KIND):
        raise ValueError("one of TRAIN.ENABLE, TEST.ENABLE and PROBE.KIND must be set, got none")
    if not (cfg.TRAIN.ENABLE or cfg.PROBE.KIND or find_method(cfg).is_tested):
        raise ValueError(
            "TEST.ENABLE must be False for pre-training, which has no test, got True; fine-tune "
            "its checkpoint (maskfeat train), or evaluate its features (maskfeat probe)"
        )
    check_kernels(cfg, device)
    if cfg.TRAIN.ENABLE:
        check_trackers(cfg)
    set_precision(cfg)
    check_named_decoder(cfg, device)
    data = DataSource(cfg)
    warnings = _check_data(cfg, data)  # before OUTPUT_DIR is created
    folder = Path(cfg.OUTPUT_DIR)
    with locked(folder):
        print_main(f"OUTPUT_DIR is {folder}")
        for warning in warnings:
            print_main(f"warning: {warning}")
        stats = event_log_path(folder)
        log = EventLog(stats if distributed.is_main() else None)
        try:
            with Trackers() as trackers:
                return [stats, *_run(cfg, device, log, data, trackers, may_change)]
        finally:
            log.close()


def _check_data(cfg: CfgNode, data: DataSource) -> list[str]:
    """Check the lists of a run, as far as it needs no network; return warnings."""
    if cfg.PROBE.KIND:
        if not find_method(cfg).has_boxes:  # which the probe refuses
            check_files(cfg, [data.videos("train")])
        return []
    if cfg.TRAIN.ENABLE:
        return check_training(cfg, data)
    find_method(cfg).check(cfg)
    check_files(cfg, [read_videos(cfg, "test", data)])
    return []


def _run(
    cfg: CfgNode,
    device: torch.device,
    log: EventLog,
    data: DataSource,
    trackers: Trackers,
    may_change: bool,
) -> list[Path]:
    if cfg.PROBE.KIND:
        return run_probe(cfg, device, log, data=data)
    written: list[Path] = []
    if cfg.TEST.ENABLE and find_method(cfg).is_tested:
        check_results_path(cfg)
    if cfg.TRAIN.ENABLE:
        written += run_training(cfg, device, log, data, trackers=trackers, may_change=may_change)
    if cfg.TEST.ENABLE and not find_method(cfg).is_tested:
        print_main("TEST.ENABLE has no effect: pre-training has no test; fine-tune its checkpoint")
    elif cfg.TEST.ENABLE:
        written += run_test(cfg, device, log, data, trackers)
    return written
