"""Train and test a model by a configuration.

    python tools/run_net.py --cfg A.yaml [B.yaml ...] [KEY VALUE ...]
    torchrun --nproc_per_node 8 tools/run_net.py --cfg A.yaml [KEY VALUE ...]
    srun --ntasks 8 python tools/run_net.py --cfg A.yaml [KEY VALUE ...]

Arguments ending in .yaml or .yml, in any case, are files unless they follow a key; later files
override earlier ones. The others are keys and values, which override files.
"""

from __future__ import annotations

if __name__ == "__main__":
    from slowfast_maskfeat.cli import end_on_interrupt

    end_on_interrupt()  # during the imports, which take seconds

import argparse
import os
import sys
import warnings
from typing import Any, NoReturn

from slowfast_maskfeat import distributed, slurm
from slowfast_maskfeat.checkpoints import LoadError
from slowfast_maskfeat.cli import StoppedError, exit_code, print_written, signal_exit_code
from slowfast_maskfeat.config import default_folder, load_run_config, split_words
from slowfast_maskfeat.engine.launch import launch
from slowfast_maskfeat.runs.run import run


def main(arguments: list[str]) -> int:
    """Run the command.

    Returns:
        The exit code, see `exit_code`.
    """
    warnings.showwarning = _print_warning
    options, words = _parse(arguments)
    return exit_code(lambda: _launch(options, words), resumable=True)


def _launch(options: argparse.Namespace, words: list[str]) -> None:
    """Start the processes of the run, or join those that torchrun or SLURM's srun started."""
    files, pairs = split_words(words)
    overrides = pairs + _shards(options)
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


def run_process(cfg: Any, may_change: bool) -> None:
    """Run one process; the main one prints a message if a signal stops it.

    Args:
        cfg: Frozen configuration.
        may_change: See `run`.

    Raises:
        SystemExit: A signal stopped the process; the code is the one that shells expect.
        ValueError: An error that a user can fix.
    """
    if distributed.world_size() == 1:
        _run(cfg, may_change)
        return
    try:
        _run(cfg, may_change)
    except (KeyboardInterrupt, StoppedError) as stopped:
        code = signal_exit_code(stopped, resumable=True, printed=distributed.is_main())
        raise SystemExit(code) from None
    except LoadError as error:
        if distributed.is_main():
            print(error.report, file=sys.stderr)
        raise ValueError(error.summary) from None


def _run(cfg: Any, may_change: bool) -> None:
    try:
        written = run(cfg, may_change=may_change)
    except RuntimeError as error:
        if distributed.world_size() == 1 or not distributed.has_lost_others(error):
            raise
        raise ValueError(
            f"process {distributed.rank()} has lost the connection to another process of the run, "
            "which has ended; its own message says why"
        ) from None
    if distributed.is_main():
        print_written(written)


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num_shards", type=int, help="number of machines")
    parser.add_argument("--shard_id", type=int, help="index of this machine, from 0")
    parser.add_argument("--init_method", help="address of the first machine: tcp://host:port")
    parser.add_argument(
        "--cfg",
        "--cfg_files",
        nargs="*",
        action="extend",
        default=[],
        metavar="A.yaml or KEY VALUE",
    )
    parser.add_argument("--opts", nargs="*", action="extend", default=[], metavar="KEY VALUE")
    parser.add_argument("words", nargs="*", default=[], metavar="KEY VALUE")
    options = parser.parse_args(arguments)
    if not arguments:
        parser.error("--cfg must be a YAML file, such as configs/demo/pretrain.yaml, got none")
    return options, [*options.cfg, *options.words, *options.opts]


def _shards(options: argparse.Namespace) -> list[str]:
    """Convert the flags of PySlowFast to keys and values."""
    flags = {"NUM_SHARDS": options.num_shards, "SHARD_ID": options.shard_id}
    return [word for key, value in flags.items() if value is not None for word in (key, str(value))]


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
