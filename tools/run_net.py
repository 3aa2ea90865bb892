"""Train and test as a configuration says.

    python tools/run_net.py --cfg A.yaml [B.yaml ...] [KEY VALUE ...]
    torchrun --nproc_per_node 8 tools/run_net.py --cfg A.yaml [KEY VALUE ...]

What ends in .yaml or .yml is a file, later ones win; the rest are pairs, which win over files.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from typing import Any

from slowfast_maskfeat.build.exit_code import tell_interrupted
from slowfast_maskfeat.build.run import run
from slowfast_maskfeat.checkpoints import LoadError
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.engine import distributed
from slowfast_maskfeat.engine.launch import launch
from slowfast_maskfeat.engine.train import StoppedError

INVALID_INPUT = 2


def main(arguments: list[str]) -> int:
    """Run, and turn what a user can put right into one line.

    Returns:
        the exit code: 0, 2 for invalid input, 128 plus the number of the signal that stopped it.
    """
    warnings.showwarning = _print_warning
    options, words = _parse(arguments)
    try:
        cfg = load_config(
            [word for word in words if _is_file(word)],
            [word for word in words if not _is_file(word)] + _shards(options),
        )
        choice = distributed.choose_device(cfg.NUM_GPUS)
        backend = "gloo" if choice.type == "cpu" else cfg.DIST_BACKEND
        if choice.warning:
            print(f"warning: {choice.warning}", file=sys.stderr)
        if distributed.from_environment(backend):
            run_to_exit(cfg)
            distributed.end_process()
        else:
            launch(
                run_to_exit,
                choice.num_processes,
                (cfg,),
                num_shards=cfg.NUM_SHARDS,
                shard_id=cfg.SHARD_ID,
                init_method=options.init_method,
                backend=backend,
            )
    except ValueError as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # torchrun's other processes found the same
            print(f"error: {_one_line(error)}", file=sys.stderr)
        return INVALID_INPUT
    return 0


def run_to_exit(cfg: Any) -> None:
    """One process of the run; a signal ends it with the code that shells expect.

    Raises:
        SystemExit: after a signal, once the checkpoint is written; after Ctrl-C in a probe.
        ValueError: something a user can put right; a table of what weights fill is printed before.
    """
    try:
        run(cfg)
    except KeyboardInterrupt:
        if not cfg.PROBE.KIND:
            raise
        raise SystemExit(tell_interrupted()) from None
    except LoadError as error:
        if distributed.is_main():
            print(error.report, file=sys.stderr)
        raise ValueError(error.summary) from None
    except StoppedError as stopped:
        if distributed.is_main():
            print(f"stopped by signal {stopped.number}; {stopped.checkpoint}", file=sys.stderr)
        raise SystemExit(128 + stopped.number) from None


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num_shards", type=int, help="number of machines")
    parser.add_argument("--shard_id", type=int, help="which of them this one is")
    parser.add_argument("--init_method", help="where the machines meet: tcp://host:port")
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
        parser.error("--cfg with a YAML file is wanted, such as configs/demo/pretrain.yaml")
    return options, [*options.cfg, *options.words, *options.opts]


def _shards(options: argparse.Namespace) -> list[str]:
    """The published flags as pairs of the keys that they stand for."""
    flags = {"NUM_SHARDS": options.num_shards, "SHARD_ID": options.shard_id}
    return [word for key, value in flags.items() if value is not None for word in (key, str(value))]


def _is_file(word: str) -> bool:
    return word.endswith((".yaml", ".yml"))


def _one_line(error: ValueError) -> str:
    """The message, without the traceback that a loader process wraps around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and "Original Traceback" in str(error):
        return lines[-1].removeprefix("ValueError: ")
    return " ".join(lines)


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
