"""Interface of all decoders: a video as a sequence of frames with timestamps."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.files import STALLED, SchemeError
from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.videos.stopwatch import Stopwatch


class DecodeError(ValueError):
    """A file or one of its frames cannot be decoded.

    Attributes:
        path: file or address.
        reason: the problem, in one line.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class MissingFileError(DecodeError):
    """There is no such file."""


class StalledError(DecodeError):
    """A server did not send data in time, or this process was suspended meanwhile."""

    def __init__(self, path: str, reason: str = STALLED) -> None:
        super().__init__(path, reason)


class UnsuitedDecoderError(DecodeError):
    """This decoder reads the file incorrectly, but another one can read it."""


@contextmanager
def fetching(path: str) -> Iterator[None]:
    """Turn errors while reading from a store into DecodeErrors, which cost one video, not the run.

    Raises:
        StalledError: the bytes did not arrive in time.
        DecodeError: the bytes can't be read.
        SchemeError: no path of this kind can be opened, so all videos would be lost.
    """
    try:
        yield
    except (SchemeError, DecodeError):
        raise
    except FileNotFoundError as error:
        raise MissingFileError(path, "no such file") from error
    except TimeoutError as error:
        raise StalledError(path, str(error) or STALLED) from error
    except Exception as error:  # each store raises the errors of its own package
        raise DecodeError(path, f"cannot be read: {first_line(error)}") from error


# decord begins its messages with the time and a line of its source.
_WHERE_LOGGED = re.compile(r"^\[\d\d:\d\d:\d\d\] \S+:\d+: ")


def reason_of(error: BaseException) -> str:
    """One-line message of a decoder's error, without the path."""
    reason = getattr(error, "strerror", None)
    if reason:
        return str(reason)
    line = _WHERE_LOGGED.sub("", first_line(error))
    # Python's own errors are unclear without their names.
    is_own = isinstance(error, (ValueError, LookupError, TypeError, ArithmeticError, MemoryError))
    return f"{type(error).__name__}: {line}" if is_own else line


@contextmanager
def decoding(path: str, problem: str) -> Iterator[None]:
    """Turn a decoder's errors of any type into DecodeErrors, which cost one video, not the run.

    Args:
        path: file or address.
        problem: what fails, for the message.

    Raises:
        DecodeError: anything but an interruption was raised inside.
    """
    try:
        yield
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(path, f"{problem}: {reason_of(error)}") from error


class Video(ABC):
    """An open video: frame i is the i-th displayed one, whatever the storage order.

    Use it as a context manager; `close()` releases files and decoder memory.

    Attributes:
        path: file or address.
        backend: name of the decoder.
        num_frames: number of displayed frames.
        fps: average frame rate in frames per second.
        timestamps: float64 (num_frames,), seconds at which each frame is displayed, ascending.
        duration: seconds from the start of the first frame to the end of the last one.
        decoding: time that `frames` has taken so far.
    """

    backend: str

    def __init__(
        self, path: str, *, timestamps: NDArray[np.float64], fps: float, duration: float
    ) -> None:
        self.path = path
        self.timestamps = timestamps
        self.num_frames = len(timestamps)
        self.fps = fps
        self.duration = duration
        self.decoding = Stopwatch()

    def frames(self, indices: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Decode frames.

        Args:
            indices: frame indices in display order, one or more, in any order, repeats allowed.

        Returns:
            uint8 (T, H, W, 3), RGB, upright as displayed by a player, T = len(indices).

        Raises:
            ValueError: there is no index, one is out of range, or the video is closed.
            DecodeError: a frame cannot be decoded.
        """
        return self._to_host(self.pixels(indices))

    def pixels(self, indices: Sequence[int] | NDArray[np.integer]) -> Any:
        """Decode frames as `frames`, and leave them where they were decoded.

        Returns:
            As `frames`; a tensor on its device from a decoder that decodes on one.

        Raises:
            ValueError: see `frames`.
            DecodeError: see `frames`.
        """
        requested = np.asarray(indices)
        is_integer = np.issubdtype(requested.dtype, np.integer)
        if requested.ndim != 1 or requested.size == 0 or not is_integer:
            raise ValueError(f"indices must be a list of one or more integers, got {indices}")
        if requested.min() < 0 or requested.max() >= self.num_frames:
            raise ValueError(
                f"{self.path}: indices must be in 0..{self.num_frames - 1}, "
                f"got {requested.min()}..{requested.max()}"
            )
        unique, inverse = np.unique(requested, return_inverse=True)
        try:
            with self.decoding.running():
                decoded = self._decode(unique)
            in_order = len(unique) == len(requested) and np.array_equal(unique, requested)
            return decoded if in_order else decoded[inverse]
        except MemoryError as error:
            reason = f"{len(requested)} frames do not fit into memory"
            raise DecodeError(self.path, reason) from error

    def _to_host(self, pixels: Any) -> NDArray[np.uint8]:
        """Return the result of `pixels` as an array."""
        return pixels

    @abstractmethod
    def _decode(self, indices: NDArray[np.integer]) -> Any:
        """Decode the frames at strictly ascending indices, all in range; see `pixels`."""

    @abstractmethod
    def close(self) -> None:
        """Release the file and the decoder; may be called twice."""

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
