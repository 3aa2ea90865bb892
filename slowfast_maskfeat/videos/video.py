"""What every decoder gives: a video as a sequence of frames with times."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.files import STALLED
from slowfast_maskfeat.log import first_line


class DecodeError(ValueError):
    """A file that cannot be decoded, or a frame of it.

    Attributes:
        path: The file.
        reason: What is wrong with it, in one line.
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
    """A server did not send what was asked for in time, or this process was stopped meanwhile."""

    def __init__(self, path: str, reason: str = STALLED) -> None:
        super().__init__(path, reason)


class UnsuitedDecoderError(DecodeError):
    """A file that this decoder cannot read rightly but another one can."""


@contextmanager
def fetching(path: str) -> Iterator[None]:
    """Around the reading of bytes from a store: what goes wrong costs this video and no run.

    Raises:
        StalledError: They did not come in time.
        DecodeError: The bytes can't be had.
        ValueError: No path of this kind can be opened, so that all videos would be lost.
    """
    try:
        yield
    except ValueError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(path, "no such file") from error
    except TimeoutError as error:
        raise StalledError(path, str(error) or STALLED) from error
    except Exception as error:  # each store raises what its own package has
        raise DecodeError(path, f"cannot be read: {first_line(error)}") from error


class Video(ABC):
    """An opened video: frame i is the i-th one shown, whatever the order they are stored in.

    Use it as a context manager; files and decoder memory are released by `close()`.

    Attributes:
        path: The file.
        backend: Name of the decoder.
        num_frames: How many frames are shown.
        fps: Average frame rate in frames per second.
        timestamps: float64 (num_frames,), seconds at which each frame appears, ascending.
        duration: Seconds from the first frame's appearance to the last one's end.
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

    def frames(self, indices: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Decode frames.

        Args:
            indices: Numbers of the frames to show, in any order, repeats allowed; at least one.

        Returns:
            uint8 (T, H, W, 3), RGB, upright as a player shows them, T = len(indices).

        Raises:
            ValueError: No index, one that is out of range, or a closed video.
            DecodeError: A frame that the file promises cannot be decoded.
        """
        wanted = np.asarray(indices)
        if wanted.ndim != 1 or wanted.size == 0 or not np.issubdtype(wanted.dtype, np.integer):
            raise ValueError(f"indices must be a list of one or more whole numbers, got {indices}")
        if wanted.min() < 0 or wanted.max() >= self.num_frames:
            raise ValueError(
                f"{self.path}: frames {wanted.min()}..{wanted.max()} asked for, "
                f"it has 0..{self.num_frames - 1}"
            )
        unique, places = np.unique(wanted, return_inverse=True)
        decoded = self._decode(unique)
        in_order = len(unique) == len(wanted) and np.array_equal(unique, wanted)
        return decoded if in_order else decoded[places]

    @abstractmethod
    def _decode(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Decode frames given by strictly ascending numbers that are in range."""

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
