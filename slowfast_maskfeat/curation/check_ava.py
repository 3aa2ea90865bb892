"""Checks of the files of AVA, or of a data set in its format: rows, boxes, times, videos."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from slowfast_maskfeat.curation.check_videos import measure_length
from slowfast_maskfeat.curation.jobs import Failure, run_jobs
from slowfast_maskfeat.curation.output_files import write_table, write_text
from slowfast_maskfeat.datasets.ava_media import find_videos
from slowfast_maskfeat.datasets.box_rows import box_fields, read_excluded
from slowfast_maskfeat.datasets.frame_lists import list_frame_folders, read_frame_lists
from slowfast_maskfeat.datasets.key_frames import second_in_file
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.videos.decode import DecodeError

_NUM_SHOWN = 20


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


class Media(NamedTuple):
    """Location of the videos, and the time that each covers.

    Attributes:
        where: folder or lists, for messages.
        paths: name of a video -> its file, or first frame.
        lengths: name -> seconds, or why it cannot be decoded.
        begin: time of the first frame of each video; None: determined for each.
    """

    where: str
    paths: Mapping[str, str]
    lengths: Mapping[str, float | Failure]
    begin: float | None

    def problem(self, name: str, second: float) -> str:
        """Problem of a key frame, or ""."""
        if name not in self.paths:
            return f"the video {name!r} is missing in {self.where}"
        length = self.lengths[name]
        if isinstance(length, Failure):
            return f"the video {self.paths[name]} cannot be decoded: {length.reason}"
        try:
            second_in_file(self.paths[name], second, self.begin, length)
        except DecodeError as error:
            return f"{self.paths[name]}: {error.reason}"
        return ""


def find_media(
    folder: str, names: Sequence[str], *, begin: float | None, processes: int, timeout: float
) -> Media:
    """Find videos in a folder, and measure them.

    Args:
        folder: of the videos.
        names: of the videos to check.
        begin: see `Media`.
        processes: that measure them.
        timeout: seconds for a video.

    Raises:
        ValueError: there is no such folder.
    """
    found = find_videos(folder)
    paths = {name: found[name] for name in names if name in found}
    files = list(dict.fromkeys(paths.values()))
    measured: dict[str, float | Failure] = {}
    progress = Progress(len(files), "measuring videos")
    for path, result in run_jobs(measure_length, files, processes=processes, timeout=timeout):
        measured[path] = result
        progress.update()
    progress.close()
    lengths = {name: measured[path] for name, path in paths.items()}
    return Media(folder, paths, lengths, begin)


def find_frames(
    folder: str, lists: Sequence[str], names: Sequence[str], *, begin: float, fps: float
) -> Media:
    """Find extracted frames.

    Args:
        folder: with a folder of frames for each video.
        lists: published lists of frames; empty: the folders are listed.
        names: of the videos to check.
        begin: time of the first frame.
        fps: of the frames.
    """
    frames = (
        read_frame_lists(lists, folder, names, fps=fps)
        if lists
        else list_frame_folders(folder, names, fps=fps)
    )
    lengths: dict[str, float | Failure] = {}
    for name, images in frames.items():
        ends = (images.path(0), images.path(images.num_frames - 1))
        missing = [path for path in ends if not os.path.isfile(path)]
        length = images.num_frames / fps
        lengths[name] = Failure(f"{missing[0]}: no such file") if missing else length
    paths = {name: images.path(0) for name, images in frames.items()}
    return Media(", ".join(lists) or folder, paths, lengths, begin)


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
    written = [write_text(folder / report.path.name, "".join(kept))]
    if report.problems:
        table = folder / f"{report.path.stem}_refused.csv"
        written.append(write_table(table, ("line", "reason"), report.problems))
    return written


def video_names(paths: Sequence[Path]) -> Iterator[str]:
    """Yield the name of the video of each row of files of boxes."""
    for path in paths:
        for _, fields in box_fields(str(path)):
            yield fields[0]
