"""The processes that a configuration runs in: started here, or by torchrun or SLURM."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from typing import Any, NoReturn

from slowfast_maskfeat import distributed, slurm
from slowfast_maskfeat.config import default_folder, load_run_config
from slowfast_maskfeat.engine.launch import launch
from slowfast_maskfeat.runs.process import run_process


def launch_run(options: argparse.Namespace, files: list[str], overrides: list[str]) -> None:
    """Start the processes of a run, or join those that torchrun or SLURM's srun started.

    Args:
        options: of `run_parser`.
        files: YAML files.
        overrides: keys and values.
    """
    warnings.showwarning = _print_warning
    cfg = load_run_config(files, overrides)
    # In a folder that nobody named, another configuration is another run.
    may_change = "OUTPUT_DIR" in overrides[::2] or default_folder(files) != cfg.OUTPUT_DIR
    choice = distributed.choose_device(cfg.NUM_GPUS)
    backend = "gloo" if choice.type == "cpu" else cfg.DIST_BACKEND
    task = _slurm_task(options)
    # The only task of a machine with several GPUs starts a process for each.
    joins = distributed.started_by_torchrun() or (
        task is not None and not (task.is_alone and choice.num_processes > 1)
    )
    if choice.warning and not (joins and choice.type == "cuda"):
        print(f"warning: {choice.warning}", file=sys.stderr)
    if joins:
        distributed.from_environment(backend, task)
        _run_joined(cfg, may_change)
    place = (cfg.NUM_SHARDS, cfg.SHARD_ID, options.init_method)
    num_shards, shard_id, init_method = place if task is None else task.machine
    launch(
        run_process,
        choice.num_processes,
        (cfg, may_change),
        num_shards=num_shards,
        shard_id=shard_id,
        init_method=init_method,
        backend=backend,
    )


def _slurm_task(options: argparse.Namespace) -> slurm.SlurmTask | None:
    """Find the task of SLURM that this process is; None if torchrun or flags say more."""
    flags = (options.num_shards, options.shard_id)
    if distributed.started_by_torchrun() or any(flag is not None for flag in flags):
        return None
    task = slurm.find_task(os.environ)
    if task is None:
        note = slurm.unused_tasks(os.environ)
        if note:
            print(f"warning: {note}", file=sys.stderr)
        return None
    return task if options.init_method is None else task._replace(address=options.init_method)


def _run_joined(cfg: Any, may_change: bool) -> NoReturn:
    """Run one process of a group that another program started, and end it."""
    code = 0
    try:
        run_process(cfg, may_change)
    except SystemExit as stopped:  # by a signal
        code = stopped.code if isinstance(stopped.code, int) else 1
    distributed.end_process(code)


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)
