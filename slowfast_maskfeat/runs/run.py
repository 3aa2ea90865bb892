"""A configuration, run from end to end: trained and tested, or probed."""

from __future__ import annotations

from pathlib import Path

from fvcore.common.config import CfgNode

from slowfast_maskfeat import distributed
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.config import import_extensions
from slowfast_maskfeat.log import EventLog
from slowfast_maskfeat.runs.probe import run_probe
from slowfast_maskfeat.runs.report import say
from slowfast_maskfeat.runs.test import run_test
from slowfast_maskfeat.runs.train import run_training


def run(cfg: CfgNode) -> None:
    """Train and test as TRAIN.ENABLE and TEST.ENABLE say, in this process of the run.

    With PROBE.KIND the features of a frozen network are evaluated instead, see `run_probe`.

    Args:
        cfg: frozen configuration.

    Raises:
        ValueError: something a user can fix; the message says what.
        StoppedError: a signal ended the training after a checkpoint.
    """
    import_extensions(cfg.IMPORTS)  # a process that was started here has imported nothing yet
    device = distributed.own_device(distributed.choose_device(cfg.NUM_GPUS).type)
    if not (cfg.TRAIN.ENABLE or cfg.TEST.ENABLE or cfg.PROBE.KIND):
        raise ValueError("one of TRAIN.ENABLE, TEST.ENABLE and PROBE.KIND must be set")
    data = DataSource(cfg)
    log = EventLog(Path(cfg.OUTPUT_DIR) / "stats.jsonl" if distributed.is_main() else None)
    try:
        if cfg.PROBE.KIND:
            run_probe(cfg, device, log, data=data)
            return
        if cfg.TRAIN.ENABLE:
            run_training(cfg, device, log, data)
        if cfg.TEST.ENABLE and not find_method(cfg).is_tested:
            say("TEST.ENABLE has no effect: pre-training has no test; fine-tune its checkpoint")
        elif cfg.TEST.ENABLE:
            run_test(cfg, device, log, data)
    finally:
        log.close()
