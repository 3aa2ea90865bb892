"""Folder of extracted features that survives interruptions and is read a few rows at a time.

Each process of an extraction writes its own part, so that nothing has to be sent or merged:

    part_0003.rows      features of its clips one after the other, in the order of extraction
    part_0003.npy       `_INDEX`, one record per clip: clip number and timestamps
    facts.json          written last: metadata of the features, and the complete parts

A clip is complete when it is in the index. The index is rewritten every few seconds, after the
features have been flushed to disk; features that a killed process wrote after that are truncated by
the run that resumes. Two runs may extract the same features at once: each has its own parts, and
duplicate clips are dropped when reading.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slowfast_maskfeat.features.rows import FeatureRows
from slowfast_maskfeat.files import atomic_write

try:
    import fcntl
except ImportError:  # not a Unix: nothing is locked, and so nothing is truncated
    fcntl = None  # type: ignore[assignment]

_INDEX = np.dtype([("clip", "<i8"), ("times", "<f8", 2)])
_FACTS = "facts.json"
SECONDS_BETWEEN_SAVES = 10.0


class StoredClips(NamedTuple):
    """Content of a store, sorted by clip number.

    Attributes:
        clips: (C,) int64 clip numbers, sample index * views + view.
        times: (C, 2) float64, timestamps in seconds of the first and last frame.
        features: (C, ...) features, on disk.
    """

    clips: Tensor
    times: Tensor
    features: FeatureRows


class FeatureStore:
    """Features of one split by one network.

    Args:
        folder: folder of this store alone.
        shape: shape of a clip's features: (D,), stored as float32, or (n, D) for tokens, stored as
            float16: there are many of these, and float16 is precise enough for the outputs of a
            layer norm.
    """

    def __init__(self, folder: Path, shape: Sequence[int]) -> None:
        self.folder = folder
        self.shape = tuple(shape)
        self.dtype = np.dtype("<f4" if len(self.shape) == 1 else "<f2")

    @property
    def clip_bytes(self) -> int:
        """Bytes on disk per clip."""
        return math.prod(self.shape) * self.dtype.itemsize + _INDEX.itemsize

    def facts(self) -> dict[str, Any] | None:
        """Read the metadata given to `finish`; None if the store is not finished.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            text = (self.folder / _FACTS).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            facts: dict[str, Any] = json.loads(text)["facts"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(_FACTS) from error
        return facts

    def parts(self) -> list[int]:
        """Numbers of the parts that have clips, finished or not."""
        return sorted(
            int(path.stem.removeprefix("part_")) for path in self.folder.glob("part_*.npy")
        )

    def next_part(self) -> int:
        """The number after that of the last part."""
        numbers = [int(path.stem.removeprefix("part_")) for path in self.folder.glob("part_*.rows")]
        return max(numbers, default=-1) + 1

    def clean(self) -> None:
        """Truncate features that killed processes wrote after their last index.

        Parts that another process is writing are unchanged.
        """
        for path in self.folder.glob("part_*.rows"):
            with open(path, "rb+") as file:
                if not _try_lock(file):
                    continue
                index = path.with_suffix(".npy")
                size = self._row_bytes * len(self._index(index)) if index.exists() else 0
                if os.fstat(file.fileno()).st_size > size:
                    file.truncate(size)

    def read(self, parts: Sequence[int]) -> StoredClips:
        """Read the clips of some parts.

        Raises:
            ValueError: a part is damaged or missing.
        """
        indices = [self._index(self._path(part, ".npy")) for part in parts]
        arrays = [self._rows(part, len(index)) for part, index in zip(parts, indices, strict=True)]
        if not arrays:
            arrays = [np.empty((0, *self.shape), self.dtype)]
        index = np.concatenate([*indices, np.empty(0, _INDEX)])
        lengths = [len(of_part) for of_part in indices]
        array_index = np.repeat(np.arange(len(indices), dtype=np.int32), lengths)
        row_index = np.concatenate(
            [np.arange(length) for length in lengths] or [np.empty(0, np.int64)]
        )
        clips, first = np.unique(index["clip"], return_index=True)
        features = FeatureRows(arrays, array_index[first], row_index[first])
        times = np.ascontiguousarray(index["times"][first])
        return StoredClips(torch.from_numpy(clips), torch.from_numpy(times), features)

    def read_all(self) -> StoredClips:
        """Read all clips of a finished store.

        Raises:
            ValueError: a file is damaged or missing.
        """
        try:
            parts = json.loads((self.folder / _FACTS).read_text(encoding="utf-8"))["parts"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(_FACTS) from error
        return self.read(parts)

    def finish(self, facts: Mapping[str, Any], parts: Sequence[int]) -> None:
        """Mark the store as complete and write its metadata.

        Args:
            facts: metadata that can be written as JSON.
            parts: numbers of all parts.

        Raises:
            OSError: the disk is full or the folder can't be written.
        """
        with atomic_write(self.folder / _FACTS) as temporary:
            content = {"facts": facts, "parts": list(parts)}
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")

    def writer(
        self, part: int, num_views: int, *, save_seconds: float = SECONDS_BETWEEN_SAVES
    ) -> PartWriter:
        """Writer of a new part, a context manager.

        Args:
            part: number of the part, used by no other process.
            num_views: clips per sample.
            save_seconds: seconds of work that may be lost if the process is killed.
        """
        return PartWriter(self, self._path(part, ".rows"), num_views, save_seconds)

    @property
    def _row_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def _path(self, part: int, ending: str) -> Path:
        return self.folder / f"part_{part:04d}{ending}"

    def _index(self, path: Path) -> NDArray[np.void]:
        try:
            index = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged(path.name) from error
        if index.dtype != _INDEX:
            raise self._damaged(path.name)
        return index

    def _rows(self, part: int, num_rows: int) -> NDArray[np.generic]:
        path = self._path(part, ".rows")
        try:
            return np.memmap(path, self.dtype, mode="r", shape=(num_rows, *self.shape))
        except (OSError, ValueError) as error:
            raise self._damaged(path.name) from error

    def _damaged(self, name: str) -> ValueError:
        return ValueError(
            f"{self.folder}: {name} is damaged or missing; remove the folder to extract the "
            "features again"
        )


class PartWriter:
    """Writes the features of one process; complete samples are kept however the process ends.

    Args:
        store: store that the part belongs to.
        path: file of the part's features; the index is next to it.
        num_views: clips per sample. A sample is saved with all its clips or not at all, so that a
            resumed run has the same clips in each batch as an uninterrupted one.
        save_seconds: seconds between two writes of the index.
    """

    def __init__(
        self, store: FeatureStore, path: Path, num_views: int, save_seconds: float
    ) -> None:
        self._store = store
        self._path = path
        self._num_views = num_views
        self._save_seconds = save_seconds
        self._index: list[NDArray[np.void]] = []
        self._of_open_sample: list[NDArray[np.void]] = []
        self._num_saved = 0
        self._saved_at = time.monotonic()
        self.num_clips = 0

    def __enter__(self) -> PartWriter:
        try:
            self._file = open(self._path, "xb", buffering=0)
            _try_lock(self._file)
        except OSError as error:
            raise self._unwritable(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._save()
            self._file.truncate(self._num_saved * self._store._row_bytes)
        except (OSError, ValueError):
            if error is None:  # else report the first error
                raise
        finally:
            self._file.close()
        if not self._num_saved:
            self._path.unlink()

    def put(self, clips: Tensor, features: Tensor, times: Tensor) -> None:
        """Write some clips; the clips of a sample must come one after the other.

        Args:
            clips: (B,) int64 clip numbers, sample index * views + view.
            features: (B, ...) of any dtype, on any device.
            times: (B, 2) float64, timestamps in seconds of the first and last frame.

        Raises:
            ValueError: the disk is full or the folder can't be written.
        """
        records = np.empty(len(clips), _INDEX)
        records["clip"], records["times"] = clips.cpu().numpy(), times.cpu().numpy()
        stored = features.to(_torch_type(self._store.dtype)).cpu().contiguous()
        self._write(stored.numpy().tobytes())
        self._of_open_sample.append(records)
        if int(clips[-1]) % self._num_views == self._num_views - 1:
            self.num_clips += sum(map(len, self._of_open_sample))
            self._index += self._of_open_sample
            self._of_open_sample = []
            if time.monotonic() - self._saved_at >= self._save_seconds:
                self._save()

    def _write(self, content: bytes) -> None:
        view = memoryview(content)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise self._unwritable(error) from error

    def _save(self) -> None:
        """Flush the features to disk, then add them to the index."""
        if self._num_saved < self.num_clips:
            try:
                os.fsync(self._file.fileno())
                index = self._path.with_suffix(".npy")
                with atomic_write(index) as temporary, open(temporary, "wb") as file:
                    np.save(file, np.concatenate(self._index))
            except OSError as error:
                raise self._unwritable(error) from error
            self._num_saved = self.num_clips
        self._saved_at = time.monotonic()

    def _unwritable(self, error: OSError) -> ValueError:
        return ValueError(
            f"{self._path}: {error.strerror or error}; saved features are kept, run the same "
            "command again to extract the others"
        )


def _try_lock(file: IO[bytes]) -> bool:
    """Lock a file against other writers until it is closed or this process ends.

    Returns:
        False if another process has the lock or the file system does not support locks.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _torch_type(dtype: np.dtype[np.generic]) -> torch.dtype:
    return torch.float32 if dtype.itemsize == 4 else torch.float16
