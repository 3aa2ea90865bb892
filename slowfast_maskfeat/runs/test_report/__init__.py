"""Reports: report.html and report.json of a test, or of two tests of the same list."""

from __future__ import annotations

from slowfast_maskfeat.runs.test_report.comparison import compare_tests
from slowfast_maskfeat.runs.test_report.detection import report_boxes
from slowfast_maskfeat.runs.test_report.examples import list_frames, local_frames
from slowfast_maskfeat.runs.test_report.scores import report_scores
from slowfast_maskfeat.runs.test_report.write import Report, refuse_other, write_report

__all__ = [
    "Report",
    "compare_tests",
    "list_frames",
    "local_frames",
    "refuse_other",
    "report_boxes",
    "report_scores",
    "write_report",
]
