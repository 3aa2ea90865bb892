"""Check the files of AVA, or of a data set in its format, against each other and the videos.

    maskfeat data check-ava --label-map ava/actions.pbtxt --videos ava/videos \\
        --train ava/ava_train_v2.2.csv --test ava/ava_val_predicted_boxes.csv \\
        --ground-truth ava/ava_val_v2.2.csv --excluded ava/ava_val_excluded_timestamps_v2.2.csv

Reports with file and line: malformed rows, boxes with swapped corners or outside of the frame,
times after the end of the video, actions that are not in the label map, videos that are missing or
cannot be decoded, duplicate boxes with the same action. Reports per file: test boxes without a key
frame in common with the ground truth, excluded key frames of other videos, training videos that are
also in the ground truth.

With --output, writes each file without the bad rows, and <file>_refused.csv (line, reason) if there
are some.

Exit code: 0 without problems, 1 with problems, 2 for invalid input.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.commands._options import (
    CommandParser,
    add_jobs,
    add_output_folder,
    finite,
    fraction,
    positive,
)
from slowfast_maskfeat.curation.check_ava import (
    Media,
    check_file,
    compare,
    find_frames,
    find_media,
    video_names,
    write_clean,
)
from slowfast_maskfeat.datasets.label_map import read_labelmap
from slowfast_maskfeat.text import printable


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser("data check-ava", __doc__)
    add = parser.add_argument
    file, files = {"type": Path, "metavar": "CSV"}, {"type": Path, "metavar": "CSV", "nargs": "+"}
    label_map = "the .pbtxt file, as AVA.LABEL_MAP_FILE"
    add("--label-map", type=Path, required=True, metavar="FILE", help=label_map)
    add("--train", default=[], help="boxes for training", **files)
    add("--test", default=[], help="boxes for the test", **files)
    add("--ground-truth", help="as AVA.GROUNDTRUTH_FILE", **file)
    add("--excluded", help="as AVA.EXCLUSION_FILE", **file)
    score = "as AVA.DETECTION_SCORE_THRESH"
    add("--threshold", type=fraction, default=0.9, metavar="SCORE", help=score)
    add("--videos", default="", metavar="FOLDER", help="of the videos, as AVA.VIDEO_DIR")
    begin = "as AVA.VIDEO_BEGIN (default: determined)"
    add("--video-begin", type=finite, metavar="SECONDS", help=begin)
    add("--frames", default="", metavar="FOLDER", help="of extracted frames, as AVA.FRAME_DIR")
    lists = "published lists of frames"
    add("--frame-lists", nargs="+", default=[], metavar="CSV", help=lists)
    begin = "as AVA.FRAME_BEGIN"
    add("--frame-begin", type=finite, default=900.0, metavar="SECONDS", help=begin)
    rate = positive("frames per second")
    add("--frame-rate", type=rate, default=30.0, metavar="FPS", help="as AVA.FRAME_RATE")
    add_output_folder(parser, "the files without the bad rows")
    add_jobs(parser, 60.0)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    options = parse_arguments(arguments)
    return exit_code(lambda: _work(options))


def _work(options: argparse.Namespace) -> int:
    num_problems, written = check(options)
    print(f"{num_problems} problems")
    print_written(written)
    return 1 if num_problems else 0


def check(options: argparse.Namespace) -> tuple[int, list[Path]]:
    """Check all files; returns the number of problems, and the files that were written.

    Raises:
        ValueError: a file or folder is missing.
    """
    files = _files(options)
    labelmap = read_labelmap(options.label_map)
    media = _media(options, list(dict.fromkeys(video_names(files))))
    reports = {
        path: check_file(path, labelmap, media, options.threshold if path in options.test else None)
        for path in files
    }
    train, test = ([reports[path] for path in paths] for paths in (options.train, options.test))
    compare(train, test, reports.get(options.ground_truth), options.excluded)
    written: list[Path] = []
    for report in reports.values():
        print(printable(str(report)))
        if options.output:
            written += write_clean(report, options.output)
    return sum(len(report.problems) for report in reports.values()), written


def _files(options: argparse.Namespace) -> list[Path]:
    """Return the files to check.

    Raises:
        ValueError: one is missing, or --output would replace it.
    """
    truths = [options.ground_truth] if options.ground_truth else []
    files = [*options.train, *options.test, *truths]
    for path in files + ([options.excluded] if options.excluded else []):
        if not path.is_file():
            raise ValueError(f"{path} does not exist")
    if not files:
        raise ValueError("--train, --test or --ground-truth must name a file to check, got none")
    if not options.videos and not options.frames:
        raise ValueError("--videos or --frames must be the folder of videos or frames, got none")
    if options.output and len({path.name for path in files}) < len(files):
        raise ValueError("--output: file names must be unique, got the same name twice")
    if options.output and any(path.resolve().parent == options.output.resolve() for path in files):
        raise ValueError(
            f"--output must be another folder than that of the files, got {options.output}"
        )
    return files


def _media(options: argparse.Namespace, names: Sequence[str]) -> Media:
    if not options.videos:
        return find_frames(
            options.frames,
            options.frame_lists,
            names,
            begin=options.frame_begin,
            fps=options.frame_rate,
        )
    begin = options.video_begin
    return find_media(
        options.videos,
        names,
        begin=None if begin is None or begin < 0 else begin,  # -1: as AVA.VIDEO_BEGIN has it
        processes=options.processes,
        timeout=options.timeout,
    )
