#!/usr/bin/env python3
"""Check the files of AVA, or of a data set in its format, against each other and the videos.

    python datasets/check_ava.py --label-map ava/actions.pbtxt --videos ava/videos \\
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

if __name__ == "__main__":
    from slowfast_maskfeat.cli import end_on_interrupt

    end_on_interrupt()  # during the imports, which take seconds

import argparse
import csv
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.curation.check_videos import measure_length
from slowfast_maskfeat.curation.jobs import Failure, run_jobs
from slowfast_maskfeat.datasets.ava_media import find_videos
from slowfast_maskfeat.datasets.box_rows import box_fields, read_excluded
from slowfast_maskfeat.datasets.frame_lists import list_frame_folders, read_frame_lists
from slowfast_maskfeat.datasets.key_frames import second_in_file
from slowfast_maskfeat.datasets.label_map import read_labelmap
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.text import printable
from slowfast_maskfeat.videos.decode import DecodeError

_NUM_SHOWN = 20


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--label-map", type=Path, required=True, help="the .pbtxt file, as AVA.LABEL_MAP_FILE")
    add("--train", type=Path, nargs="+", default=[], metavar="CSV", help="boxes for training")
    add("--test", type=Path, nargs="+", default=[], metavar="CSV", help="boxes for the test")
    add("--ground-truth", type=Path, metavar="CSV", help="as AVA.GROUNDTRUTH_FILE")
    add("--excluded", type=Path, metavar="CSV", help="as AVA.EXCLUSION_FILE")
    add("--threshold", type=float, default=0.9, help="as AVA.DETECTION_SCORE_THRESH; 0.9")
    add("--videos", default="", help="folder of the videos, as AVA.VIDEO_DIR")
    add("--video-begin", type=float, default=-1.0, help="as AVA.VIDEO_BEGIN; default: determined")
    add("--frames", default="", help="folder of extracted frames, as AVA.FRAME_DIR")
    add("--frame-lists", nargs="+", default=[], metavar="CSV", help="published lists of frames")
    add("--frame-begin", type=float, default=900.0, help="as AVA.FRAME_BEGIN; 900")
    add("--frame-rate", type=float, default=30.0, help="as AVA.FRAME_RATE; 30")
    add("--output", type=Path, help="folder for the files without the bad rows")
    add("--timeout", type=float, default=60.0, help="seconds per video")
    add("--processes", type=int, default=os.cpu_count() or 1, help="all cores by default")
    return parser.parse_args(arguments)


@dataclass
class Report:
    """Problems and contents of a file.

    Attributes:
        path: the file.
        problems: line (0: the entire file) and reason.
        keys: its key frames: video and milliseconds.
        num_rows: number of its rows.
        boxes: boxes of valid rows, with their key frames.
        actions: number of rows of each action.
    """

    path: Path
    problems: list[tuple[int, str]] = field(default_factory=list)
    keys: set[tuple[str, int]] = field(default_factory=set)
    num_rows: int = 0
    boxes: set[tuple[str, ...]] = field(default_factory=set)
    actions: dict[int, int] = field(default_factory=dict)

    @property
    def videos(self) -> set[str]:
        """Names of the videos."""
        return {name for name, _ in self.keys}

    def __str__(self) -> str:
        """Counts, followed by the problems."""
        counts = (
            f"{self.path}: {self.num_rows} rows, {len(self.videos)} videos, {len(self.keys)} key "
            f"frames, {len(self.boxes)} boxes, {len(self.actions)} actions; "
            f"{len(self.problems)} problems"
        )
        lines = [
            f"  {self.path}, line {line}: {what}" if line else f"  {self.path}: {what}"
            for line, what in self.problems[:_NUM_SHOWN]
        ]
        if len(self.problems) > _NUM_SHOWN:
            lines.append(
                f"  ... and {len(self.problems) - _NUM_SHOWN} more (--output has them all)"
            )
        return "\n".join([counts, *lines])


class Media:
    """Location of the videos, and the time that each covers.

    Args:
        options: the command line.
        names: names of the videos to check.
    """

    def __init__(self, options: argparse.Namespace, names: Sequence[str]) -> None:
        self._begin = None if options.video_begin < 0 else options.video_begin
        self._lengths: dict[str, float | Failure] = {}
        self._paths: Mapping[str, str] = {}
        if options.videos:
            self._where = options.videos
            found = find_videos(options.videos)
            self._paths = {name: found[name] for name in names if name in found}
            self._measure(options)
        else:
            self._where = ", ".join(options.frame_lists) or options.frames
            self._begin = options.frame_begin
            rate, folder = options.frame_rate, options.frames
            frames = (
                read_frame_lists(options.frame_lists, folder, names, fps=rate)
                if options.frame_lists
                else list_frame_folders(folder, names, fps=rate)
            )
            self._paths = {name: images.path(0) for name, images in frames.items()}
            for name, images in frames.items():
                last = images.path(images.num_frames - 1)
                missing = [path for path in (images.path(0), last) if not os.path.isfile(path)]
                length = images.num_frames / rate
                self._lengths[name] = Failure(f"{missing[0]}: no such file") if missing else length

    def _measure(self, options: argparse.Namespace) -> None:
        names = {path: name for name, path in self._paths.items()}
        progress = Progress(len(names), "measuring videos")
        jobs = run_jobs(
            measure_length, list(names), processes=options.processes, timeout=options.timeout
        )
        for path, result in jobs:
            self._lengths[names[path]] = result
            progress.update()
        progress.close()

    def problem(self, name: str, second: float) -> str:
        """Problem of a key frame, or ""."""
        if name not in self._paths:
            return f"the video {name!r} is missing in {self._where}"
        length = self._lengths[name]
        if isinstance(length, Failure):
            return f"the video {self._paths[name]} cannot be decoded: {length.reason}"
        try:
            second_in_file(self._paths[name], second, self._begin, length)
        except DecodeError as error:
            return f"{self._paths[name]}: {error.reason}"
        return ""


def check_file(
    path: Path, labelmap: Mapping[int, str], media: Media, threshold: float | None
) -> Report:
    """Check the rows of a file of boxes.

    Args:
        path: the file.
        labelmap: number -> name of each action.
        media: the videos.
        threshold: minimum score of detected boxes; None for annotated ones.
    """
    report = Report(path)
    number_of_fields = 0
    seen: dict[tuple[str, ...], int] = {}
    for line, fields in box_fields(str(path)):
        report.num_rows += 1
        number_of_fields = number_of_fields or len(fields)
        row = _parsed(fields, number_of_fields, max(labelmap))
        if isinstance(row, str):
            report.problems.append((line, row))
            continue
        name, second, action, score = row
        same = (name, f"{second:g}", *fields[2:7])
        if threshold is not None and score is not None and score < threshold:
            continue
        report.keys.add((name, round(1000 * second)))
        what = media.problem(name, second)
        if same in seen:
            what = what or f"repeats line {seen[same]}"
        if what:
            report.problems.append((line, what))
            continue
        seen[same] = line
        report.boxes.add(same[:-1])
        if action > 0:
            report.actions[action] = report.actions.get(action, 0) + 1
    if not report.num_rows:
        report.problems.append((0, "has no rows"))
    elif not report.keys:
        report.problems.append((0, f"has no row with a score >= {threshold}"))
    return report


def _parsed(
    fields: Sequence[str], num_fields: int, highest: int
) -> tuple[str, float, int, float | None] | str:
    """Video, second, action and score (None for a person id) of a row; or its problem."""
    if len(fields) != num_fields or num_fields not in (7, 8):
        return f"the number of fields must be 7 or 8, as in the first row, got {len(fields)}"
    try:
        second, *box = map(float, fields[1:6])
        action = int(float(fields[6] or -1))
        last = float(fields[7]) if num_fields == 8 else None
    except ValueError as error:
        return f"second, box, action and score must be numbers: {error}"
    x1, y1, x2, y2 = box
    if not fields[0]:
        return "the name of the video must not be empty"
    if not 0 <= second < float("inf"):
        return f"the time must be seconds >= 0, got {fields[1]}"
    if not all(0 <= side <= 1 for side in box):
        return f"the box must be in [0, 1], got {', '.join(fields[2:6])}"
    if x2 < x1 or y2 < y1:
        box_text = ", ".join(fields[2:6])
        return f"the box must be x1, y1, x2, y2 with x1 <= x2, y1 <= y2, got {box_text}"
    if action != -1 and not 1 <= action <= highest:
        return f"the action must be in 1..{highest}, as in the label map, got {action}"
    return fields[0], second, action, None if last is None or last % 1 == 0 else last


def compare(
    train: Sequence[Report], test: Sequence[Report], truth: Report | None, excluded: Path | None
) -> None:
    """Add the contradictions among the files to their reports."""
    if truth is not None:
        for report in test:
            if not report.keys & truth.keys:
                report.problems.append((0, f"has no key frame in common with {truth.path}"))
        for report in train:
            both = sorted(report.videos & truth.videos)
            if both:
                named = ", ".join(both[:5])
                what = f"{len(both)} videos are also in {truth.path}: {named}"
                report.problems.append((0, what))
    if excluded is not None and truth is not None:
        names, _ = read_excluded(excluded)
        if names and not set(names) & truth.videos:
            truth.problems.append((0, f"has no video in common with {excluded}"))


def write_clean(report: Report, folder: Path) -> list[Path]:
    """Write a file without the bad rows, and the reasons for removing them; returns both files."""
    refused = {line for line, _ in report.problems}
    text = report.path.read_bytes().decode("utf-8", "surrogateescape")
    kept = (
        row for line, row in enumerate(text.splitlines(keepends=True), 1) if line not in refused
    )
    written = [folder / report.path.name]
    _write(written[0], "".join(kept))
    if report.problems:
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerows([("line", "reason"), *report.problems])
        written.append(folder / f"{report.path.stem}_refused.csv")
        _write(written[1], table.getvalue())
    return written


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_bytes(text.encode("utf-8", "surrogateescape"))


def _names(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        for _, fields in box_fields(str(path)):
            yield fields[0]


def check(options: argparse.Namespace) -> tuple[int, list[Path]]:
    """Check all files; returns the number of problems, and the files that were written.

    Raises:
        ValueError: A file or folder is missing.
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
    labelmap = read_labelmap(options.label_map)
    media = Media(options, list(dict.fromkeys(_names(files))))
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = parse_arguments(arguments)
    return exit_code(lambda: _work(options))


def _work(options: argparse.Namespace) -> int:
    num_problems, written = check(options)
    print(f"{num_problems} problems")
    print_written(written)
    return 1 if num_problems else 0


if __name__ == "__main__":
    sys.exit(main())
