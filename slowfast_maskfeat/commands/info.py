"""Print the parameters and multiply-adds of a configuration's model, block by block.

    maskfeat info --cfg A.yaml [B.yaml ...] [KEY VALUE ...]

Arguments ending in .yaml or .yml are files, of which later ones override earlier ones; the others
are keys and values, which override files. Neither data nor a GPU is needed. A multiply-add counts
as one, as in the "GFLOPs" of this field's papers.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence

from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.commands._options import CommandParser, add_output_file
from slowfast_maskfeat.commands._run import add_configuration, words_of


def main(arguments: Sequence[str]) -> int:
    """Print the table, and write the JSON file if requested.

    Returns:
        The exit code: 0, or 2 for invalid input.
    """
    options = _parse(arguments)
    from slowfast_maskfeat.commands._info import print_info  # after the help, which is fast

    warnings.simplefilter("ignore")  # about keys without effect; a run shows these warnings
    return exit_code(lambda: print_info(options), output=options.output)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser("info", __doc__)
    add_configuration(parser)
    add_output_file(parser, "JSON file to write the results to, besides printing them")
    parser.add_argument(
        "--test-size",
        action="store_true",
        help="count at DATA.TEST_CROP_SIZE, as published numbers for tests do",
    )
    options = parser.parse_args(arguments)
    if not words_of(options):
        parser.error("--cfg must be a YAML file or keys and values, got none")
    return options
