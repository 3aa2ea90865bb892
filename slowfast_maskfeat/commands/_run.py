"""Commands that run a configuration: their options, and the processes that they start."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from slowfast_maskfeat import distributed, slurm
from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.config import default_folder, load_run_config, split_words
from slowfast_maskfeat.engine.launch import launch
from slowfast_maskfeat.runs.process import run_process


def run_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the options of all commands that run a configuration.

    Args:
        description: the docstring of the command.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--cfg",
        "--cfg_files",
        nargs="*",
        action="extend",
        default=[],
        metavar="A.yaml or KEY VALUE",
        help="YAML files, or names of shipped ones such as k400_MVITv2_S_16x4_FT",
    )
    add("--checkpoint", metavar="FILE", help="weights to start from")
    add("--output", metavar="FOLDER", help="OUTPUT_DIR; default: output/ and the name of the file")
    add("--num_shards", type=int, help="number of machines")
    add("--shard_id", type=int, help="index of this machine, from 0")
    add("--init_method", help="address of the first machine: tcp://host:port")
    add("--opts", nargs="*", action="extend", default=[], metavar="KEY VALUE")
    add("words", nargs="*", default=[], metavar="KEY VALUE")
    return parser


def parse_run(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; without a word it ends with the usage."""
    if not arguments:
        parser.error("--cfg must be a YAML file, such as configs/demo/pretrain.yaml, got none")
    return parser.parse_args(arguments)


def run_configuration(
    options: argparse.Namespace, *, checkpoint_key: str, preset: Sequence[str] = ()
) -> int:
    """Run the configuration of a command line, in as many processes as it has devices.

    Args:
        options: of `run_parser`.
        checkpoint_key: key that `--checkpoint` sets.
        preset: keys and values that the command line overrides.

    Returns:
        The exit code, see `exit_code`.
    """
    warnings.showwarning = _print_warning
    files, pairs = split_words([*options.cfg, *options.words, *options.opts])
    flags = {
        checkpoint_key: options.checkpoint,
        "OUTPUT_DIR": options.output,
        "NUM_SHARDS": options.num_shards,
        "SHARD_ID": options.shard_id,
    }
    given = [str(word) for flag in flags.items() if flag[1] is not None for word in flag]
    overrides = [*preset, *pairs, *given]
    return exit_code(lambda: _launch(options, files, overrides), resumable=True)


def _launch(options: argparse.Namespace, files: list[str], overrides: list[str]) -> None:
    """Start the processes of the run, or join those that torchrun or SLURM's srun started."""
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
