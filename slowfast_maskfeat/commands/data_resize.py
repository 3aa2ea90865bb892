"""Write smaller copies of the videos in lists, which are faster to decode and to seek in.

Each copy is H.264 in MP4 with the shorter side at --short-side pixels (smaller videos keep their
size), a key frame every --gop frames, upright, without audio. The output folder receives

    videos/...              the copies, in the same folders as the originals
    train.csv               list of the copies, for DATA.PATH_PREFIX <output folder>
    train_refused.csv       path and reason of each video without a copy
    classes.txt             if there is one beside the list, or labels are names
    settings.json           settings of all copies in the folder
    sources.jsonl           the original of each copy, with its size and time

The originals are not changed, and existing copies are not made again, unless their original has
changed.

Exit code: 0 if all videos have a copy, 1 if some have none, 2 for invalid input.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.commands._options import (
    CommandParser,
    add_jobs,
    add_lists,
    add_output_folder,
    whole_number,
)
from slowfast_maskfeat.curation.jobs import Failure, run_jobs
from slowfast_maskfeat.curation.output_files import (
    check_folder,
    print_first,
    reading_keys,
    write_table,
    write_text,
)
from slowfast_maskfeat.curation.read_lists import (
    common_class_names,
    read_lists,
    write_class_names,
)
from slowfast_maskfeat.curation.resize_videos import resize_pair
from slowfast_maskfeat.curation.write_list import ListRow, list_text, separator_for
from slowfast_maskfeat.datasets import VideoList, read_list
from slowfast_maskfeat.files import is_address
from slowfast_maskfeat.log import Progress


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser("data resize", __doc__)
    add_lists(parser)
    add_output_folder(parser, "the copies and their lists", required=True)
    add = parser.add_argument
    add("--short-side", type=_even, default=320, metavar="N", help="pixels, even")
    add("--gop", type=whole_number(1), default=16, metavar="N", help="frames between key frames")
    crf = "x264 quality, 0 to 51, lower is better"
    add("--crf", type=whole_number(0, 51), default=20, metavar="N", help=crf)
    add_jobs(parser, 600.0)
    return parser.parse_args(arguments)


def _even(text: str) -> int:
    number = whole_number(2)(text)
    if number % 2:
        raise argparse.ArgumentTypeError(f"must be even, got {text}")
    return number


def plan(lists: Mapping[Path, VideoList], prefix: str) -> dict[str, str]:
    """Plan the copies.

    Returns:
        Path of each original -> path of its copy in the output folder, with forward slashes.

    Raises:
        ValueError: two originals would have the same copy, or one is not a local file.
    """
    paths = {videos.path(row) for videos in lists.values() for row in range(len(videos))}
    remote = sorted(path for path in paths if is_address(path))
    if remote:
        raise ValueError(f"paths in the lists must be local files, got {remote[0]}")
    whole = {path: os.path.abspath(path) for path in sorted(paths)}
    root = os.path.abspath(prefix) if prefix else ""
    if not root or any(os.path.relpath(path, root).startswith("..") for path in whole.values()):
        root = os.path.commonpath([os.path.dirname(path) for path in whole.values()])
    copies: dict[str, str] = {}
    owners: dict[str, str] = {}
    for path, place in whole.items():
        name = os.path.splitext(os.path.relpath(place, root))[0].replace(os.sep, "/")
        copies[path] = f"videos/{name}.mp4"
        other = owners.setdefault(copies[path], place)
        if other != place:
            raise ValueError(f"{other} and {place} would have the same copy {copies[path]}")
    return copies


def check_settings(options: argparse.Namespace) -> None:
    """Store the settings in the output folder, or compare them with the stored ones.

    Raises:
        ValueError: they differ from the stored ones.
    """
    current = {name: getattr(options, name) for name in ("short_side", "gop", "crf")}
    path = options.output / "settings.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != current:
            raise ValueError(
                f"the settings must be {found} as in {options.output}, got {current}; choose "
                "another --output, or remove that folder"
            )
        return
    write_text(path, json.dumps(current, indent=2) + "\n")


def make_copies(
    copies: Mapping[str, str], options: argparse.Namespace
) -> tuple[dict[str, str], list[str]]:
    """Make the missing copies.

    Returns:
        Path -> reason of videos without a copy; the copies that were made.

    Raises:
        ValueError: a copy in the folder is that of another video.
    """
    record = options.output / "sources.jsonl"
    made_from = _read_sources(record)
    missing: dict[str, list[Any] | None] = {}
    for path, copy in copies.items():
        found = _source(path)
        if not _is_made(options.output / copy, path, found, made_from.get(copy)):
            missing[path] = found
    for place in {os.path.dirname(copy) for copy in copies.values()}:
        (options.output / place).mkdir(parents=True, exist_ok=True)
    pairs = [(path, str(options.output / copies[path])) for path in missing]
    work = partial(
        resize_pair,
        short_side=options.short_side,
        gop=options.gop,
        crf=options.crf,
    )
    refused: dict[str, str] = {}
    made: list[str] = []
    progress = Progress(len(copies), "resizing", initial=len(copies) - len(pairs))
    jobs = run_jobs(work, pairs, processes=options.processes, timeout=options.timeout)
    for (path, copy), result in jobs:
        if isinstance(result, Failure):
            refused[path] = result.reason
        else:
            made.append(copy)
            _add_source(record, copies[path], missing[path])
        progress.update(refused=len(refused))
    progress.close()
    return refused, made


def _is_made(copy: Path, path: str, found: list[Any] | None, made_from: list[Any] | None) -> bool:
    """Whether a file is the copy of a video as it is now.

    Args:
        copy: the file.
        path: of the video.
        found: see `_source`.
        made_from: the same of the video that the file was made from; None if that is not known.
    """
    if not copy.exists():
        return False
    if made_from is None or found is None:  # made by a former version; or outlives its original
        return True
    is_path = made_from[0] == found[0]
    if made_from[1:] != found[1:] and not is_path:
        raise ValueError(
            f"{copy} is the copy of {made_from[0]}, not of {path}; choose another --output, or a "
            "--prefix above both"
        )
    return bool(made_from[1:] == found[1:])


def _source(path: str) -> list[Any] | None:
    """Path, size and time of a video; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [os.path.abspath(path), status.st_size, status.st_mtime_ns]


def _read_sources(record: Path) -> dict[str, list[Any]]:
    """Read the original of each copy; damaged lines say nothing."""
    sources: dict[str, list[Any]] = {}
    for line in record.read_bytes().splitlines() if record.exists() else ():
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, list) and len(row) == 4:
                sources[row[0]] = row[1:]
    return sources


def _add_source(record: Path, copy: str, source: list[Any] | None) -> None:
    """Append the original of a copy in one write, since several commands may share the folder."""
    if source is not None:
        with open(record, "ab", buffering=0) as file:
            file.write(json.dumps([copy, *source]).encode("ascii") + b"\n")


def write_lists(
    lists: Mapping[Path, VideoList],
    copies: Mapping[str, str],
    refused: Mapping[str, str],
    output: Path,
) -> list[Path]:
    """Write the list of the copies, and that of videos without a copy; returns the files."""
    rows = {path: _rows(videos, copies, refused) for path, videos in lists.items()}
    separator = separator_for([row for kept in rows.values() for row in kept])
    written: list[Path] = []
    for path, videos in lists.items():
        bad = [videos.path(row) for row in range(len(videos)) if videos.path(row) in refused]
        table = output / f"{path.stem}_refused.csv"
        reasons = [(video, refused[video]) for video in bad]
        written.append(write_table(table, ("path", "reason"), reasons))
        text = f"{path}: {len(videos)} rows, {len(bad)} refused"
        if rows[path]:
            written.append(write_text(output / path.name, list_text(rows[path], separator)))
            digest = read_list(written[-1], separator=separator).fingerprint
            text += f"; {written[-1]}: {len(rows[path])} rows, sha256 {digest}"
        print(text)
        print_first([f"{video}: {refused[video]}" for video in bad], table)
    print(reading_keys(output, str(output), separator))
    return written


def _rows(
    videos: VideoList, copies: Mapping[str, str], refused: Mapping[str, str]
) -> list[ListRow]:
    labels = videos.single_labels()
    return [
        ListRow(copies[videos.path(row)], None if labels is None else labels[row])
        for row in range(len(videos))
        if videos.path(row) not in refused
    ]


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    options = parse_arguments(arguments)
    return exit_code(lambda: _work(options), resumable=True)


def _work(options: argparse.Namespace) -> int:
    named = read_lists(options.lists, separator=options.separator, prefix=options.prefix)
    names = common_class_names(named)
    lists = {path: videos for path, (videos, _) in named.items()}
    for videos in lists.values():
        videos.single_labels()  # raises its error before any video is copied
    check_folder(options.lists, options.output)
    copies = plan(lists, options.prefix)
    for path, copy in copies.items():
        if os.path.realpath(path) == os.path.realpath(options.output / copy):
            raise ValueError(
                f"--output must be another folder than that of {path}, got {options.output}"
            )
    check_settings(options)
    refused, made = make_copies(copies, options)
    written = write_lists(lists, copies, refused, options.output)
    print_written([*made, *written, *write_class_names(names, options.output)])
    return 1 if refused else 0
