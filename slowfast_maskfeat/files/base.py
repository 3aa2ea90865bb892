"""A file that is read in pieces, wherever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import NamedTuple

STALLED = "stalled: no data arrived in time"


class SchemeError(ValueError):
    """Nothing opens addresses of this scheme."""


class FileFacts(NamedTuple):
    """Size in bytes, and a version that changes with the file ("" if the store has none)."""

    size: int
    version: str


class OpenFile(ABC):
    """A file that is read in pieces, by one thread of one process."""

    @abstractmethod
    def read(self, start: int = 0, size: int | None = None) -> bytes:
        """Read `size` bytes (None: all) from offset `start`, fewer at the end of the file.

        Raises:
            FileNotFoundError: the file does not exist.
            TimeoutError: no data arrived within the timeout.
            OSError: the file can't be read for another reason.
            ValueError: the scheme is unknown or its package is not installed.
        """

    @abstractmethod
    def facts(self) -> FileFacts:
        """Size and version; raises the errors of `read`."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Release the file; may be called twice."""

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
