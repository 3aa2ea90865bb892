"""Write the lists of a data set: train.csv, val.csv, test.csv and classes.txt.

Reads class folders, the official lists of known data sets, or list files (--dataset, as
TRAIN.DATASET). Paths are relative to the folder of the videos (--prefix, by default --data), which
is DATA.PATH_PREFIX when the lists are read. Path and label are separated by a space, or by a comma
if a path contains a space. --val-share and --test-share move shares of each class's training rows
to a validation and a test set, which replace those of the data set.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.commands._options import (
    CommandParser,
    add_force,
    add_output_folder,
    add_reading,
    share,
    whole_number,
)
from slowfast_maskfeat.curation.output_files import reading_keys, write_text
from slowfast_maskfeat.curation.write_list import (
    ListRow,
    list_text,
    relative_rows,
    separator_for,
    split_rows,
)
from slowfast_maskfeat.datasets import (
    DataFolder,
    MissingListError,
    VideoList,
    dataset_names,
    find_dataset,
    read_class_names,
    read_list,
)
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.log import Progress

_SPLITS = ("train", "val", "test")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser("data manifest", __doc__)
    add = parser.add_argument
    data = "of the data set, as DATA.PATH_TO_DATA_DIR"
    add("--data", required=True, metavar="FOLDER", help=data)
    add_output_folder(parser, "the lists", required=True)
    add_force(parser, "existing lists")
    add("--dataset", default="folder", choices=_choices(), help="as TRAIN.DATASET")
    add_reading(parser, "separator of list files to read")
    split = "of UCF101 and HMDB51, as DATA.OFFICIAL_SPLIT"
    add("--official-split", type=int, default=1, choices=(1, 2, 3), help=split)
    part = "share of the training rows, in (0, 1), for"
    add(
        "--val-share",
        type=share,
        metavar="SHARE",
        help=f"{part} validation (default: as published)",
    )
    add(
        "--test-share",
        type=share,
        metavar="SHARE",
        help=f"{part} the test (default: as published)",
    )
    group = "regular expression: rows with the same match stay together"
    add("--group", default="", metavar="TEXT", help=group)
    add("--seed", type=whole_number(0), default=0, metavar="N", help="seed of the shares")
    return parser.parse_args(arguments)


def _choices() -> list[str]:
    """Data sets that lists can represent: one path and at most one label per sample."""
    kinds = {name: find_dataset(name, "--dataset") for name in dataset_names()}
    return sorted(
        name
        for name, kind in kinds.items()
        if not (kind.in_shards or kind.has_boxes or kind.has_frame_labels)
    )


def read_splits(
    data: DataFolder, dataset: str
) -> tuple[dict[str, VideoList], tuple[str, ...] | None]:
    """Read the existing splits of a data set, and the names of its classes.

    Raises:
        ValueError: there is no training set, or a file is malformed.
    """
    kind = find_dataset(dataset, "--dataset")
    names = read_class_names(data.path)
    if names is None and kind.class_names is not None:
        names = kind.class_names(data)
    found: dict[str, VideoList] = {}
    progress = Progress(len(_SPLITS), "reading splits")
    for split in _SPLITS:
        try:
            found[split] = kind.read(data, split, names)
            names = names or found["train"].class_names  # the first split numbers the others
        except MissingListError:
            if split == "train":
                raise
        progress.update()
    progress.close()
    return found, names


def make_rows(
    found: dict[str, VideoList], folder: str, options: argparse.Namespace
) -> dict[str, list[ListRow]]:
    """Rows of each list."""
    rows = {}
    for split, videos in found.items():
        for note in videos.notes:
            print(f"{split}: {note}")
        paths = [videos.path(row) for row in range(len(videos))]
        labels = videos.single_labels()
        rows[split] = relative_rows(paths, labels, folder)
    _move_shares(rows, options)
    return rows


def _move_shares(rows: dict[str, list[ListRow]], options: argparse.Namespace) -> None:
    """Move shares of the training rows to the validation and the test rows.

    Raises:
        ValueError: the shares leave no training rows, or see `split_rows`.
    """
    given = {"val": options.val_share, "test": options.test_share}
    shares = {split: part for split, part in given.items() if part is not None}
    if options.group and not shares:
        raise ValueError(
            "--group must be empty without --val-share and --test-share, got " + repr(options.group)
        )
    if sum(shares.values()) >= 1:
        both = " and ".join(f"{part:g}" for part in shares.values())
        raise ValueError(f"--val-share and --test-share must be below 1 together, got {both}")
    left = 1.0
    for split, part in shares.items():
        if split in rows:
            print(f"ignored the {len(rows[split])} {split} rows of the data set (--{split}-share)")
        # Both are shares of all training rows, of which the first draw leaves fewer.
        rows["train"], rows[split] = split_rows(
            rows["train"], part / left, seed=options.seed, group=options.group
        )
        left -= part


def write_manifest(
    rows: dict[str, list[ListRow]], names: Sequence[str] | None, output: Path, *, force: bool
) -> tuple[str, dict[str, str]]:
    """Write the lists, each of which is read back first.

    Returns:
        Separator, and split -> hash of its list.

    Raises:
        ValueError: there are lists already, or a path cannot be stored in a list.
    """
    files = {split: output / f"{split}.csv" for split in rows}
    # Including those that would remain from another data set and be read with the new ones.
    old = [output / f"{name}.csv" for name in _SPLITS] + [output / "classes.txt"]
    old = [path for path in old if path.exists()]
    if old and not force:
        raise ValueError(
            f"--output must have no lists, got {', '.join(map(str, old))}; --force overwrites"
        )
    separator = separator_for([row for split in rows.values() for row in split])
    hashes = {}
    for split, path in files.items():
        text = list_text(rows[split], separator).encode("utf-8", "surrogateescape")
        with atomic_write(path) as part:
            part.write_bytes(text)
            # Unusual names (quotes, a path like a header) must not change.
            again = read_list(part, separator=separator)
            if [again.path(row) for row in range(len(again))] != [row.path for row in rows[split]]:
                raise ValueError(
                    f"{path} would be read differently; rename files with unusual names"
                )
            hashes[split] = again.fingerprint
    if names:
        write_text(output / "classes.txt", "".join(f"{name}\n" for name in names))
    for path in old:
        if path not in files.values() and not (names and path.name == "classes.txt"):
            path.unlink()
    return separator, hashes


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    options = parse_arguments(arguments)
    return exit_code(lambda: _work(options))


def _work(options: argparse.Namespace) -> int:
    data = DataFolder(
        options.data,
        prefix=options.prefix,
        separator=options.separator,
        official_split=options.official_split,
    )
    if not os.path.isdir(data.path):
        raise ValueError(f"--data must be a folder, got {data.path!r}, which does not exist")
    found, names = read_splits(data, options.dataset)
    folder = os.path.abspath(options.prefix or options.data)
    rows = make_rows(found, folder, options)
    separator, hashes = write_manifest(rows, names, options.output, force=options.force)
    for split, digest in hashes.items():
        labels = {row.label for row in rows[split]} - {None}
        print(f"{split}: {len(rows[split])} rows, {len(labels)} classes, sha256 {digest}")
    missing = [split for split in ("val", "test") if split not in rows]
    if missing and any(row.label is not None for row in rows["train"]):
        files = " and no ".join(f"{split}.csv" for split in missing)
        flags = ", ".join(f"--{split}-share" for split in missing)
        print(f"there is no {files}, which fine-tuning needs: {flags} can take training rows")
    print(reading_keys(options.output, folder, separator))
    classes = ["classes.txt"] if names else []
    print_written(options.output / name for name in (*(f"{split}.csv" for split in rows), *classes))
    return 0
