"""Summarize the videos of a list: number, durations, frame rates, resolutions.

Prints the summary, and for a list `train.csv` writes `train_summary.png` (histograms) and
`train_summary.json` to the output folder. Packets are counted and one frame of each video is
decoded; unreadable videos are listed in the JSON file. To resume an interrupted run, repeat the
command.

Exit code: 0, or 2 for invalid input.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.commands._options import (
    CommandParser,
    add_jobs,
    add_lists,
    add_output_folder,
)
from slowfast_maskfeat.curation.check_videos import measure_video
from slowfast_maskfeat.curation.jobs import Failure, Journal, run_jobs
from slowfast_maskfeat.curation.output_files import write_text
from slowfast_maskfeat.datasets import VideoList, read_list
from slowfast_maskfeat.datasets.list_file import separator_of
from slowfast_maskfeat.figures import draw_or_warn, histograms
from slowfast_maskfeat.log import Progress, format_duration

_NUMBERS = {"duration": "duration (s)", "fps": "frames per second", "num_frames": "frames"}


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser("data summary", __doc__)
    add_lists(parser)
    add_output_folder(parser, "histograms and numbers", required=True)
    add_jobs(parser, 30.0)
    return parser.parse_args(arguments)


def measure(path: Path, videos: VideoList, options: argparse.Namespace) -> dict[str, Any]:
    """Measure each video of a list: path -> `measure_video`'s dict or a `Failure`."""
    paths = list(dict.fromkeys(videos.path(row) for row in range(len(videos))))
    settings = {"list_sha256": videos.fingerprint, "prefix": options.prefix}
    with Journal(options.output / f".{path.stem}_summary.jsonl", settings) as journal:
        left = [video for video in paths if video not in journal.done]
        progress = Progress(len(paths), f"measuring {path.name}", initial=len(paths) - len(left))
        jobs = run_jobs(measure_video, left, processes=options.processes, timeout=options.timeout)
        for video, result in jobs:
            journal.add(video, result)
            progress.update()
        progress.close()
    return journal.done


def summarize(videos: VideoList, measured: dict[str, Any]) -> dict[str, Any]:
    """Counts, and the range of each number over the videos of a list."""
    found = {video: m for video, m in measured.items() if not isinstance(m, Failure)}
    unread = {video: m.reason for video, m in measured.items() if isinstance(m, Failure)}
    summary: dict[str, Any] = {
        "num_rows": len(videos),
        "num_videos": len(measured),
        "num_unreadable": len(unread),
        "list_sha256": videos.fingerprint,
        "hours": sum(m["duration"] for m in found.values()) / 3600,
    }
    if videos.labels is not None:
        counts = np.bincount(videos.labels)
        counts = counts[counts > 0]
        summary["num_classes"] = len(counts)
        summary["rows_per_class"] = _spread(counts)
    for field in _NUMBERS if found else ():
        summary[field] = _spread([m[field] for m in found.values()])
    sizes = Counter(f"{m['width']}x{m['height']}" for m in found.values())
    summary["resolutions"] = dict(sizes.most_common())
    summary["unreadable"] = unread
    return summary


def _spread(values: Any) -> dict[str, float]:
    low, median, high = np.percentile(values, (0, 50, 100)).tolist()
    return {"min": low, "median": median, "mean": float(np.mean(values)), "max": high}


def report(path: Path, summary: dict[str, Any]) -> list[str]:
    """Lines of text for the summary."""
    lines = [
        f"{path}: {summary['num_rows']} rows, {summary['num_videos']} videos, "
        f"{summary['num_unreadable']} unreadable, {format_duration(summary['hours'] * 3600)} in all"
    ]
    names = {**_NUMBERS, "rows_per_class": f"rows of {summary.get('num_classes')} classes"}
    for field, name in names.items():
        if field in summary:
            spread = "  ".join(f"{key} {value:.4g}" for key, value in summary[field].items())
            lines.append(f"  {name:<20} {spread}")
    sizes = [f"{size} ({count})" for size, count in summary["resolutions"].items()]
    if sizes:
        more = f", {len(sizes) - 6} others" if len(sizes) > 6 else ""
        lines.append(f"  {'resolution':<20} {', '.join(sizes[:6])}{more}")
    return lines


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    options = parse_arguments(arguments)
    return exit_code(lambda: _work(options), resumable=True)


def _work(options: argparse.Namespace) -> int:
    written: list[Path] = []
    for path in options.lists:
        separator = separator_of(str(path), options.separator)
        videos = read_list(path, separator=separator, prefix=options.prefix)
        measured = measure(path, videos, options)
        summary = summarize(videos, measured)
        text = json.dumps(summary, indent=2) + "\n"
        written.append(write_text(options.output / f"{path.stem}_summary.json", text))
        found = [m for m in measured.values() if not isinstance(m, Failure)]
        picture = options.output / f"{path.stem}_summary.png"
        if found and draw_or_warn(picture, partial(_draw, picture, path.name, found)):
            written.append(picture)
        print("\n".join(report(path, summary)))
    print_written(written)
    return 0


def _draw(picture: Path, name: str, found: Sequence[dict[str, Any]]) -> None:
    panels: dict[str, Any] = {label: [m[field] for m in found] for field, label in _NUMBERS.items()}
    panels["resolution"] = [f"{m['width']}x{m['height']}" for m in found]
    histograms(picture, panels, title=f"{name}: {len(found)} videos")
