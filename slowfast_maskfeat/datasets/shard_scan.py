"""Scanner of tar shards: samples, labels and errors.

The layout is WebDataset's: members of one sample share a key, which is the path up to the first dot
of the file name (`a/clip_7.mp4`, `a/clip_7.cls`).
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from slowfast_maskfeat.files import FileFacts, OpenFile, is_address, open_file
from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.text import quoted
from slowfast_maskfeat.videos.media import is_image, is_media
from slowfast_maskfeat.videos.shards import BLOCK, Member, bare_name

# Largest member that can be a label.
_LABEL_BYTES = 1 << 20
# Read-ahead in remote shards: headers and labels of neighbors take one request.
_REMOTE_BUFFER = 1 << 16
# A tar is padded with zeros to a record after its end mark; more than that is other data.
_RECORD = 10_240
# Seconds without data after which indexing a shard fails.
TIMEOUT = 60.0
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
# Fields of a JSON member that may be the label; the first existing one is.
_FIELDS = (
    *("label", "cls", "class", "label_id", "class_id", "class_index", "class_idx"),
    *("target", "category", "class_name", "label_name"),
)


class ShardError(ValueError):
    """A shard cannot be used; the message is one line without its path."""


@dataclass
class ShardIndex:
    """Samples of a shard, in the order of their videos in it.

    Attributes:
        shard_bytes: Size of the indexed shard.
        shard_version: Version of the indexed shard (`files.FileFacts`).
        label: Members that hold labels (config key DATA.SHARD_LABEL).
        names: Names of the videos or images in the tar.
        offsets: Byte at which each of them begins.
        sizes: Size of each of them in bytes.
        labels: Text of each label, or None for a sample without label.
        label_kinds: Member that holds each label, "cls", "json" or "txt"; "" for none.
        wrong_labels: (row, error) of labels that cannot be parsed.
        passed_over: Names of the first ten members that belong to no sample.
        num_passed_over: Number of such members.
        notes: Warnings for the user.
    """

    shard_bytes: int
    shard_version: str
    label: str
    names: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    label_kinds: list[str] = field(default_factory=list)
    wrong_labels: list[tuple[int, str]] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    num_passed_over: int = 0
    notes: list[str] = field(default_factory=list)


def check_label_key(label: str) -> None:
    """Check the value of DATA.SHARD_LABEL.

    Raises:
        ValueError: It is not valid.
    """
    kind, _, name = label.partition(":")
    if label not in ("", "none", "cls", "txt", "json") and not (kind == "json" and name):
        raise ValueError(
            "DATA.SHARD_LABEL must be '', 'none', 'cls', 'txt', 'json' or 'json:<field>', got "
            f"{label!r}"
        )


def shard_facts(shard: str) -> FileFacts:
    """Size and version of a shard.

    Raises:
        ShardError: The shard cannot be read.
    """
    with _opened(shard) as file:
        return file.facts()


@contextmanager
def _opened(shard: str) -> Iterator[OpenFile]:
    """Open a shard; errors become `ShardError`s."""
    try:
        with open_file(shard, timeout=TIMEOUT) as file:
            yield file
    except ShardError:
        raise
    except FileNotFoundError as error:
        raise ShardError("no such file") from error
    except ValueError as error:
        raise ShardError(first_line(error)) from error
    except Exception as error:  # each store raises errors of its own package
        raise ShardError(f"cannot be read: {first_line(error)}") from error


def scan_shard(shard: str, label: str) -> ShardIndex:
    """Read the headers of a shard's members, and the members that hold labels.

    Raises:
        ShardError: The shard is missing, compressed, truncated or damaged.
    """
    with _opened(shard) as file:
        facts = file.facts()
        _refuse_compressed(file.read(0, 6))
        index = ShardIndex(facts.size, facts.version, label)
        size = _REMOTE_BUFFER if is_address(shard) else io.DEFAULT_BUFFER_SIZE
        _Scan(index, io.BufferedReader(_Pieces(file, facts.size), size)).run()
    return index


class _Scan:
    """One pass through a tar."""

    def __init__(self, index: ShardIndex, stream: IO[bytes]) -> None:
        self.index = index
        self._stream = stream
        self._label_kind = index.label.partition(":")[0]
        # By key: the videos, and the text of each member that may be the label.
        self._media: dict[str, list[Member]] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self._seen: set[str] = set()

    def run(self) -> None:
        try:
            tar: Any
            with tarfile.open(fileobj=self._stream, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # they would all be kept in memory
                    self._add(member)
                self._check_end(tar.offset)
        except tarfile.TarError as error:
            where = f" at byte {self._stream.tell()}" if self._seen else ""
            raise ShardError(
                f"damaged or truncated{where}, after {len(self._seen)} intact members: "
                f"{first_line(error)}"
            ) from error
        self._finish()

    def _add(self, info: tarfile.TarInfo) -> None:
        name = bare_name(info.name)
        base = os.path.basename(name)
        if info.isdir():
            return
        if not info.isreg() or info.issparse() or base.startswith("."):
            self._pass_over(name)
            return
        end = info.offset_data + info.size
        if end > self.index.shard_bytes:
            raise ShardError(f"truncated: {name} ends at byte {end} of {self.index.shard_bytes}")
        if name in self._seen:
            raise ShardError(f"it contains {name} twice")
        self._seen.add(name)
        key, _, ending = base.partition(".")
        ending = ending.lower()
        key = name[: len(name) - len(base)] + key
        if is_media(name):
            self._media.setdefault(key, []).append(Member(name, info.offset_data, info.size))
        elif ending in ("cls", "json", "txt"):
            if self._label_kind in ("", ending):
                text = self._text(info) if info.size <= _LABEL_BYTES else "\n\n"
                self._labels.setdefault(key, {})[ending] = text
        else:
            self._pass_over(name)

    def _text(self, info: tarfile.TarInfo) -> str:
        self._stream.seek(info.offset_data)
        return self._stream.read(info.size).decode("utf-8-sig", "replace")

    def _pass_over(self, name: str) -> None:
        self.index.num_passed_over += 1
        if len(self.index.passed_over) < 10:
            self.index.passed_over.append(name)

    def _check_end(self, offset: int) -> None:
        """Check what follows the last header, since tarfile stops at any other block."""
        size = self.index.shard_bytes
        if offset > size:
            raise ShardError(f"truncated: it has {size} bytes instead of at least {offset}")
        self._stream.seek(offset)
        mark = self._stream.read(BLOCK)
        if 0 < len(mark) < BLOCK:
            raise ShardError(
                f"truncated: it ends inside a header at byte {offset}, after {len(self._seen)} "
                "intact members"
            )
        if mark.strip(b"\0"):
            raise ShardError(
                f"damaged at byte {offset}, after {len(self._seen)} intact members: no header of a "
                "tar"
            )
        if not mark:
            self.index.notes.append("no end mark, so the shard may be truncated")
        if size - offset > 2 * _RECORD and self._stream.read(1 << 20).strip(b"\0"):
            raise ShardError(
                f"data follows its end mark at byte {offset}: tars joined with `cat` must be kept "
                "apart, or joined with `tar --concatenate`"
            )

    def _finish(self) -> None:
        """Add one row per sample with a video; of several videos of a sample the first counts."""
        rows: list[tuple[Member, str]] = []
        for key, members in self._media.items():
            chosen = next((one for one in members if not is_image(one.name)), members[0])
            for member in members:
                if member is not chosen:
                    self._pass_over(member.name)
            rows.append((chosen, key))
        for key, labels in self._labels.items():
            if key not in self._media:
                self._pass_over(f"{key}.{next(iter(labels))}")
        index = self.index
        for row, (member, key) in enumerate(sorted(rows, key=lambda row: row[0].offset)):
            index.names.append(member.name)
            index.offsets.append(member.offset)
            index.sizes.append(member.size)
            kind, label = "", None
            try:
                kind, label = _label_of(self._labels.get(key, {}), index.label)
            except ShardError as error:
                index.wrong_labels.append((row, str(error)))
            index.labels.append(label)
            index.label_kinds.append(kind)


def _label_of(texts: dict[str, str], key: str) -> tuple[str, str | None]:
    """Kind and text of a sample's label; ("", None) without label.

    By default it is in `.cls`, else in a field of `.json`, else in `.txt` if there is no `.json`: a
    text beside a `.json` is a caption.
    """
    name = key.partition(":")[2]
    if "cls" in texts:
        return "cls", _one_line("cls", texts["cls"])
    if "json" in texts:
        label = _json_label(texts["json"], name)
        return ("", None) if label is None else ("json", label)
    if "txt" in texts:
        return "txt", _one_line("txt", texts["txt"])
    return "", None


def _one_line(kind: str, text: str) -> str:
    lines = text.strip().splitlines()
    if len(lines) != 1:
        raise ShardError(f"its .{kind} must be one line with the label, got {len(lines)} lines")
    return lines[0].strip()


def _json_label(text: str, name: str) -> str | None:
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"its .json must be valid JSON: {error}") from error
    if name:
        for part in name.split("."):
            content = content.get(part) if isinstance(content, dict) else None
    elif isinstance(content, dict):
        content = next((content[field] for field in _FIELDS if field in content), None)
    if content is None:
        return None
    if isinstance(content, bool) or not isinstance(content, (int, str)):
        raise ShardError(
            f"the label in its .json must be a number or a name, got {quoted(content)}"
        )
    return str(content).strip()


class _Pieces(io.RawIOBase):
    """An open file as a stream for tarfile."""

    def __init__(self, file: OpenFile, size: int) -> None:
        self._file = file
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_CUR: self._place, os.SEEK_END: self._size}.get(whence, 0)
        return self._place

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._size - self._place))
        content = self._file.read(self._place, size)
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)


def _refuse_compressed(start: bytes) -> None:
    kind = next((kind for mark, kind in _COMPRESSED.items() if start.startswith(mark)), "")
    if kind:
        raise ShardError(
            f"compressed with {kind}, so that members cannot be found without reading all of it; "
            "unpack it to a plain .tar, which is hardly larger as videos are compressed already"
        )
