"""What is in a tar shard: its samples, their labels, and what is wrong with it.

The layout is WebDataset's: files of one sample stand in a tar under one key, which is the path up
to the first dot of the file name (`a/clip_7.mp4`, `a/clip_7.cls`).
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
from slowfast_maskfeat.videos.media import is_image, is_media
from slowfast_maskfeat.videos.shards import BLOCK, Member, bare_name

# Files beside a video that say its label; longer ones are none.
_LABEL_BYTES = 1 << 20
# What is read ahead of a remote shard: headers and labels of neighbors come in one request.
_REMOTE_BUFFER = 1 << 16
# Behind its end mark a tar is filled up with zeros to a record; more than that is something else.
_RECORD = 10_240
# Seconds without data after which a shard is given up while it is indexed.
TIMEOUT = 60.0
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
# The fields of a JSON file that are taken for the label, the first that is there.
_FIELDS = (
    *("label", "cls", "class", "label_id", "class_id", "class_index", "class_idx"),
    *("target", "category", "class_name", "label_name"),
)


class ShardError(ValueError):
    """What is wrong with a shard, in one line without its path."""


@dataclass
class ShardIndex:
    """The samples of a shard, in the order of their videos' places in it.

    Attributes:
        shard_bytes: Size of the shard that was indexed.
        shard_version: What changes with the shard (`files.FileFacts`).
        label: Which files hold labels, as asked for (config key DATA.SHARD_LABEL).
        names: Of the videos or images, in the tar.
        offsets: Where their bytes begin.
        sizes: How many bytes they have.
        labels: Text of each label, or None where the sample has none.
        label_kinds: "cls", "json" or "txt", where each label was found; "" for none.
        wrong_labels: (row, what is wrong) of labels that are there and can't be read.
        passed_over: Names of members that belong to no sample, ten at most.
        num_passed_over: How many they are.
        notes: What a user should know of the shard.
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
    """Refuse what is no value of DATA.SHARD_LABEL.

    Raises:
        ValueError: It is none.
    """
    kind, _, name = label.partition(":")
    if label not in ("", "none", "cls", "txt", "json") and not (kind == "json" and name):
        raise ValueError(
            f"DATA.SHARD_LABEL: {label!r}: '', 'none', 'cls', 'txt', 'json' or 'json:<field>' is "
            "wanted"
        )


def shard_facts(shard: str) -> FileFacts:
    """Size and version of a shard.

    Raises:
        ShardError: It can't be read.
    """
    with _opened(shard) as file:
        return file.facts()


@contextmanager
def _opened(shard: str) -> Iterator[OpenFile]:
    """An open shard, whose troubles are told as those of a shard."""
    try:
        with open_file(shard, timeout=TIMEOUT) as file:
            yield file
    except ShardError:
        raise
    except FileNotFoundError as error:
        raise ShardError("no such file") from error
    except ValueError as error:
        raise ShardError(first_line(error)) from error
    except Exception as error:  # each store raises what its own package has
        raise ShardError(f"cannot be read: {first_line(error)}") from error


def scan_shard(shard: str, label: str) -> ShardIndex:
    """Read the headers of a shard's members, and the files that say labels.

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
    """One walk through a tar."""

    def __init__(self, index: ShardIndex, stream: IO[bytes]) -> None:
        self.index = index
        self._stream = stream
        self._wanted = index.label.partition(":")[0]
        # By key: the videos, and the text of each file that may be the label.
        self._media: dict[str, list[Member]] = {}
        self._labels: dict[str, dict[str, str]] = {}
        self._seen: set[str] = set()

    def run(self) -> None:
        try:
            tar: Any
            with tarfile.open(fileobj=self._stream, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # it would keep them all
                    self._add(member)
                self._check_end(tar.offset)
        except tarfile.TarError as error:
            where = f" at byte {self._stream.tell()}" if self._seen else ""
            raise ShardError(
                f"damaged or truncated{where}, behind {len(self._seen)} whole members: "
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
            raise ShardError(
                f"truncated: {name} would end at byte {end}, the shard has {self.index.shard_bytes}"
            )
        if name in self._seen:
            raise ShardError(f"it holds {name} twice")
        self._seen.add(name)
        key, _, ending = base.partition(".")
        key = name[: len(name) - len(base)] + key
        if is_media(name):
            self._media.setdefault(key, []).append(Member(name, info.offset_data, info.size))
        elif ending in ("cls", "json", "txt"):
            if self._wanted in ("", ending):
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
        """tarfile takes any block that is no header for the end."""
        size = self.index.shard_bytes
        if offset > size:
            raise ShardError(f"truncated: {size} bytes are there, {offset} are needed at least")
        self._stream.seek(offset)
        mark = self._stream.read(BLOCK)
        if 0 < len(mark) < BLOCK:
            raise ShardError(
                f"truncated: it ends inside a header at byte {offset}, behind {len(self._seen)} "
                "whole members"
            )
        if mark.strip(b"\0"):
            raise ShardError(
                f"damaged at byte {offset}, behind {len(self._seen)} whole members: no header of "
                "a tar"
            )
        if not mark:
            self.index.notes.append("it has no end mark: it may have been cut off")
        if size - offset > 2 * _RECORD and self._stream.read(1 << 20).strip(b"\0"):
            raise ShardError(
                f"something follows its end mark at byte {offset}: tars that were joined by `cat` "
                "must be kept apart, or joined by `tar --concatenate`"
            )

    def _finish(self) -> None:
        """One row a sample with a video; of several files of one the first video counts."""
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


def _label_of(texts: dict[str, str], wanted: str) -> tuple[str, str | None]:
    """Where the label of a sample is, and what it is; ("", None) without one.

    Without a wish it is that of `.cls`, or else a field of `.json`, or else, where there is no
    `.json`, `.txt`: a text beside a `.json` is a caption.
    """
    name = wanted.partition(":")[2]
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
        found = f"{len(lines)} lines" if lines else "nothing"
        raise ShardError(f"its .{kind} has {found}; one line with the label is wanted")
    return lines[0].strip()


def _json_label(text: str, name: str) -> str | None:
    try:
        content: Any = json.loads(text)
    except ValueError as error:
        raise ShardError(f"its .json is not valid: {error}") from error
    if name:
        for part in name.split("."):
            content = content.get(part) if isinstance(content, dict) else None
    elif isinstance(content, dict):
        content = next((content[field] for field in _FIELDS if field in content), None)
    if content is None:
        return None
    if isinstance(content, bool) or not isinstance(content, (int, str)):
        raise ShardError(f"its .json has the label {content!r}; a number or a name is wanted")
    return str(content).strip()


class _Pieces(io.RawIOBase):
    """An open file as a stream, which tarfile wants."""

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
            f"compressed with {kind}: members can't be found in it without reading all of it; "
            "unpack it to a plain .tar (videos do not get smaller anyway)"
        )
