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
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.runs.comparison import (
    METHODS,
    Programs,
    estimate_minutes,
    read_recipe,
    run_comparison,
)

_PACKAGE = (sys.executable, "-m", "slowfast_maskfeat")
PROGRAMS = Programs(run=(*_PACKAGE, "train"), draw=(*_PACKAGE, "visualize"))


def main(arguments: Sequence[str]) -> int:
    """Make a comparison, or estimate its time.

    Returns:
        The exit code: 0, 1 if a run failed, 2 for invalid input, 128 plus the signal that
        stopped it.
    """
    options = _parse(arguments)
    return exit_code(lambda: _work(options), output=options.output, resumable=True)


def _work(options: argparse.Namespace) -> int:
    recipe = read_recipe(
        options.recipe, data=options.data, methods=options.methods, seeds=options.seeds
    )
    output = Path(os.path.abspath(options.output))
    try:
        if options.estimate:
            print(estimate_minutes(recipe, output, PROGRAMS, options.opts))
            return 0
        written, failed = run_comparison(
            recipe, output, PROGRAMS, options.opts, only_page=options.only_page
        )
    except subprocess.CalledProcessError as stopped:
        print("\nstopped; run the same command again to go on", file=sys.stderr)
        return stopped.returncode
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    print_written(written)
    return 1 if failed else 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--recipe", required=True, help="YAML file, or name of a shipped one, such as shapes")
    add("--output", required=True, help="folder of the comparison")
    add("--data", default="", help="folder of the data, for {data} in the recipe")
    add(
        "--methods",
        nargs="+",
        default=[],
        help=f"instead of the recipe's: {', '.join(METHODS)}",
    )
    add("--seeds", nargs="+", type=int, default=[], help="instead of the recipe's")
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
    add("--opts", nargs="*", default=[], metavar="KEY VALUE", help="configuration of all runs")
    return parser.parse_args(arguments)
