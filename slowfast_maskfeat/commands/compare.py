"""Compare pre-training methods on the same data, network, budget and seeds.

    maskfeat compare --recipe shapes --data output/compare/images \\
        --output output/compare/shapes

For each method and seed, what it needs is trained first (tokenizer, teacher, classifier), then the
method itself; then fine-tuning, probes, kNN and fine-tuning with few labels judge it. Each of these
is an ordinary run with its own folder and log. The same command goes on where it was interrupted; a
run that fails is reported, and costs only what needs it. comparison.html in the output folder is a
page for any browser, without a network; comparison.md and comparison.json have the same numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.commands._options import (
    CommandParser,
    add_output_folder,
    add_pairs,
    whole_number,
)


def main(arguments: Sequence[str]) -> int:
    """Make a comparison, or estimate its time.

    Returns:
        The exit code: 0, 1 if a run failed or could not be rehearsed, 2 for invalid input, 128
        plus the signal that stopped it.
    """
    options = _parse(arguments)
    from slowfast_maskfeat.commands._compare import compare  # after the help, which is fast

    return exit_code(lambda: compare(options), output=options.output, resumable=True)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser("compare", __doc__)
    add = parser.add_argument
    add(
        "--recipe",
        required=True,
        metavar="FILE",
        help="YAML file, or name of a shipped one, such as shapes",
    )
    add_output_folder(parser, "the comparison", required=True)
    add(
        "--data",
        default="",
        metavar="FOLDER",
        help="folder of the data, which replaces {data} in the recipe",
    )
    add(
        "--methods",
        nargs="+",
        default=[],
        metavar="NAME",
        help="methods, such as hog pixels mae (default: the recipe's)",
    )
    add(
        "--seeds",
        nargs="+",
        type=whole_number(0),
        default=[],
        metavar="N",
        help="seeds (default: the recipe's)",
    )
    add(
        "--estimate",
        action="store_true",
        help="only measure a few steps of each run, and print the minutes",
    )
    add(
        "--only-page",
        action="store_true",
        help="make nothing; write the page of what former calls have made",
    )
    add_pairs(parser)
    return parser.parse_args(arguments)
