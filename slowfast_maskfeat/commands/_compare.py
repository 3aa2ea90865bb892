"""Comparisons of pre-training methods: their runs, and their page."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from slowfast_maskfeat.cli import print_written
from slowfast_maskfeat.commands._options import pairs_of
from slowfast_maskfeat.runs.comparison import (
    Programs,
    estimate_minutes,
    read_recipe,
    run_comparison,
)

_PACKAGE = (sys.executable, "-m", "slowfast_maskfeat")
PROGRAMS = Programs(run=(*_PACKAGE, "train"), draw=(*_PACKAGE, "visualize"))


def compare(options: argparse.Namespace) -> int:
    """Make a comparison, or estimate its time.

    Args:
        options: of `maskfeat compare`.

    Returns:
        The exit code: 0, 1 if a run failed or could not be rehearsed, or that of a run that a
        signal stopped.
    """
    recipe = read_recipe(
        options.recipe, data=options.data, methods=options.methods, seeds=options.seeds
    )
    pairs = pairs_of(options)
    output = Path(os.path.abspath(options.output))
    try:
        if options.estimate:
            minutes, missing = estimate_minutes(recipe, output, PROGRAMS, pairs)
            print(minutes)
            for line in missing:
                print(f"not measured: {line}", file=sys.stderr)
            return 1 if missing else 0
        written, failed = run_comparison(
            recipe, output, PROGRAMS, pairs, only_page=options.only_page
        )
    except subprocess.CalledProcessError as stopped:
        print("\nstopped; run the same command again to go on", file=sys.stderr)
        return stopped.returncode
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    print_written(written)
    return 1 if failed else 0
