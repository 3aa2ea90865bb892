"""Tar shards that tests write themselves."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path


def write_shard(
    path: Path, members: Mapping[str, bytes], *, form: int = tarfile.PAX_FORMAT
) -> Path:
    """A tar with these members, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def payload(row: int) -> bytes:
    """Bytes that tell the row, of a length of its own: no video, where none is decoded."""
    return f"row {row:05d} ".encode() * (3 + row % 7)


def write_rows(folder: Path, counts: list[int], *, split: str = "train") -> list[Path]:
    """Shards `<split>-000000.tar`, ... of so many samples each, labels row % 3."""
    shards, row = [], 0
    for number, count in enumerate(counts):
        members: dict[str, bytes] = {}
        for _ in range(count):
            members[f"v{row:05d}.mp4"] = payload(row)
            members[f"v{row:05d}.cls"] = f"{row % 3}".encode()
            row += 1
        shards.append(write_shard(folder / f"{split}-{number:06d}.tar", members))
    return shards
