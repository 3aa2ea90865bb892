"""Parts of a data set that a comparison trains on: fewer labels, a held-out validation split."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from fvcore.common.config import CfgNode
from numpy.typing import NDArray

from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.datasets import dataset_kind, shard_patterns
from slowfast_maskfeat.curation.write_list import ListRow, list_text, separator_for
from slowfast_maskfeat.datasets import MissingListError, VideoList
from slowfast_maskfeat.files import atomic_write, is_address

Rows = NDArray[np.int64]
SPLITS = ("train", "val", "test")
_HERE = "{folder}"  # the folder of the part in its record, so that it may be moved
_SEED = 0  # of the draws: the same samples for all methods and seeds of a comparison


class Part(NamedTuple):
    """Rows of each split of a data set.

    Attributes:
        train: numbers of rows of its training split; None: all.
        val: rows of its training split that are the validation split; None: its own split.
        most: largest number of rows of each split; 0: all.
    """

    train: Rows | None = None
    val: Rows | None = None
    most: int = 0


def replace_folder(text: str, folder: str, by: str) -> str:
    """Replace a folder where a path in a text begins with it, so that the text may be moved."""
    return re.sub(re.escape(folder) + r"(?=$|[/'\"\],])", lambda _: by, text)


def held_out(videos: VideoList, share: float) -> tuple[Rows, Rows]:
    """Split rows into those to train on and those held out, of each class the same share.

    Returns:
        The numbers of both, in their order.
    """
    order = _spread(videos)
    number = max(round(share * len(videos)), 1)
    return np.sort(order[number:]), np.sort(order[:number])


def per_class(videos: VideoList, rows: Rows, count: int) -> Rows:
    """Draw rows with the same number of each class.

    Args:
        videos: the split.
        rows: among which to draw.
        count: rows of each class, or all of a smaller one.

    Raises:
        ValueError: the split has no labels.
    """
    if videos.labels is None:
        raise ValueError(f"{videos.source} must have labels, to take {count} of each class")
    labels = videos.labels[rows]
    shuffled = np.random.default_rng(_SEED).permutation(len(rows))
    drawn = [shuffled[labels[shuffled] == label][:count] for label in np.unique(labels)]
    return np.sort(rows[np.concatenate(drawn)])


def _spread(videos: VideoList) -> Rows:
    """Order rows at random so that each beginning has the classes in equal shares."""
    shuffled = np.random.default_rng(_SEED).permutation(len(videos))
    if videos.labels is None:
        return shuffled
    labels = videos.labels[shuffled]
    place = np.empty(len(labels))  # of a row among those of its class, as a share
    for label in np.unique(labels):
        of_class = labels == label
        place[of_class] = (np.arange(of_class.sum()) + 0.5) / of_class.sum()
    return shuffled[np.argsort(place, kind="stable")]


def write_part(cfg: CfgNode, data: DataSource, part: Part, folder: Path) -> dict[str, str]:
    """Write the lists, or the shards, of a part of a data set, unless they are there.

    Args:
        cfg: configuration of a training on the data set; not changed.
        data: its data source.
        part: rows.
        folder: to write into; a digest of the rows is added to its name.

    Returns:
        The keys that name the part.

    Raises:
        ValueError: the data set cannot be written as a list or shards.
    """
    rows = _rows(data, part)
    made_from = [
        (split, videos.fingerprint, hashlib.sha256(taken.tobytes()).hexdigest())
        for split, (videos, taken) in rows.items()
    ]
    content = {"made_from": [list(of_split) for of_split in made_from]}
    # Of other rows it is another folder: what was trained on the first ones stays what it is.
    folder = folder.with_name(f"{folder.name}_{_short_digest(content)}")
    record = folder / "part.json"
    keys = _recorded_keys(record, content)
    if keys is not None:
        return {key: replace_folder(value, _HERE, str(folder)) for key, value in keys.items()}
    if data.class_names:
        names = "".join(f"{name}\n" for name in data.class_names)
        _write(folder / "classes.txt", names.encode("utf-8", "surrogateescape"))
    keys = {"DATA.PATH_TO_DATA_DIR": str(folder), **_write_rows(cfg, rows, folder)}
    files = {path.name: path.stat().st_size for path in folder.iterdir() if path != record}
    kept = {key: replace_folder(value, str(folder), _HERE) for key, value in keys.items()}
    _write(record, json.dumps({**content, "keys": kept, "files": files}, indent=1).encode())
    return keys


def _short_digest(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]


def _recorded_keys(record: Path, content: Mapping[str, object]) -> dict[str, str] | None:
    """Return the keys of a part that was written of the same rows and is whole, else None."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        files = {name: (record.parent / name).stat().st_size for name in known["files"]}
        is_whole = known["made_from"] == content["made_from"] and known["files"] == files
        return {key: str(value) for key, value in known["keys"].items()} if is_whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or a damaged one
        return None


def _rows(data: DataSource, part: Part) -> dict[str, tuple[VideoList, Rows]]:
    """Return the list and the rows of each split that there is."""
    train = data.videos("train")
    rows = {"train": (train, _all(train, part.train))}
    for split in SPLITS[1:]:
        if split == "val" and part.val is not None:
            rows[split] = train, part.val
            continue
        try:
            videos = data.videos(split)
        except MissingListError:
            continue
        rows[split] = videos, _all(videos, None)
    if part.most:
        rows = {split: (videos, _few(taken, part.most)) for split, (videos, taken) in rows.items()}
    return rows


def _write_rows(
    cfg: CfgNode, rows: Mapping[str, tuple[VideoList, Rows]], folder: Path
) -> dict[str, str]:
    """Write lists or shards; return the keys that name them."""
    if any(shard_patterns(cfg).values()) or dataset_kind(cfg, "train").in_shards:
        keys = {"DATA.SHARD_LABEL": "cls"}
        for split, (videos, taken) in rows.items():
            path = folder / f"{split}.tar"
            _write_shard(path, videos, taken)
            keys[f"DATA.{split.upper()}_SHARDS"] = str(path)
        return keys
    if any(dataset_kind(cfg, split).segmented for split in ("train", "test")):
        raise ValueError(
            "few_labels, labels_per_class, hold_out and --estimate require lists or shards, got "
            f"{cfg.TRAIN.DATASET!r}; remove the judge few, and these sections"
        )
    return _write_lists(folder, rows)


def _few(rows: Rows, count: int) -> Rows:
    """Take evenly spaced rows."""
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)
    return rows[places]


def _all(videos: VideoList, rows: Rows | None) -> Rows:
    return np.arange(len(videos)) if rows is None else rows


def _write_lists(folder: Path, rows: Mapping[str, tuple[VideoList, Rows]]) -> dict[str, str]:
    """Write lists of absolute paths; return the keys that read them."""
    lists = {}
    for split, (videos, taken) in rows.items():
        labels: Sequence[int | None] = videos.single_labels() or [None] * len(videos)
        paths = (videos.path(int(row)) for row in taken)
        lists[split] = [
            ListRow(path if is_address(path) else os.path.abspath(path), labels[row])
            for path, row in zip(paths, taken.tolist(), strict=True)
        ]
    separator = separator_for([row for of_split in lists.values() for row in of_split])
    for split, of_split in lists.items():
        _write(
            folder / f"{split}.csv",
            list_text(of_split, separator).encode("utf-8", "surrogateescape"),
        )
    return {
        "DATA.PATH_PREFIX": "",
        "DATA.PATH_LABEL_SEPARATOR": separator,
        "TRAIN.DATASET": "kinetics",
        "TEST.DATASET": "kinetics",
    }


def _write_shard(path: Path, videos: VideoList, rows: Rows) -> None:
    """Write a shard with the samples of these rows and their class numbers."""
    with atomic_write(path) as part, tarfile.open(part, "w") as shard:
        for row in rows.tolist():
            content = videos.content(row)
            assert content is not None
            name, suffix = f"{row:08d}", Path(videos.path(row)).suffix
            _add(shard, f"{name}{suffix}", content)
            if videos.labels is not None:
                _add(shard, f"{name}.cls", str(videos.labels[row]).encode())


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as part:
        part.write_bytes(content)
