"""Find the videos of a list that cannot be decoded, and write the list without them.

Decodes the first, middle and last frame of each video (--full: all frames). For a list `train.csv`
the output folder receives

    train.csv           the remaining lines, unchanged
    train_refused.csv   path, line and reason of each refused row
    train_check.json    counts, hashes of both lists, decoder and version, refused rows
    classes.txt         if there is one beside the list

A video that takes longer than --timeout, because its decoder or disk hangs, is refused as well. To
resume an interrupted run, repeat the command.

Exit code: 0 if all videos can be decoded, 1 if some cannot, 2 for invalid input.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.curation.check_videos import check_video, require_decoder
from slowfast_maskfeat.curation.jobs import Failure, Journal, run_jobs
from slowfast_maskfeat.datasets import read_list
from slowfast_maskfeat.datasets.list_file import list_lines, separator_of
from slowfast_maskfeat.files import atomic_write, open_text
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.text import printable
from slowfast_maskfeat.videos.decode import decoder_versions
from slowfast_maskfeat.videos.media import MAX_IMAGE_PIXELS

# Seconds for three frames, and for all.
_TIMEOUT, _FULL_TIMEOUT = 30.0, 300.0


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("lists", type=Path, nargs="+", metavar="LIST", help="list files (train.csv ...)")
    add("--output", type=Path, required=True, help="folder for the clean lists")
    add("--prefix", default="", help="folder in front of the paths, as DATA.PATH_PREFIX")
    add("--separator", default=" ", help="as DATA.PATH_LABEL_SEPARATOR; default: detected")
    add("--full", action="store_true", help="decode all frames")
    add("--decoder", default="auto", choices=("auto", "pyav", "decord", "torchcodec"))
    add(
        "--timeout", type=float, help=f"seconds per video ({_TIMEOUT:g}; {_FULL_TIMEOUT:g} if full)"
    )
    add(
        "--max-image-pixels",
        type=int,
        default=MAX_IMAGE_PIXELS,
        help="as DATA.MAX_IMAGE_PIXELS (%(default)s); 0: no limit",
    )
    add("--processes", type=int, default=os.cpu_count() or 1, help="all cores by default")
    return parser.parse_args(arguments)


def check_list(path: Path, options: argparse.Namespace) -> tuple[int, list[Path]]:
    """Check one list and write the results; returns the number of refused rows, and the files."""
    separator = separator_of(str(path), options.separator)
    videos = read_list(path, separator=separator, prefix=options.prefix)
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
    journal = Journal(options.output / f".{path.stem}_check.jsonl", settings)
    try:
        _check_all(paths, journal, options, path.name)
    except BaseException:
        journal.close()
        raise
    refused = []
    for row, video in enumerate(paths):
        result = journal.done[video]
        if isinstance(result, Failure):
            refused.append({"path": video, "line": lines[row][0], "reason": result.reason})
    bad_lines = {entry["line"] for entry in refused}
    kept = [text for line, text in lines if line not in bad_lines]
    clean = options.output / path.name
    results = [options.output / f"{path.stem}_{name}" for name in ("refused.csv", "check.json")]
    if kept:
        _write(clean, header + "".join(kept))
        left = read_list(clean, separator=separator, prefix=options.prefix).fingerprint
    else:
        left = ""
    _write(results[0], _table(refused))
    report = {
        "list": str(path),
        **settings,
        "num_rows": len(videos),
        "num_refused": len(refused),
        "clean_list_sha256": left,
        "refused": refused,
    }
    _write(results[1], json.dumps(report, indent=2) + "\n")
    journal.remove()
    print(f"{path}: {len(videos)} rows, {len(refused)} refused")
    for entry in refused[:10]:
        print(f"  line {entry['line']}: {_shown(str(entry['path']))}: {entry['reason']}")
    if len(refused) > 10:
        print(f"  ... all in {results[0]}")
    print(f"{clean}: {len(kept)} rows, sha256 {left}" if kept else "no rows remain")
    return len(refused), [*([clean] if kept else []), *results]


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


def _shown(path: str) -> str:
    return printable(path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def _table(rows: Sequence[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ("path", "line", "reason"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_bytes(text.encode("utf-8", "surrogateescape"))


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    options = parse_arguments(arguments)
    return exit_code(lambda: _work(options), resumable=True)


def _work(options: argparse.Namespace) -> int:
    num_refused, written = 0, list[Path]()
    require_decoder(options.decoder)
    names = [path.name for path in options.lists]
    if len(set(names)) < len(names):
        raise ValueError(f"names of lists must be unique, got {names}")
    for path in options.lists:
        if path.resolve() == (options.output / path.name).resolve():
            raise ValueError(
                f"--output must be another folder than that of {path}, got {options.output}"
            )
        num_bad, files = check_list(path, options)
        num_refused, written = num_refused + num_bad, [*written, *files]
        classes = path.parent / "classes.txt"
        if classes.is_file():
            written.append(options.output / classes.name)
            with open_text(str(classes)) as file:
                _write(written[-1], file.read())
    print_written(written)
    return 1 if num_refused else 0
