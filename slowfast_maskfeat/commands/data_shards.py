"""Pack the videos or images in lists into tar shards in the layout of WebDataset.

A few large files are copied and read faster than many small ones, from disks that seek and from
storage on the network. For a list `train.csv` the output folder receives

    train-000000.tar ...    the videos, each preceded by its label in a member `.cls`
    *.tar.index.json        index of each shard, which saves scanning it
    train_shards.txt        names of the shards
    train_shards.json       hashes and counts
    train_refused.csv       path and reason of each row that is not in a shard
    classes.txt             if there is one beside the list, or labels are names

Rows of lists whose name begins with `train` are shuffled first, so that neighbors in a shard have
different classes; other lists keep their order. The same rows give the same bytes. To resume an
interrupted run, repeat the command.

Exit code: 0 if all rows are in shards, 1 if some are not, 2 for invalid input.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.commands._options import (
    CommandParser,
    add_jobs,
    add_lists,
    add_output_folder,
    whole_number,
)
from slowfast_maskfeat.curation.jobs import Failure, run_jobs
from slowfast_maskfeat.curation.output_files import print_first, write_table, write_text
from slowfast_maskfeat.curation.read_lists import (
    common_class_names,
    read_lists,
    write_class_names,
)
from slowfast_maskfeat.curation.write_shards import (
    PackedRow,
    ShardJob,
    cut_into_shards,
    member_names,
    write_shard,
)
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.files import PART_SUFFIX, is_address, open_file
from slowfast_maskfeat.log import Progress, first_line
from slowfast_maskfeat.text import printable
from slowfast_maskfeat.videos.media import is_media

_NUM_FAILED = 10  # shown; their number is printed
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
# Threads that query file sizes.
_NUM_THREADS = 16


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser("data shards", __doc__)
    add_lists(parser)
    add_output_folder(parser, "the shards", required=True)
    add = parser.add_argument
    size = "maximum bytes of videos in a shard, with K, M or G"
    add("--max-size", type=_num_bytes, default="1G", metavar="SIZE", help=size)
    count = "maximum number of videos in a shard"
    add("--max-count", type=whole_number(1), default=10_000, metavar="N", help=count)
    add(
        "--seed",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="seed for shuffling training lists",
    )
    add("--keep-order", action="store_true", help="do not shuffle training lists")
    add_jobs(parser, 3600.0, "seconds for a shard")
    return parser.parse_args(arguments)


def _num_bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)B?", text.strip().upper())
    size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if size < 1:
        rule = "a number of bytes such as 500M or 1G"
        raise argparse.ArgumentTypeError(f"must be {rule}, got {text!r}")
    return size


def measure(
    videos: VideoList, prefix: str, name: str
) -> tuple[list[PackedRow], list[tuple[str, str]]]:
    """Rows with the sizes of their files, and (path, reason) of those that cannot be packed."""
    paths = [videos.path(row) for row in range(len(videos))]
    labels: Sequence[int | None] = videos.single_labels() or [None] * len(paths)
    local = [os.path.abspath(path) for path in paths if not is_address(path)]
    root = os.path.abspath(prefix) if prefix and not is_address(prefix) else ""
    if not root and local:
        root = os.path.commonpath([os.path.dirname(path) for path in local])
    names = member_names([p if is_address(p) else os.path.abspath(p) for p in paths], root)
    rows: list[PackedRow] = []
    refused: list[tuple[str, str]] = []
    progress = Progress(len(paths), f"measuring {name}")
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        found = pool.map(_size_of, paths)
        for path, member, label, size in zip(paths, names, labels, found, strict=True):
            if isinstance(size, str):
                refused.append((path, size))
            else:
                rows.append(PackedRow(path, member, label, size))
            progress.update(refused=len(refused))
    progress.close()
    return rows, refused


def _size_of(path: str) -> int | str:
    """Size of a file in bytes, or the reason why it cannot be packed."""
    if not is_media(path):
        return "the extension is not that of a video or image"
    try:
        with open_file(path, timeout=60.0) as file:
            return file.facts().size or "the file is empty (0 bytes)"
    except FileNotFoundError:
        return "no such file"
    except Exception as error:  # each store raises errors of its own package
        return f"cannot be read: {first_line(error)}"


def plan(rows: list[PackedRow], stem: str, options: argparse.Namespace) -> list[ShardJob]:
    """Shards of a list."""
    if stem.startswith("train") and not options.keep_order:
        order = np.random.default_rng(options.seed).permutation(len(rows))
        rows = [rows[row] for row in order.tolist()]
    shards = cut_into_shards(rows, max_count=options.max_count, max_bytes=options.max_size)
    return [
        ShardJob(str(options.output / f"{stem}-{number:06d}.tar"), shard)
        for number, shard in enumerate(shards)
    ]


def check_plan(
    jobs: Sequence[ShardJob], videos: VideoList, stem: str, options: argparse.Namespace
) -> None:
    """Store the plan in the output folder, or compare it with the stored one.

    Raises:
        ValueError: the folder has shards of other rows.
    """
    digest = hashlib.sha256()
    for job in jobs:
        digest.update(os.path.basename(job.path).encode())
        for row in job.rows:
            digest.update(repr((row.name, row.label, row.size)).encode("utf-8", "surrogateescape"))
    facts = {
        "list_sha256": videos.fingerprint,
        "num_rows": sum(len(job.rows) for job in jobs),
        "num_bytes": sum(row.size for job in jobs for row in job.rows),
        "num_shards": len(jobs),
        "plan_sha256": digest.hexdigest(),
    }
    path = options.output / f"{stem}_shards.json"
    if path.exists():
        if json.loads(path.read_text("utf-8")) != facts:
            raise ValueError(
                f"--output: {options.output} has shards of another list {stem}, of files that have "
                f"changed since, or with other settings; choose another folder, or remove {path} "
                f"and {stem}-*.tar"
            )
        return
    if any(options.output.glob(f"{stem}-*.tar")):
        raise ValueError(
            f"--output: {options.output} has shards {stem}-*.tar of another program; choose "
            "another folder"
        )
    write_text(path, json.dumps(facts, indent=2) + "\n")


def write_shards(
    jobs: Sequence[ShardJob], stem: str, options: argparse.Namespace
) -> tuple[dict[str, str], list[str]]:
    """Write the missing shards.

    Returns:
        Path -> reason of shards that cannot be written; the shards that were written.
    """
    for cut_off in options.output.glob(f".{glob.escape(stem)}-*{PART_SUFFIX}"):
        cut_off.unlink(missing_ok=True)  # of a run that was killed
    missing = [job for job in jobs if not os.path.exists(job.path)]
    failed: dict[str, str] = {}
    written: list[str] = []
    progress = Progress(len(jobs), f"packing {stem}", initial=len(jobs) - len(missing))
    done = run_jobs(write_shard, missing, processes=options.processes, timeout=options.timeout)
    for job, result in done:
        if isinstance(result, Failure):
            failed[job.path] = result.reason
        else:
            written.append(job.path)
        progress.update(failed=len(failed))
    progress.close()
    return failed, written


class Packed(NamedTuple):
    """Result of packing a list.

    Attributes:
        num_refused: rows that cannot be packed.
        num_missing: shards that could not be written.
        written: files.
    """

    num_refused: int
    num_missing: int
    written: list[str | Path]


def pack(path: Path, videos: VideoList, options: argparse.Namespace) -> Packed:
    """Pack one list."""
    rows, refused = measure(videos, options.prefix, path.name)
    jobs = plan(rows, path.stem, options)
    if not jobs:
        first, reason = refused[0]
        raise ValueError(
            f"{path}: none of its {len(videos)} files can be packed; the first is {first}: {reason}"
        )
    check_plan(jobs, videos, path.stem, options)
    reasons = options.output / f"{path.stem}_refused.csv"
    write_table(reasons, ("path", "reason"), refused)
    failed, shards = write_shards(jobs, path.stem, options)
    written: list[str | Path] = [*shards, reasons]
    print(f"{path}: {len(videos)} rows, {len(refused)} refused, {len(jobs)} shards")
    print_first([f"{what}: {reason}" for what, reason in refused], reasons)
    for what, reason in list(failed.items())[:_NUM_FAILED]:
        print(printable(f"  {what}: {reason}"))
    if failed:
        print(f"{len(failed)} shards are missing; repeat the command")
        return Packed(len(refused), len(failed), written)
    last = len(jobs) - 1
    names = f"{path.stem}-{{000000..{last:06d}}}.tar" if last else f"{path.stem}-000000.tar"
    written.append(write_text(options.output / f"{path.stem}_shards.txt", names + "\n"))
    return Packed(len(refused), 0, written)


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    options = parse_arguments(arguments)
    return exit_code(lambda: _work(options), resumable=True)


def _work(options: argparse.Namespace) -> int:
    stems = Counter(path.stem for path in options.lists)
    if twice := [stem for stem, count in stems.items() if count > 1]:
        raise ValueError(f"names of lists must be unique, got {twice[0]} twice")
    lists = read_lists(options.lists, separator=options.separator, prefix=options.prefix)
    for path, (videos, _) in lists.items():
        for note in videos.notes:
            print(f"{path}: {note}")
    classes = write_class_names(common_class_names(lists), options.output)
    packed = [pack(path, videos, options) for path, (videos, _) in lists.items()]
    if not any(of_list.num_missing for of_list in packed):
        print(
            "read them with TRAIN.DATASET webdataset TEST.DATASET webdataset "
            f"DATA.PATH_TO_DATA_DIR {shlex.quote(str(options.output))}"
        )
    print_written([*(file for of_list in packed for file in of_list.written), *classes])
    return 1 if any(of_list.num_refused or of_list.num_missing for of_list in packed) else 0
