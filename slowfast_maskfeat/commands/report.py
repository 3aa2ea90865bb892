"""Report a test by its file of scores, or compare two tests of the same list.

    maskfeat report --scores output/actions/test_scores_1x10.npz --output output/report
    maskfeat report --scores a/test_scores_1x10.npz b/test_scores_1x10.npz --output output/compared

A test writes its own report; this makes it again from the scores alone, also of a test without one.
Of two files it compares the models: accuracy of both, the difference with its confidence interval,
McNemar's test, and the videos that are right in one only. FOLDER gets report.html, a page for any
browser without a network, and report.json with the same numbers. Videos are shown if their files
are where they were during the test.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.metrics.saved_scores import read_scores
from slowfast_maskfeat.runs.test_report import (
    Report,
    compare_tests,
    local_frames,
    refuse_other,
    report_scores,
    write_report,
)
from slowfast_maskfeat.text import printable


def main(arguments: Sequence[str]) -> int:
    """Write a report.

    Returns:
        The exit code: 0, or 2 for invalid input.
    """
    warnings.simplefilter("ignore")  # of decoders; videos that they can't read are listed
    options = _parse(arguments)
    return exit_code(lambda: _report(options), output=options.output)


def _report(options: argparse.Namespace) -> None:
    report = _compute(options.scores, options.videos)
    if not options.force:
        refuse_other(report, options.output)
    print_written(write_report(report, options.output))


def _compute(files: Sequence[str], num_videos: int) -> Report:
    try:
        tests = [read_scores(file) for file in files]
        if len(tests) > 1:
            return compare_tests(tests[0], tests[1], (files[0], files[1]))
        title = f"Test: {printable(files[0])}"
        return report_scores(tests[0], title, local_frames(tests[0].paths), num_videos)
    except ValueError as error:
        raise ValueError(f"--scores: {error}") from error


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be >= 0, got {text}")
    return number


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--scores",
        nargs="+",
        required=True,
        metavar="FILE",
        help="test_scores_*.npz of a test; two of the same list are compared, second minus first",
    )
    add("--output", type=Path, required=True, metavar="FOLDER", help="folder of the report")
    add(
        "--videos",
        type=_count,
        default=8,
        help="videos to show, wrong ones and right ones (default: %(default)s each)",
    )
    add("--force", action="store_true", help="overwrite another report")
    options = parser.parse_args(arguments)
    if len(options.scores) > 2:
        parser.error(f"--scores takes one file or two, got {len(options.scores)}")
    return options
