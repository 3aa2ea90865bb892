"""Scanner of tar shards: samples, labels and errors.

The layout is WebDataset's: members of one sample share a key, which is the path up to the first dot
of the file name (`a/clip_7.mp4`, `a/clip_7.cls`).
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import unicodedata
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
        shard_bytes: size of the indexed shard.
        shard_version: version of the indexed shard (`files.FileFacts`).
        label: members that hold labels (config key DATA.SHARD_LABEL).
        names: names of the videos or images in the tar.
        offsets: byte at which each of them begins.
        sizes: size of each of them in bytes.
        labels: text of each label, or None for a sample without label.
        label_kinds: member that holds each label, "cls", "json" or "txt"; "" for none.
        wrong_labels: (row, error) of labels that cannot be parsed.
        passed_over: names of the first ten members that belong to no sample.
        num_passed_over: number of such members.
        notes: warnings for the user.
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
        ValueError: it is not valid.
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
        ShardError: the shard cannot be read.
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
        ShardError: the shard is missing, compressed, truncated or damaged.
    """
    with _opened(shard) as file:
        facts = file.facts()
        _refuse_compressed(file.read(0, 6))
        index = ShardIndex(facts.size, facts.version, label)
        buffer_size = _REMOTE_BUFFER if is_address(shard) else io.DEFAULT_BUFFER_SIZE
        _Scan(index, _Stream(file, facts.size, buffer_size)).run()
    return index


class _Scan:
    """One pass through a tar."""

    def __init__(self, index: ShardIndex, stream: IO[bytes]) -> None:
        self.index = index
        self._stream = stream
        self._label_kind = index.label.partition(":")[0]
        # By key: the videos, and the text of each member that may be the label, or why it has none.
        self._media: dict[str, list[Member]] = {}
        self._labels: dict[str, dict[str, str | ShardError]] = {}
        self._seen: set[str] = set()

    def run(self) -> None:
        tar: Any
        with self._reading_headers():
            tar = tarfile.open(fileobj=self._stream, mode="r:")  # noqa: SIM115 - closed below
        with tar:
            while (member := self._next(tar)) is not None:
                tar.members = []  # they would all be kept in memory
                self._add(member)
            self._check_end(tar.offset)
        self._finish()

    def _next(self, tar: tarfile.TarFile) -> tarfile.TarInfo | None:
        with self._reading_headers():
            return tar.next()

    @contextmanager
    def _reading_headers(self) -> Iterator[None]:
        """Raise the errors of `tarfile` on damaged headers as `ShardError`s."""
        try:
            yield
        except ShardError:  # of reading
            raise
        except (tarfile.TarError, ValueError, ArithmeticError, RecursionError) as error:
            # Messages of the latter speak of what `tarfile` does, not of the shard.
            reason = first_line(error) if isinstance(error, tarfile.TarError) else "a wrong header"
            where = f" at byte {self._stream.tell()}" if self._seen else ""
            raise ShardError(
                f"damaged or truncated{where}, after {len(self._seen)} intact members: {reason}"
            ) from error

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
                self._labels.setdefault(key, {})[ending] = self._text(info, ending)
        else:
            self._pass_over(name)

    def _text(self, info: tarfile.TarInfo, ending: str) -> str | ShardError:
        """Return the text of a member, or the error if it cannot be a label."""
        if info.size > _LABEL_BYTES:
            return ShardError(
                f"its .{ending} must have at most {_LABEL_BYTES:,} bytes, got {info.size:,}"
            )
        self._stream.seek(info.offset_data)
        try:
            return self._stream.read(info.size).decode("utf-8-sig")
        except UnicodeDecodeError:
            return ShardError(f"its .{ending} must be UTF-8 text, got other bytes")

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


def _label_of(texts: dict[str, str | ShardError], key: str) -> tuple[str, str | None]:
    """Kind and text of a sample's label; ("", None) without label.

    By default it is in `.cls`, else in a field of `.json`, else in `.txt` if there is no `.json`: a
    text beside a `.json` is a caption.
    """
    kind = next((kind for kind in ("cls", "json", "txt") if kind in texts), "")
    if not kind:
        return "", None
    text = texts[kind]
    if isinstance(text, ShardError):
        raise text
    label = _json_label(text, key.partition(":")[2]) if kind == "json" else _one_line(kind, text)
    if label is None:
        return "", None
    if not _is_text(label):
        raise ShardError(
            f"the label in its .{kind} must have no control characters, got {quoted(label)}"
        )
    return kind, label


def _is_text(label: str) -> bool:
    """Whether a label has no control characters but tabs, and no unpaired surrogates.

    JSON can spell unpaired surrogates, but no file of class names can store them.
    """
    kinds = map(unicodedata.category, label.replace("\t", ""))
    return not {"Cc", "Cs"}.intersection(kinds)


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


class _Stream(io.BufferedReader):
    """A stream for tarfile that never reads past the shard, whatever size a header states."""

    def __init__(self, file: OpenFile, size: int, buffer_size: int) -> None:
        super().__init__(_Pieces(file, size), buffer_size)
        self._size = size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


class _Pieces(io.RawIOBase):
    """An open file as a raw stream."""

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
        try:
            content = self._file.read(self._place, size)
        except ValueError as error:
            raise ShardError(first_line(error)) from error
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
