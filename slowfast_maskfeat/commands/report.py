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

from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.commands._options import (
    CommandParser,
    add_force,
    add_output_folder,
    whole_number,
)


def main(arguments: Sequence[str]) -> int:
    """Write a report.

    Returns:
        The exit code: 0, or 2 for invalid input.
    """
    options = _parse(arguments)
    from slowfast_maskfeat.commands._report import write  # after the help, which is fast

    warnings.simplefilter("ignore")  # of decoders; videos that they can't read are listed
    return exit_code(lambda: write(options), output=options.output)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser("report", __doc__)
    add = parser.add_argument
    add(
        "--scores",
        nargs="+",
        required=True,
        metavar="FILE",
        help="test_scores_*.npz of a test; two of the same list are compared, second minus first",
    )
    add_output_folder(parser, "the report", required=True)
    add_force(parser, "another report")
    videos = "videos to show, so many wrong ones and so many right ones"
    add("--num-videos", type=whole_number(0), default=8, metavar="N", help=videos)
    options = parser.parse_args(arguments)
    if len(options.scores) > 2:
        parser.error(f"--scores takes one file or two, got {len(options.scores)}")
    return options
