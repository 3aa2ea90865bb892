"""Reading of local files and of addresses (`scheme://...`).

If a handler of iopath is registered for the scheme of an address, iopath opens it. HTTP is read by
`HttpFile`: fsspec needs another package for it, and does not check that the server returned the
requested range. Every other scheme (s3, gs, hdfs, memory, ...) is opened by fsspec with the package
that it needs.
"""

from __future__ import annotations

import codecs
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import fsspec
from iopath.common.file_io import g_pathmgr

from slowfast_maskfeat.files.base import FileFacts, OpenFile, SchemeError
from slowfast_maskfeat.files.http_file import HttpFile
from slowfast_maskfeat.log import first_line

# Names of the fields that change with an object, by store; the most reliable first.
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "updated")
# Bytes by which the encoding of a text file is recognized.
_SAMPLE = 4096
# The marks of UTF-32 first: that of UTF-16 is a part of one of them.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UTF_16_SHARE = 0.1  # least share of characters of UTF-16 without a mark that are ASCII
# Seconds without data after which reading a text file over the network fails.
_TEXT_TIMEOUT = 60.0


def is_address(path: str) -> bool:
    """Whether a path is an address, which has a scheme, and not a local file."""
    return "://" in path


def is_plain_http(path: str) -> bool:
    """Whether a path is an HTTP address without a registered handler of iopath."""
    return path.startswith(("http://", "https://")) and not _has_handler(path)


def has_ranges(path: str) -> bool:
    """Whether parts of a file can be requested from a store of fsspec, such as s3:// or gs://.

    Not from inside of an archive (`zip://...::s3://...`), nor by a handler of iopath, which may
    only read from the beginning.
    """
    is_stored = is_address(path) and not path.startswith(("http://", "https://"))
    return is_stored and "::" not in path and not _has_handler(path)


def join(folder: str, name: str) -> str:
    """Join folder and name, in an address with a forward slash; an absolute `name` is kept."""
    if is_address(name) or os.path.isabs(name) or not folder:
        return name
    if is_address(folder):
        return f"{folder}{name}" if folder.endswith("/") else f"{folder}/{name}"
    return os.path.join(folder, name)


def expand_home(path: str) -> str:
    """Replace `~` or `~user` at the beginning of a path by the home folder, as shells do.

    Raises:
        ValueError: the home folder is unknown.
    """
    expanded = os.path.expanduser(path)
    if path.startswith("~") and expanded == path:
        raise ValueError(
            f"{path!r} must begin with a known home folder (~/ is yours); write './{path}' for a "
            "file of this name"
        )
    return expanded


def open_file(path: str, *, timeout: float = 0.0) -> OpenFile:
    """Open a file to read pieces of it.

    Args:
        path: local path or address.
        timeout: seconds without data after which reading over HTTP fails; 0 for no limit. Other
            stores have their own limits.

    Raises:
        FileNotFoundError, OSError, ValueError: see `OpenFile.read`; for an address they may be
            raised by the first read.
    """
    if not is_address(path):
        return _LocalFile(path)
    if _has_handler(path):
        return _HandledFile(path)
    if is_plain_http(path):
        return HttpFile(path, timeout)
    return _StoredFile(path)


def read_bytes(path: str, *, timeout: float = 0.0) -> bytes:
    """Read a whole file; see `open_file`."""
    with open_file(path, timeout=timeout) as file:
        return file.read()


@contextmanager
def open_text(
    path: str, *, encoding: str = "utf-8-sig", errors: str = "strict"
) -> Iterator[TextIO]:
    """Open a text file, such as an annotation file; an address is read as a whole.

    Args:
        path: local path or address.
        encoding: by default UTF-8, with or without a byte order mark; a file in UTF-16 or UTF-32 is
            recognized and read, too. With another encoding it is rejected.
        errors: treatment of bytes that are not UTF-8; UTF-16 and UTF-32 must be valid.

    Raises:
        OSError: a local file can't be opened.
        ValueError: an address can't be read, or the file is not text in these encodings.
    """
    opened: io.BufferedIOBase
    if is_address(path):
        with _as_value_error(path):
            opened = io.BytesIO(read_bytes(path, timeout=_TEXT_TIMEOUT))
    else:
        opened = open(path, "rb")  # noqa: SIM115 - closed with the text
    with opened:
        found = _find_encoding(path, opened.read(_SAMPLE))
        opened.seek(0)
        if found != "utf-8-sig":
            if encoding != "utf-8-sig":
                raise ValueError(f"{path} must be text in UTF-8, got {found.upper()}; convert it")
            encoding, errors = found, "strict"
        try:
            with io.TextIOWrapper(opened, encoding=encoding, errors=errors) as file:
                yield file
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} must be text in UTF-8 or UTF-16, got bytes that are not "
                f"{error.encoding.upper()}: {error.reason}"
            ) from error


def _find_encoding(path: str, sample: bytes) -> str:
    """Encoding of a text file by its first bytes.

    Raises:
        ValueError: it is a binary file.
    """
    for mark, name in _BYTE_ORDER_MARKS:
        if sample.startswith(mark):
            return name
    # In UTF-16 one of the two bytes of ASCII characters is zero.
    first, second = sample[::2].count(0), sample[1::2].count(0)
    if not first and not second:
        return "utf-8-sig"
    least = _UTF_16_SHARE * len(sample) / 2
    if second >= least and 8 * first < second:
        return "utf-16-le"
    if first >= least and 8 * second < first:
        return "utf-16-be"
    raise ValueError(f"{path} must be text in UTF-8 or UTF-16, got NUL bytes, as in a binary file")


def is_file(path: str) -> bool:
    """Whether a file exists.

    Raises:
        ValueError: the store of an address can't be reached.
    """
    if not is_address(path):
        return os.path.isfile(path)
    with _as_value_error(path):
        if _has_handler(path):
            return bool(g_pathmgr.isfile(path))
        if is_plain_http(path):
            try:
                HttpFile(path, _TEXT_TIMEOUT).facts()
            except FileNotFoundError:
                return False
            return True
        store, inside = _find_store(path)
        try:
            return bool(store.info(inside)["type"] == "file")
        except FileNotFoundError:
            return False


def kind_of_file(path: str | os.PathLike[str]) -> str:
    """Return the kind of what is at a local path, without opening it.

    Opening a FIFO waits until another program writes to it.

    Returns:
        "file", "folder", "FIFO", "socket" or "device"; empty if there is nothing.

    Raises:
        OSError: the path can't be looked up, such as one in a folder of another user.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a NUL character
        return ""
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "folder",
        stat.S_IFIFO: "FIFO",
        stat.S_IFSOCK: "socket",
    }
    return kinds.get(stat.S_IFMT(mode), "device")


def list_names(folder: str) -> list[str]:
    """Sorted names of the files and folders in a folder; empty if it does not exist.

    Raises:
        ValueError: the folder is on an HTTP server, which can't list it, or the store can't be
            reached.
    """
    if not is_address(folder):
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    with _as_value_error(folder):
        if _has_handler(folder):
            return sorted(g_pathmgr.ls(folder)) if g_pathmgr.isdir(folder) else []
        if is_plain_http(folder):
            raise ValueError(f"{folder}: an HTTP server does not list its files; name each file")
        store, inside = _find_store(folder)
        try:
            paths = store.ls(inside, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
    return sorted(str(path).rstrip("/").rpartition("/")[2] for path in paths)


@contextmanager
def _as_value_error(path: str) -> Iterator[None]:
    """Turn the errors of a store into ValueErrors, for files that the user has named."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:  # each store raises the errors of its own package
        raise ValueError(f"{path}: cannot be read: {first_line(error)}") from error


def _has_handler(path: str) -> bool:
    # iopath has no public way to distinguish a registered handler from the one for local files.
    return any(path.startswith(prefix) for prefix in g_pathmgr._path_handlers)


def _find_store(path: str) -> tuple[Any, str]:
    """File system of fsspec for an address, and the path in it."""
    scheme = path.partition("://")[0]
    if any(part.startswith("ftp://") for part in path.split("::")):
        reason = "its servers may never answer; download the file"
        raise SchemeError(f"{path}: ftp:// can't be opened: {reason}")
    try:
        store, inside = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise SchemeError(f"{path}: {scheme}:// can't be opened: {error}") from error
    return store, inside


class _LocalFile(OpenFile):
    def __init__(self, path: str) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by `close`

    def read(self, start: int = 0, size: int | None = None) -> bytes:
        remaining = os.fstat(self._file.fileno()).st_size - start if size is None else size
        pieces = []
        while remaining > 0:
            piece = self._read_some(start, remaining)
            if not piece:
                break
            pieces.append(piece)
            start, remaining = start + len(piece), remaining - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_some(self, start: int, size: int) -> bytes:
        if hasattr(os, "pread"):  # does not move the file position, which forks share
            return os.pread(self._file.fileno(), size, start)
        self._file.seek(start)
        return self._file.read(size)

    def facts(self) -> FileFacts:
        found = os.fstat(self._file.fileno())
        return FileFacts(found.st_size, str(found.st_mtime_ns))

    def close(self) -> None:
        self._file.close()


class _HandledFile(OpenFile):
    """A file opened by a handler of iopath."""

    def __init__(self, path: str) -> None:
        self._file: Any = g_pathmgr.open(path, "rb")

    def read(self, start: int = 0, size: int | None = None) -> bytes:
        self._file.seek(start)
        content: bytes = self._file.read() if size is None else self._file.read(size)
        return content

    def facts(self) -> FileFacts:
        return FileFacts(int(self._file.seek(0, os.SEEK_END)), "")

    def close(self) -> None:
        self._file.close()


class _StoredFile(OpenFile):
    """A file in a store of fsspec: nothing stays open, each read is one request."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self, start: int = 0, size: int | None = None) -> bytes:
        store, inside = _find_store(self._path)
        if size == 0:
            return b""
        end = None if size is None else start + size
        content: bytes = store.cat_file(inside, start=start or None, end=end)
        return bytes(content)

    def facts(self) -> FileFacts:
        store, inside = _find_store(self._path)
        found = store.info(inside)
        if found.get("type") == "directory":
            raise IsADirectoryError(f"{self._path} is a folder")
        version = next((str(found[name]) for name in _VERSIONS if found.get(name)), "")
        return FileFacts(int(found["size"]), version)
