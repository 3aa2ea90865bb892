"""Reading of a video in a store, such as `s3://`, in the parts that a decoder needs."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from slowfast_maskfeat.files import open_file
from slowfast_maskfeat.videos.video import fetching

_BLOCK = 2**18  # bytes of the smallest request; requests that follow each other grow
_MOST_BLOCKS = 32  # of one request: 8 MiB
_KEPT_BLOCKS = 256  # 64 MiB
_MOST_BOXES = 1000  # of an MP4 file, at its top level


class RemoteFile:
    """A file in a store, whose parts are requested when they are read, and kept for a while.

    Args:
        path: address.
        timeout: see `files.open_file`.

    Attributes:
        size: bytes of the file.
        num_fetched: bytes requested so far.

    Raises:
        DecodeError: there is no such file, or the store does not answer.
        ValueError: nothing opens addresses of this scheme.
    """

    def __init__(self, path: str, timeout: float = 0.0) -> None:
        self.path = path
        self.num_fetched = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._next = -1  # the block after the last request
        self._num_ahead = 1
        self._media: list[tuple[int, int]] = []
        self._skips_media = False
        with fetching(path):
            self._file = open_file(path, timeout=timeout)
            self.size = self._file.facts().size

    def reader(self) -> RemoteReader:
        """Return a file object at the beginning of the file."""
        return RemoteReader(self)

    def read_all(self) -> bytes:
        """Return the whole file in one request."""
        with fetching(self.path):
            self.num_fetched += self.size
            return self._file.read()

    @contextmanager
    def skipping_media(self) -> Iterator[bool]:
        """Read zeros instead of the media data of an MP4 file, without requesting it.

        The tables of such a file give the times of all frames, but demuxers read each frame with
        its times. A container that was read in here holds zeros in its buffers: open another one
        to decode. Yields whether there is media data that is skipped: not in another format, nor
        in a file of fragments, whose tables lie between the media.
        """
        self._media = self._media or _media_of(self)
        self._skips_media = True
        try:
            yield bool(self._media)
        finally:
            self._skips_media = False

    def read(self, start: int, size: int) -> bytes:
        """Return up to `size` bytes from offset `start`, at least one before the end."""
        if self._skips_media:
            for begin, end in self._media:
                if begin <= start < end:
                    return bytes(min(size, end - start))
                if start < begin:
                    size = min(size, begin - start)
        number = start // _BLOCK
        block = self._block(number)
        return block[start - number * _BLOCK :][:size]

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        self._num_ahead = min(2 * self._num_ahead, _MOST_BLOCKS) if number == self._next else 1
        last = number + 1
        while last < number + self._num_ahead and last not in self._blocks:
            last += 1
        with fetching(self.path):
            content = self._file.read(number * _BLOCK, (last - number) * _BLOCK)
        self.num_fetched += len(content)
        self._next = last
        for one in range(number, last):
            start = (one - number) * _BLOCK
            self._blocks[one] = content[start : start + _BLOCK]
        while len(self._blocks) > _KEPT_BLOCKS:
            self._blocks.popitem(last=False)
        return content[:_BLOCK]


class RemoteReader(io.RawIOBase):
    """A file object of a `RemoteFile`, with a position of its own."""

    def __init__(self, file: RemoteFile) -> None:
        super().__init__()
        self.name = file.path  # its suffix helps FFmpeg detect the format
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the offset of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move as `io.RawIOBase.seek`; nothing is requested."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._file.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; return the number of bytes, fewer only at the end of the file."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def read(self, size: int | None = -1) -> bytes:
        """Return up to `size` bytes, fewer only at the end of the file."""
        remaining = max(0, self._file.size - self._position)
        remaining = remaining if size is None or size < 0 else min(size, remaining)
        pieces = []
        while remaining:
            piece = self._file.read(self._position, remaining)
            if not piece:  # the file has become shorter
                break
            pieces.append(piece)
            self._position += len(piece)
            remaining -= len(piece)
        return b"".join(pieces)


def _media_of(file: RemoteFile) -> list[tuple[int, int]]:
    """First and last offset of the media data of an MP4 file; empty for any other file."""
    media: list[tuple[int, int]] = []
    kinds: set[bytes] = set()
    start = 0
    for _ in range(_MOST_BOXES):
        if start + 8 > file.size:
            break
        reader = file.reader()
        reader.seek(start)
        header = reader.read(16)
        size, kind, length = int.from_bytes(header[:4], "big"), header[4:8], 8
        if size == 1:
            size, length = int.from_bytes(header[8:16], "big"), 16
        elif size == 0:
            size = file.size - start
        if size < length or (not kinds and kind not in (b"ftyp", b"styp", b"moov")):
            return []
        kinds.add(kind)
        if kind == b"mdat":
            media.append((start + length, min(start + size, file.size)))
        start += size
    return media if b"moov" in kinds and b"moof" not in kinds else []
