"""Find the videos of a list that cannot be decoded, and write the list without them.

Decodes the first, middle and last frame of each video (--full: all frames). For a list `train.csv`
the output folder receives

    train.csv           the remaining lines, unchanged
    train_refused.csv   path, line and reason of each refused row
    train_check.json    counts, hashes of both lists, decoder and version, refused rows
    classes.txt         if there is one beside the list, or labels are names

A video that takes longer than --timeout, because its decoder or disk hangs, is refused as well. To
resume an interrupted run, repeat the command.

Exit code: 0 if all videos can be decoded, 1 if some cannot, 2 for invalid input.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.commands._options import (
    CommandParser,
    add_jobs,
    add_lists,
    add_output_folder,
    whole_number,
)
from slowfast_maskfeat.curation.check_videos import check_video, require_decoder
from slowfast_maskfeat.curation.jobs import Failure, Journal, run_jobs
from slowfast_maskfeat.curation.output_files import (
    check_folder,
    print_first,
    write_table,
    write_text,
)
from slowfast_maskfeat.curation.read_lists import (
    NamedList,
    common_class_names,
    read_lists,
    write_class_names,
)
from slowfast_maskfeat.datasets import read_list
from slowfast_maskfeat.datasets.list_file import list_lines, separator_of
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.videos.decode import DECODERS, decoder_versions
from slowfast_maskfeat.videos.media import MAX_IMAGE_PIXELS

# Seconds for three frames, and for all.
_TIMEOUT, _FULL_TIMEOUT = 30.0, 300.0
_COLUMNS = ("path", "line", "reason")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser("data check", __doc__)
    add_lists(parser)
    add_output_folder(parser, "the clean lists", required=True)
    add = parser.add_argument
    add("--full", action="store_true", help="decode all frames")
    add(
        "--decoder",
        default="auto",
        choices=DECODERS,
        help="as DATA.DECODING_BACKEND",
    )
    add(
        "--max-image-pixels",
        type=whole_number(0),
        default=MAX_IMAGE_PIXELS,
        metavar="N",
        help="as DATA.MAX_IMAGE_PIXELS; 0: no limit",
    )
    seconds = f"seconds for a video (default: {_TIMEOUT:g}, with --full {_FULL_TIMEOUT:g})"
    add_jobs(parser, None, seconds)
    return parser.parse_args(arguments)


def check_list(path: Path, named: NamedList, options: argparse.Namespace) -> tuple[int, list[Path]]:
    """Check one list and write the results; returns the number of refused rows, and the files."""
    separator = separator_of(str(path), options.separator)
    videos, names = named
    header, lines = list_lines(str(path), separator, len(videos))
    paths = [videos.path(row) for row in range(len(videos))]
    versions = decoder_versions(options.decoder)
    settings = {
        "list_sha256": videos.fingerprint,
        "prefix": options.prefix,
        "decoders": versions,
        "full": options.full,
        "max_image_pixels": options.max_image_pixels,
    }
    with Journal(options.output / f".{path.stem}_check.jsonl", settings) as journal:
        _check_all(paths, journal, options, path.name)
        results = [journal.done[video] for video in paths]
        refused = [
            {"path": video, "line": line, "reason": result.reason}
            for video, (line, _), result in zip(paths, lines, results, strict=True)
            if isinstance(result, Failure)
        ]
        bad_lines = {entry["line"] for entry in refused}
        kept = [text for line, text in lines if line not in bad_lines]
        clean = options.output / path.name
        written, left = [], ""
        if kept:
            written.append(write_text(clean, header + "".join(kept)))
            rest = read_list(clean, separator=separator, prefix=options.prefix, class_names=names)
            left = rest.fingerprint
        table = options.output / f"{path.stem}_refused.csv"
        written.append(write_table(table, _COLUMNS, [tuple(row.values()) for row in refused]))
        report = {
            "list": str(path),
            **settings,
            "num_rows": len(videos),
            "num_refused": len(refused),
            "clean_list_sha256": left,
            "refused": refused,
        }
        text = json.dumps(report, indent=2) + "\n"
        written.append(write_text(options.output / f"{path.stem}_check.json", text))
    print(f"{path}: {len(videos)} rows, {len(refused)} refused")
    print_first([f"line {row['line']}: {row['path']}: {row['reason']}" for row in refused], table)
    print(f"{clean}: {len(kept)} rows, sha256 {left}" if kept else "no rows remain")
    return len(refused), written


def _check_all(
    paths: Sequence[str], journal: Journal, options: argparse.Namespace, name: str
) -> None:
    unique = list(dict.fromkeys(paths))
    left = [path for path in unique if path not in journal.done]
    refused = sum(isinstance(result, Failure) for result in journal.done.values())
    timeout = options.timeout
    if timeout is None:
        timeout = _FULL_TIMEOUT if options.full else _TIMEOUT
    work = partial(
        check_video,
        backend=options.decoder,
        full=options.full,
        max_image_pixels=options.max_image_pixels,
    )
    progress = Progress(len(unique), f"checking {name}", initial=len(unique) - len(left))
    for path, result in run_jobs(work, left, processes=options.processes, timeout=timeout):
        journal.add(path, result)
        refused += isinstance(result, Failure)
        progress.update(refused=refused)
    progress.close()


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    options = parse_arguments(arguments)
    return exit_code(lambda: _work(options), resumable=True)


def _work(options: argparse.Namespace) -> int:
    num_refused, written = 0, list[Path]()
    require_decoder(options.decoder)
    check_folder(options.lists, options.output)
    lists = read_lists(options.lists, separator=options.separator, prefix=options.prefix)
    names = common_class_names(lists)
    for path, named in lists.items():
        num_bad, files = check_list(path, named, options)
        num_refused += num_bad
        written += files
    print_written([*written, *write_class_names(names, options.output)])
    return 1 if num_refused else 0
