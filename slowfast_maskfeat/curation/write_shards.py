"""Jobs that pack videos and labels into tar shards in the layout of WebDataset."""

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

# Seconds without data after which reading a video from the network fails.
_TIMEOUT = 60.0


class PackedRow(NamedTuple):
    """A video to pack: path, name of its member, label or None, size in bytes."""

    path: str
    name: str
    label: int | None
    size: int


class ShardJob(NamedTuple):
    """A shard to write: its path and its rows."""

    path: str
    rows: tuple[PackedRow, ...]


def member_names(paths: Sequence[str], root: str) -> list[str]:
    """Unique names of members for videos.

    A key ends at the first dot of a file name, so dots in the name become underscores; a number is
    appended to keys that occur before.

    Args:
        paths: paths of the videos.
        root: folder that names are relative to, for paths inside of it; addresses lose scheme and
            host.
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
    """Fill shards with rows in their order; a row above the limit gets a shard of its own."""
    shards: list[tuple[PackedRow, ...]] = []
    begin, size = 0, 0
    for place, row in enumerate(rows):
        if place > begin and (place - begin >= max_count or size + row.size > max_bytes):
            shards.append(tuple(rows[begin:place]))
            begin, size = place, 0
        size += row.size
    return [*shards, tuple(rows[begin:])] if rows else shards


def write_shard(job: ShardJob) -> Failure | None:
    """Write a shard atomically, and its index; the same rows give the same bytes.

    Each video is a member, preceded by `.cls` with its class number if it has a label.

    Returns:
        None if the shard was written.
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
    """The size of a video has changed since the shards were planned."""


def _add_row(tar: tarfile.TarFile, row: PackedRow) -> None:
    content = read_bytes(row.path, timeout=_TIMEOUT)
    if len(content) != row.size:
        raise _ChangedError(f"{row.path} has changed from {row.size} to {len(content)} bytes")
    if row.label is not None:
        key = os.path.splitext(row.name)[0]
        _add(tar, f"{key}.cls", str(row.label).encode())
    _add(tar, row.name, content)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # without time and owner, so that bytes are reproducible
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
