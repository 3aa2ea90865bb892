"""Reader of tar members by byte offset."""

from __future__ import annotations

import os
import tarfile
from collections import OrderedDict
from typing import Any, NamedTuple

from slowfast_maskfeat.files import OpenFile, open_file
from slowfast_maskfeat.videos.video import DecodeError, fetching

BLOCK = tarfile.BLOCKSIZE
# A window of shuffled samples spans a few shards; more open files would not be read again soon.
_MAX_OPEN = 32


class Member(NamedTuple):
    """A file inside a tar: name, byte offset of its content, and size in bytes."""

    name: str
    offset: int
    size: int


class ShardReader:
    """Reads tar members, each in one request, and keeps recently used shards open.

    A member is read with the header in front of it, which must match: a shard that has changed
    since it was indexed raises an error instead of returning another video.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[str, OpenFile] = OrderedDict()
        self._process = os.getpid()

    def read(self, shard: str, member: Member, *, timeout: float = 0.0) -> bytes:
        """Read the bytes of a member.

        Args:
            shard: path or address of the tar file.
            member: member to read.
            timeout: seconds; see `files.open_file`.

        Raises:
            DecodeError: the bytes can't be read, or the shard has changed since it was indexed.
            ValueError: nothing opens addresses of this scheme.
        """
        path = f"{shard}/{member.name}"
        try:
            with fetching(path):
                file = self._opened(shard, timeout)
                content = file.read(member.offset - BLOCK, BLOCK + member.size)
        except DecodeError:
            # The connection may be at fault: the next member gets a new one.
            self._close(shard)
            raise
        if len(content) < BLOCK + member.size:
            self._close(shard)
            found = max(0, len(content) - BLOCK)
            raise DecodeError(
                path, f"the shard is truncated: member must have {member.size} bytes, got {found}"
            )
        if not _is_header_of(content[:BLOCK], member):
            self._close(shard)
            raise DecodeError(
                path,
                f"{shard} has changed since it was indexed: this member is no longer at byte "
                f"{member.offset}",
            )
        return content[BLOCK:]

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardReader, ()  # open files can't be pickled

    def _opened(self, shard: str, timeout: float) -> OpenFile:
        if self._process != os.getpid():  # a fork must not share file positions with its parent
            self._open, self._process = OrderedDict(), os.getpid()
        file = self._open.pop(shard, None) or open_file(shard, timeout=timeout)
        self._open[shard] = file  # most recently used last
        while len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)[1].close()
        return file

    def _close(self, shard: str) -> None:
        file = self._open.pop(shard, None)
        if file is not None:
            file.close()


def bare_name(name: str) -> str:
    """Name of a member without the leading `./` that some tars have."""
    return name.removeprefix("./")


def _is_header_of(block: bytes, member: Member) -> bool:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    if header.size != member.size:
        return False
    # Long and non-ASCII names are in an extra header before this one, so they can't be compared.
    has_extra_header = len(member.name) > 90 or not member.name.isascii()
    return has_extra_header or bare_name(header.name) == member.name
