"""Packs videos and their labels into tar shards, in the layout of WebDataset."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from typing import NamedTuple

from slowfast_maskfeat.curation.jobs import Failure
from slowfast_maskfeat.datasets.shard_index import save_index
from slowfast_maskfeat.datasets.shard_scan import scan_shard
from slowfast_maskfeat.files import atomic_write, is_address, read_bytes

# Seconds without data after which a video on the network is given up.
_TIMEOUT = 60.0


class PackedRow(NamedTuple):
    """A video to pack: its path, the name of its member, its label or None, its bytes."""

    path: str
    name: str
    label: int | None
    size: int


class ShardJob(NamedTuple):
    """A shard to write, and what is in it."""

    path: str
    rows: tuple[PackedRow, ...]


def member_names(paths: Sequence[str], root: str) -> list[str]:
    """Names in shards, relative to a folder and each there once.

    A key ends at the first dot of a file name, so that dots in it become underscores; where two
    paths would have the same key, the later ones get a number.

    Args:
        paths: Of the videos.
        root: Folder that is left out where a path lies in it; addresses lose scheme and host.
    """
    names, taken = [], set()
    for path in paths:
        folder, _, base = _inside(path, root).rpartition("/")
        stem, ending = os.path.splitext(base)
        stem = stem.replace(".", "_")
        key = f"{folder}/{stem}" if folder else stem
        unique, number = key, 1
        while unique in taken:
            number += 1
            unique = f"{key}_{number}"
        taken.add(unique)
        names.append(f"{unique}{ending}")
    return names


def _inside(path: str, root: str) -> str:
    if is_address(path):
        rest = path.partition("://")[2]
        return rest.partition("/")[2] or rest
    relative = os.path.relpath(path, root) if root else path
    if relative.startswith(".."):
        relative = os.path.abspath(path)
    return relative.replace(os.sep, "/").lstrip("/")


def cut_into_shards(
    rows: Sequence[PackedRow], *, max_count: int, max_bytes: int
) -> list[tuple[PackedRow, ...]]:
    """The rows of each shard, in their order: as many as fit; one that fits nowhere has its own."""
    shards: list[tuple[PackedRow, ...]] = []
    begin, size = 0, 0
    for place, row in enumerate(rows):
        if place > begin and (place - begin >= max_count or size + row.size > max_bytes):
            shards.append(tuple(rows[begin:place]))
            begin, size = place, 0
        size += row.size
    return [*shards, tuple(rows[begin:])] if rows else shards


def write_shard(job: ShardJob) -> Failure | None:
    """Write a shard and its index: the same bytes for the same rows.

    The shard is there as a whole or not at all. Each video is a member, and in front of it `.cls`
    with the number of its class, if it has one.

    Returns:
        None, or why there is no shard.
    """
    try:
        with atomic_write(job.path) as part:
            with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
                for row in job.rows:
                    _add_row(tar, row)
            index = scan_shard(str(part), "")
    except _ChangedError as error:
        return Failure(str(error))
    save_index(index, job.path, os.path.dirname(job.path))
    return None


class _ChangedError(Exception):
    """A video is not of the size that it had when the shards were planned."""


def _add_row(tar: tarfile.TarFile, row: PackedRow) -> None:
    content = read_bytes(row.path, timeout=_TIMEOUT)
    if len(content) != row.size:
        raise _ChangedError(f"{row.path} has changed: {len(content)} bytes, and {row.size} before")
    if row.label is not None:
        key = os.path.splitext(row.name)[0]
        _add(tar, f"{key}.cls", str(row.label).encode())
    _add(tar, row.name, content)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # of no time and no owner
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
