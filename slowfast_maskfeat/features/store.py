"""A folder that features go to as they are made, and are read from a few rows at a time.

Each process of an extraction writes a part of its own, so that nothing is sent or put together:

    part_0003.rows      features of its clips one after the other, as they were made
    part_0003.npy       `_INDEX`, a record a clip: which one it is, and its seconds
    facts.json          written last: what the features stand on, and which parts are complete

A clip is there when the index names it. The index is renewed every few seconds, once the features
are safe on the disk; what a killed process wrote after that is cut off by the run that goes on. Two
runs may make the same features at once: each has parts of its own, and a clip counts once.
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
except ImportError:  # not a Unix: nothing is locked, and so nothing is cut off
    fcntl = None  # type: ignore[assignment]

_INDEX = np.dtype([("clip", "<i8"), ("times", "<f8", 2)])
_FACTS = "facts.json"
SECONDS_BETWEEN_SAVES = 10.0


class StoredClips(NamedTuple):
    """What is in a store, in the order of the clips.

    Attributes:
        clips: (C,) int64: row of the list times views, plus the view.
        times: (C, 2) float64, seconds of the first and last frame.
        features: of these, on the disk.
    """

    clips: Tensor
    times: Tensor
    features: FeatureRows


class FeatureStore:
    """Features of one list by one network.

    Args:
        folder: of it alone.
        shape: of a clip's features: (D,), kept as float32, or (n, D) of tokens, as float16: of
            these there are many, and half the bits carry what a layer norm gives.
    """

    def __init__(self, folder: Path, shape: Sequence[int]) -> None:
        self.folder = folder
        self.shape = tuple(shape)
        self.dtype = np.dtype("<f4" if len(self.shape) == 1 else "<f2")

    @property
    def clip_bytes(self) -> int:
        """Bytes on the disk that a clip takes."""
        return math.prod(self.shape) * self.dtype.itemsize + _INDEX.itemsize

    def facts(self) -> dict[str, Any] | None:
        """What `finish` was given; None while something is missing.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            text = (self.folder / _FACTS).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            found: dict[str, Any] = json.loads(text)["facts"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(_FACTS) from error
        return found

    def parts(self) -> list[int]:
        """Numbers of the parts that hold clips, finished or not."""
        return sorted(
            int(path.stem.removeprefix("part_")) for path in self.folder.glob("part_*.npy")
        )

    def next_part(self) -> int:
        """The first number that no part has, nor any after it."""
        numbers = [int(path.stem.removeprefix("part_")) for path in self.folder.glob("part_*.rows")]
        return max(numbers, default=-1) + 1

    def clean(self) -> None:
        """Cut off what killed processes wrote after their last index; parts that somebody writes
        stay as they are."""
        for path in self.folder.glob("part_*.rows"):
            with open(path, "rb+") as file:
                if not _is_ours(file):
                    continue
                index = path.with_suffix(".npy")
                size = self._row_bytes * len(self._index(index)) if index.exists() else 0
                if os.fstat(file.fileno()).st_size > size:
                    file.truncate(size)

    def read(self, parts: Sequence[int]) -> StoredClips:
        """The clips of some parts.

        Raises:
            ValueError: a part is damaged, or not there.
        """
        indices = [self._index(self._path(part, ".npy")) for part in parts]
        rows = [self._rows(part, len(index)) for part, index in zip(parts, indices, strict=True)]
        if not rows:
            rows = [np.empty((0, *self.shape), self.dtype)]
        index = np.concatenate([*indices, np.empty(0, _INDEX)])
        part = np.repeat(np.arange(len(indices), dtype=np.int32), [len(some) for some in indices])
        place = np.concatenate(
            [np.arange(len(some)) for some in indices] or [np.empty(0, np.int64)]
        )
        clips, first = np.unique(index["clip"], return_index=True)
        features = FeatureRows(rows, part[first], place[first])
        times = np.ascontiguousarray(index["times"][first])
        return StoredClips(torch.from_numpy(clips), torch.from_numpy(times), features)

    def read_all(self) -> StoredClips:
        """All clips of a store that is complete.

        Raises:
            ValueError: something of it is damaged or not there.
        """
        try:
            parts = json.loads((self.folder / _FACTS).read_text(encoding="utf-8"))["parts"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(_FACTS) from error
        return self.read(parts)

    def finish(self, facts: Mapping[str, Any], parts: Sequence[int]) -> None:
        """Say that these parts are all there is, and what they stand on.

        Args:
            facts: what JSON can hold.
            parts: their numbers.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        with atomic_write(self.folder / _FACTS) as temporary:
            content = {"facts": facts, "parts": list(parts)}
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")

    def writer(
        self, part: int, num_views: int, *, save_seconds: float = SECONDS_BETWEEN_SAVES
    ) -> PartWriter:
        """What writes a part that is not there yet, for ``with``.

        Args:
            part: its number, of no other process.
            num_views: clips of a row of the list.
            save_seconds: how much work a process that is killed may lose.
        """
        return PartWriter(self, self._path(part, ".rows"), num_views, save_seconds)

    @property
    def _row_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def _path(self, part: int, ending: str) -> Path:
        return self.folder / f"part_{part:04d}{ending}"

    def _index(self, path: Path) -> NDArray[np.void]:
        try:
            found = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged(path.name) from error
        if found.dtype != _INDEX:
            raise self._damaged(path.name)
        return found

    def _rows(self, part: int, num_rows: int) -> NDArray[np.generic]:
        path = self._path(part, ".rows")
        try:
            return np.memmap(path, self.dtype, mode="r", shape=(num_rows, *self.shape))
        except (OSError, ValueError) as error:
            raise self._damaged(path.name) from error

    def _damaged(self, name: str) -> ValueError:
        return ValueError(
            f"{self.folder}: {name} is damaged or not there; remove the folder, and the features "
            "are made anew"
        )


class PartWriter:
    """Writes the features of one process; what is complete stays, however the process ends.

    Args:
        store: that the part is of.
        path: of the part's features; the index lies beside it.
        num_views: clips of a row of the list. Rows are there as a whole or not at all, so that a
            run that goes on has the clips in the batches that they would have been in.
        save_seconds: between two renewals of the index.
    """

    def __init__(
        self, store: FeatureStore, path: Path, num_views: int, save_seconds: float
    ) -> None:
        self._store = store
        self._path = path
        self._num_views = num_views
        self._save_seconds = save_seconds
        self._index: list[NDArray[np.void]] = []
        self._of_open_row: list[NDArray[np.void]] = []
        self._num_saved = 0
        self._saved_at = time.monotonic()
        self.num_clips = 0

    def __enter__(self) -> PartWriter:
        try:
            self._file = open(self._path, "xb", buffering=0)
            _is_ours(self._file)
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
            if error is None:  # else the first error is the one to tell
                raise
        finally:
            self._file.close()
        if not self._num_saved:
            self._path.unlink()

    def put(self, clips: Tensor, features: Tensor, times: Tensor) -> None:
        """Write some clips, those of a row of the list one after the other.

        Args:
            clips: (B,) int64: row times views, plus the view.
            features: (B, ...) of any type, on any device.
            times: (B, 2) float64.

        Raises:
            ValueError: the disk is full or the folder cannot be written.
        """
        records = np.empty(len(clips), _INDEX)
        records["clip"], records["times"] = clips.cpu().numpy(), times.cpu().numpy()
        kept = features.to(_torch_type(self._store.dtype)).cpu().contiguous()
        self._write(kept.numpy().tobytes())
        self._of_open_row.append(records)
        if int(clips[-1]) % self._num_views == self._num_views - 1:
            self.num_clips += sum(map(len, self._of_open_row))
            self._index += self._of_open_row
            self._of_open_row = []
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
        """Make sure of what is written, then say in the index that it is there."""
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
            f"{self._path}: {error.strerror or error}; the features that are there are kept, and "
            "the same command goes on with the others"
        )


def _is_ours(file: IO[bytes]) -> bool:
    """Whether no other process writes the file; until this one ends or closes it, none will.

    False, too, where the file system knows no locks.
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
