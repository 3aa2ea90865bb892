"""Reads members of tar shards by their place in them."""

from __future__ import annotations

import os
import tarfile
from collections import OrderedDict
from typing import Any, NamedTuple

from slowfast_maskfeat.files import OpenFile, open_file
from slowfast_maskfeat.videos.video import DecodeError, fetching

BLOCK = tarfile.BLOCKSIZE
# A window of shuffled rows reaches over a few shards; more would only hold files open.
_MAX_OPEN = 32


class Member(NamedTuple):
    """A file inside a tar: its name, where its bytes begin, and how many they are."""

    name: str
    offset: int
    size: int


class ShardReader:
    """Reads members, each in one piece; a shard stays open while its neighbors are read.

    A member is read with the header in front of it, and this must name it: a shard that has changed
    since it was indexed gives an error and no other video.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[str, OpenFile] = OrderedDict()
        self._process = os.getpid()

    def read(self, shard: str, member: Member, *, timeout: float = 0.0) -> bytes:
        """The bytes of a member.

        Args:
            shard: Path or address of the tar file.
            member: What is read of it.
            timeout: See `files.open_file`.

        Raises:
            DecodeError: They can't be had, or the shard is another one than was indexed.
            ValueError: Nothing opens such an address.
        """
        path = f"{shard}/{member.name}"
        try:
            with fetching(path):
                file = self._opened(shard, timeout)
                content = file.read(member.offset - BLOCK, BLOCK + member.size)
        except DecodeError:
            # What failed may be the connection: the next member gets a new one.
            self._close(shard)
            raise
        if len(content) < BLOCK + member.size:
            self._close(shard)
            there = max(0, len(content) - BLOCK)
            raise DecodeError(
                path, f"the shard ends inside it: {there} of {member.size} bytes are there"
            )
        if not _is_header_of(content[:BLOCK], member):
            self._close(shard)
            raise DecodeError(
                path, f"{shard} has changed since it was indexed: it is not at byte {member.offset}"
            )
        return content[BLOCK:]

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardReader, ()  # open files stay with their process

    def _opened(self, shard: str, timeout: float) -> OpenFile:
        if self._process != os.getpid():  # a forked worker shares no position with its parent
            self._open, self._process = OrderedDict(), os.getpid()
        file = self._open.pop(shard, None) or open_file(shard, timeout=timeout)
        self._open[shard] = file  # the last used at the end
        while len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)[1].close()
        return file

    def _close(self, shard: str) -> None:
        file = self._open.pop(shard, None)
        if file is not None:
            file.close()


def bare_name(name: str) -> str:
    """The name of a member without the `./` that some tars have in front."""
    return name.removeprefix("./")


def _is_header_of(block: bytes, member: Member) -> bool:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    if header.size != member.size:
        return False
    # Longer names, and those of other scripts, stand in a header of their own before this one.
    is_cut = len(member.name) > 90 or not member.name.isascii()
    return is_cut or bare_name(header.name) == member.name
