"""Reports of tests from their files of scores."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from slowfast_maskfeat.cli import print_written
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


def write(options: argparse.Namespace) -> None:
    """Write a report.

    Args:
        options: of `maskfeat report`.

    Raises:
        ValueError: a file has no scores, two are of different lists, or another report exists.
    """
    report = _compute(options.scores, options.num_videos)
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
