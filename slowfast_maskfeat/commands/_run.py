"""Commands that run a configuration: their options."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.commands._options import (
    PAIRS,
    CommandParser,
    add_pairs,
    file_name,
    pairs_of,
)
from slowfast_maskfeat.text import quoted


def run_parser(name: str, description: str | None, *, checkpoint: str) -> CommandParser:
    """Return the options of all commands that run a configuration.

    Args:
        name: of the command.
        description: the docstring of the command.
        checkpoint: what its checkpoint is for.
    """
    parser = CommandParser(name, description)
    add = parser.add_argument
    add_configuration(parser)
    add("--checkpoint", metavar="FILE", help=f"{checkpoint}: a file, or the folder of a run")
    add(
        "--output",
        type=file_name,
        metavar="FOLDER",
        help="OUTPUT_DIR (default: output/ and the name of the first YAML file)",
    )
    add("--num_shards", type=int, metavar="N", help="number of machines (default: NUM_SHARDS)")
    add(
        "--shard_id",
        type=int,
        metavar="N",
        help="index of this machine, from 0 (default: SHARD_ID)",
    )
    add("--init_method", metavar="ADDRESS", help="address of the first machine: tcp://host:port")
    return parser


def add_configuration(parser: CommandParser) -> None:
    """Add --cfg, which takes several files, and the pairs that change them."""
    parser.add_argument(
        "--cfg",
        nargs="*",
        action="extend",
        default=[],
        metavar=f"A.yaml or {PAIRS}",
        help="YAML files, or names of shipped ones such as k400_MVITv2_S_16x4_FT; "
        "keys and values may follow them",
    )
    add_pairs(parser)


def words_of(options: argparse.Namespace) -> list[str]:
    """Return the files and pairs of a command line with `add_configuration`."""
    return [*options.cfg, *pairs_of(options)]


def parse_run(parser: CommandParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; without a file or a pair it ends with an error."""
    options = parser.parse_args(arguments)
    if not words_of(options):
        parser.error("--cfg must be a YAML file, such as configs/demo/pretrain.yaml, got none")
    return options


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
    # Imported after the help, which needs no torch.
    from slowfast_maskfeat.commands._launch import launch_run
    from slowfast_maskfeat.config import check_complete, split_words
    from slowfast_maskfeat.runs.load_trained import checkpoint_file

    files, pairs = split_words(words_of(options))

    def launch() -> None:
        check_complete(pairs)  # before the flags, or the last word would take one for its value
        flags = {
            checkpoint_key: options.checkpoint and checkpoint_file(options.checkpoint),
            "OUTPUT_DIR": options.output,
            "NUM_SHARDS": options.num_shards,
            "SHARD_ID": options.shard_id,
        }
        _check_flags(flags, pairs)
        given = [str(word) for flag in flags.items() if flag[1] is not None for word in flag]
        launch_run(options, files, [*preset, *pairs, *given])

    return exit_code(launch, resumable=True)


def _check_flags(flags: Mapping[str, Any], pairs: Sequence[str]) -> None:
    """Check that an option and its key, if both are given, have one value.

    Raises:
        ValueError: they have two.
    """
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        option = flags.get(key)
        if option is not None and str(option) != value:
            raise ValueError(
                f"{key} must be given once, got {quoted(value)} and, by its option, "
                f"{quoted(str(option))}"
            )
