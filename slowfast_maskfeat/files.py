"""Reads any path: a local file, or an address (`scheme://...`) in a store on the network.
Writes local files atomically.

Of an address iopath's path manager is asked first, where a handler of its scheme was registered.
HTTP is read here: fsspec needs another package for it, and does not check that a server which was
asked for a piece has sent that piece. Every other scheme (s3, gs, hdfs, memory, ...) is opened by
fsspec with the package that it asks for.
"""

from __future__ import annotations

import io
import os
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TextIO
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

import fsspec
from iopath.common.file_io import g_pathmgr

from slowfast_maskfeat.log import first_line

# What may follow in a URL without being escaped, "%" included: it may be escaped already.
_URL_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"
# A server that is busy or has closed a connection is asked again after these seconds.
_PAUSES = (0.2, 1.0)
_BUSY = frozenset({429, 500, 502, 503, 504})
_ABSENT = frozenset({404, 410})
# What stores call that which changes with an object, the surest first.
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "updated")
# Seconds without data after which a list on the network is given up.
_LIST_TIMEOUT = 60.0
STALLED = "stalled: what was asked for did not come in time"


class FileFacts(NamedTuple):
    """Size in bytes, and a text that changes when the file does ("" where a store says none)."""

    size: int
    version: str


class OpenFile(ABC):
    """A file that is read piece by piece, by one thread of one process."""

    @abstractmethod
    def read(self, start: int = 0, size: int | None = None) -> bytes:
        """Bytes from `start` on, `size` of them (None: all), fewer where the file ends.

        Raises:
            FileNotFoundError: There is no such file.
            TimeoutError: No data came within the time limit.
            OSError: Anything else went wrong.
            ValueError: A scheme that is unknown, or whose package is absent.
        """

    @abstractmethod
    def facts(self) -> FileFacts:
        """Size and version; raises what `read` raises."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Release it; may be called twice."""

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def is_address(path: str) -> bool:
    """Whether a path lies in a store on the network, or anywhere that has a scheme."""
    return "://" in path


def is_plain_http(path: str) -> bool:
    """Whether an address is HTTP that no handler of iopath takes care of."""
    return path.startswith(("http://", "https://")) and not _has_handler(path)


def join(folder: str, name: str) -> str:
    """A name inside a folder, with a forward slash between in an address; a whole path stays."""
    if is_address(name) or os.path.isabs(name) or not folder:
        return name
    if is_address(folder):
        return f"{folder}{name}" if folder.endswith("/") else f"{folder}/{name}"
    return os.path.join(folder, name)


def open_file(path: str, *, timeout: float = 0.0) -> OpenFile:
    """Open a file to read pieces of it.

    Args:
        path: A path or an address.
        timeout: Seconds without data after which HTTP is given up; 0 waits for ever. Other stores
            have limits of their own.

    Raises:
        FileNotFoundError, OSError, ValueError: See `OpenFile.read`; an address may raise them at
            the first reading.
    """
    if not is_address(path):
        return _LocalFile(path)
    if _has_handler(path):
        return _HandledFile(path)
    if is_plain_http(path):
        return _HttpFile(path, timeout)
    return _StoredFile(path)


def read_bytes(path: str, *, timeout: float = 0.0) -> bytes:
    """The content of a file; see `open_file`."""
    with open_file(path, timeout=timeout) as file:
        return file.read()


@contextmanager
def open_text(
    path: str, *, encoding: str = "utf-8-sig", errors: str = "strict"
) -> Iterator[TextIO]:
    """Open a text file, such as a list; an address is read as a whole.

    Raises:
        OSError: A local file can't be opened.
        ValueError: An address can't be read.
    """
    if not is_address(path):
        with open(path, encoding=encoding, errors=errors) as file:
            yield file
        return
    with _asking(path):
        content = read_bytes(path, timeout=_LIST_TIMEOUT)
    yield io.TextIOWrapper(io.BytesIO(content), encoding=encoding, errors=errors)


def is_file(path: str) -> bool:
    """Whether there is such a file.

    Raises:
        ValueError: The store of an address can't be asked.
    """
    if not is_address(path):
        return os.path.isfile(path)
    with _asking(path):
        if _has_handler(path):
            return bool(g_pathmgr.isfile(path))
        if is_plain_http(path):
            try:
                _HttpFile(path, _LIST_TIMEOUT).facts()
            except FileNotFoundError:
                return False
            return True
        store, inside = _find_store(path)
        try:
            return bool(store.info(inside)["type"] == "file")
        except FileNotFoundError:
            return False


def list_names(folder: str) -> list[str]:
    """The names in a folder, sorted; none where there is no such folder.

    Raises:
        ValueError: It is at an HTTP server, which can't tell, or its store can't be asked.
    """
    if not is_address(folder):
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    with _asking(folder):
        if _has_handler(folder):
            return sorted(g_pathmgr.ls(folder)) if g_pathmgr.isdir(folder) else []
        if is_plain_http(folder):
            raise ValueError(f"{folder}: an HTTP server does not list its files: name them")
        store, inside = _find_store(folder)
        try:
            paths = store.ls(inside, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
    return sorted(str(path).rstrip("/").rpartition("/")[2] for path in paths)


@contextmanager
def _asking(path: str) -> Iterator[None]:
    """Around what is asked of a store before anything is loaded: its errors are the user's."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:  # each store raises what its own package has
        raise ValueError(f"{path}: cannot be read: {first_line(error)}") from error


def _has_handler(path: str) -> bool:
    # iopath has no other way to tell a registered handler from that of local files.
    return any(path.startswith(prefix) for prefix in g_pathmgr._path_handlers)


def _find_store(path: str) -> tuple[Any, str]:
    """What fsspec opens an address with, and the path in it."""
    scheme = path.partition("://")[0]
    try:
        store, inside = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{path}: {scheme}:// can't be opened: {error}") from error
    return store, inside


class _LocalFile(OpenFile):
    def __init__(self, path: str) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by `close`

    def read(self, start: int = 0, size: int | None = None) -> bytes:
        left = os.fstat(self._file.fileno()).st_size - start if size is None else size
        pieces = []
        while left > 0:
            piece = self._read_some(start, left)
            if not piece:
                break
            pieces.append(piece)
            start, left = start + len(piece), left - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_some(self, start: int, size: int) -> bytes:
        if hasattr(os, "pread"):  # it moves no position that others read from
            return os.pread(self._file.fileno(), size, start)
        self._file.seek(start)
        return self._file.read(size)

    def facts(self) -> FileFacts:
        found = os.fstat(self._file.fileno())
        return FileFacts(found.st_size, str(found.st_mtime_ns))

    def close(self) -> None:
        self._file.close()


class _HandledFile(OpenFile):
    """A file that a handler of iopath opens."""

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
    """A file in a store that fsspec knows: nothing stays open, each piece is one request."""

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


class _HttpFile(OpenFile):
    """A file of an HTTP server: each piece is one request, whose answer is checked."""

    def __init__(self, path: str, timeout: float) -> None:
        self._path = path
        self._timeout = timeout or None

    def read(self, start: int = 0, size: int | None = None) -> bytes:
        if size == 0:
            return b""
        last = "" if size is None else str(start + size - 1)
        is_whole = start == 0 and size is None
        wanted = {} if is_whole else {"Range": f"bytes={start}-{last}"}
        status, headers, content = self._ask(wanted, with_content=True)
        if status == 416:
            return b""
        if is_whole or status == 206:
            if status == 206 and not headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise OSError(
                    f"the server sent {headers.get('Content-Range')}, not from {start} on"
                )
            return content
        raise OSError("the server sends whole files alone, no pieces of them (HTTP ranges)")

    def facts(self) -> FileFacts:
        # Not HEAD: signed addresses are for one method, and some servers know no other than GET.
        status, headers, _ = self._ask({"Range": "bytes=0-0"}, with_content=False)
        size = headers.get("Content-Length")
        if status in (206, 416):
            size = headers.get("Content-Range", "").rpartition("/")[2]
        if not (size or "").isdigit():
            raise OSError("the server does not tell the size")
        version = headers.get("ETag") or headers.get("Last-Modified") or ""
        return FileFacts(int(size), version)

    def _ask(self, headers: dict[str, str], *, with_content: bool) -> tuple[int, Any, bytes]:
        """Status, headers and content of an answer; what may pass is tried again."""
        for pause in (*_PAUSES, None):
            try:
                request = Request(quote(self._path, safe=_URL_CHARACTERS), headers=headers)
                with urlopen(request, timeout=self._timeout) as answer:
                    # A whole file that was not asked for is left where it is.
                    is_wanted = with_content and (answer.status == 206 or not headers)
                    content = answer.read() if is_wanted else b""
                    return answer.status, answer.headers, content
            except HTTPError as error:
                error.close()
                if error.code == 416:
                    return error.code, error.headers, b""
                if error.code in _ABSENT:
                    raise FileNotFoundError(f"no such file (HTTP {error.code})") from error
                if error.code not in _BUSY or pause is None:
                    raise OSError(f"HTTP {error.code} {error.reason}") from error
            except TimeoutError as error:
                raise TimeoutError(STALLED) from error
            except (URLError, HTTPException, ConnectionError) as error:
                reason = getattr(error, "reason", error)
                if isinstance(reason, TimeoutError):
                    raise TimeoutError(STALLED) from error
                if pause is None:
                    raise OSError(f"{type(error).__name__}: {reason}") from error
            time.sleep(pause)
        raise AssertionError("the last try returns or raises")


PART_SUFFIX = ".part"


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, shared: bool = False) -> Iterator[Path]:
    """Write a file whole or not at all: it takes its name in one step once it is on the disk.

    Args:
        path: of the file; its folder is created.
        shared: several processes may write this file at once; each gets a temporary file of its
            own. Otherwise a later attempt overwrites what a killed one has left.

    Yields:
        A hidden temporary file beside it, removed if writing fails.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    own = f".{secrets.token_hex(8)}" if shared else ""
    temporary = path.parent / f".{path.name}{own}{PART_SUFFIX}"
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == os.fspath(temporary):
            error.filename = os.fspath(path)  # the name that the user knows
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # So that the new name itself outlives a power cut. Not every file system can do it.
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
