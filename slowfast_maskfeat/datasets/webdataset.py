"""Tar shards in the layout of WebDataset: files of one sample share a key."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.datasets.list_file import is_number
from slowfast_maskfeat.datasets.shard_index import load_index, make_index
from slowfast_maskfeat.datasets.shard_names import find_shards
from slowfast_maskfeat.datasets.shard_scan import ShardError, ShardIndex, check_label_key
from slowfast_maskfeat.datasets.video_list import (
    DataFolder,
    RowCollector,
    RowError,
    VideoList,
)
from slowfast_maskfeat.videos.shards import Member, ShardReader

# Shards that are indexed at a time: much of it is waiting for a disk or a server.
_NUM_THREADS = 16
# So many bad shards are named; with more of them the data set is wrong as a whole.
_MAX_NAMED = 50


def read_webdataset(
    data: DataFolder, split: str, class_names: Sequence[str] | None = None
) -> VideoList:
    """Tar shards in the layout of WebDataset; see `find_shards` for which.

    A sample is a video or image and, beside it under the same key, its label: a number or a name in
    `.cls`, in a field of `.json`, or in `.txt` (config key DATA.SHARD_LABEL). All samples have one,
    of the same kind, or none has. Each shard is read once for its index, which is kept
    (`shard_index`); a row is a place in a shard then.

    Raises:
        MissingListError: There are no shards.
        ValueError: Shards are missing, compressed, damaged or truncated, each named with the
            reason; samples have no label or a wrong one.
    """
    shards, source = find_shards(data, split)
    indices = _read_indices(data, shards, source)
    folder = _common_folder(shards)
    rows = RowCollector(source, class_names, unit="sample")
    first_kind: str | None = None
    has_names: bool | None = None
    number = 0
    for shard, index in zip(shards, indices, strict=True):
        wrong = dict(index.wrong_labels)
        for row, (name, label) in enumerate(zip(index.names, index.labels, strict=True)):
            path = f"{shard[len(folder) :]}/{name}"
            number += 1
            with rows.row(number):
                if row in wrong:
                    raise RowError(f"{path}: {wrong[row]}")
                kind = index.label_kinds[row]
                if first_kind is None:
                    first_kind = kind
                if kind != first_kind:
                    raise RowError(f"{path}: {_other_kind(kind, first_kind)}")
                if label is not None and has_names is None:
                    has_names = not is_number(label)
                try:
                    rows.add(number, path, _number(rows, label, has_names))
                except RowError as error:
                    raise RowError(f"{path}: {error}") from error
    notes = list(_notes(shards, indices))
    return ShardList(
        rows.finish(folder, notes=notes),
        shards=tuple(shards),
        indices=indices,
        buffer=data.shards.buffer,
    )


class ShardList(VideoList):
    """Rows that lie in tar shards, in the order of their places there.

    Args:
        videos: The rows, whose paths are those of the shards and the names inside.
        shards: Paths of the shards.
        indices: What is in each.
        buffer: Rows that are shuffled among each other at a time.
    """

    def __init__(
        self,
        videos: VideoList,
        *,
        shards: tuple[str, ...],
        indices: Sequence[ShardIndex],
        buffer: int,
    ) -> None:
        super().__init__(
            videos._paths,
            videos._ends,
            videos.labels,
            source=videos.source,
            folder=videos._folder,
            class_names=videos.class_names,
            notes=videos.notes,
        )
        self._shards = shards
        self._begins = np.cumsum([0, *(len(index.names) for index in indices)])
        places = chain.from_iterable(index.offsets for index in indices)
        sizes = chain.from_iterable(index.sizes for index in indices)
        self._offsets = np.fromiter(places, np.int64, len(videos))
        self._sizes = np.fromiter(sizes, np.int64, len(videos))
        self._buffer = buffer
        self._reader = ShardReader()

    def content(self, index: int, *, timeout: float = 0.0) -> bytes | None:
        """The bytes of a row's video; see `VideoList.content`."""
        shard = self._shards[int(np.searchsorted(self._begins, index, side="right")) - 1]
        name = self.path(index)[len(shard) + 1 :]
        member = Member(name, int(self._offsets[index]), int(self._sizes[index]))
        return self._reader.read(shard, member, timeout=timeout)

    def shuffled(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """An order in which shards are read one after the other, each row once.

        Shards are shuffled, and the rows of this sequence in a buffer: it is filled with the first
        ones, and each step takes one of it at random and puts the next row in its place.
        """
        shard_of_row = np.repeat(np.arange(len(self._shards)), np.diff(self._begins))
        rank = generator.permutation(len(self._shards))
        sequence = np.argsort(rank[shard_of_row], kind="stable")
        return sequence[buffer_order(len(sequence), self._buffer, generator)]


def buffer_order(num_rows: int, buffer: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """The order in which rows 0, 1, 2, ... leave a shuffle buffer, without a loop over them.

    Step k takes the row in slot s[k], drawn uniformly, and puts row `buffer + k` there: so it takes
    the row that the step before with the same slot had put there, or the first one of the slot.
    What is left at the end leaves in random order. A row leaves `buffer - 1` places early at most;
    with a buffer of all rows every order is as likely as any other.

    Args:
        num_rows: How many rows there are.
        buffer: Slots; at least 1, which leaves the order as it is.
        generator: Of the draws.

    Returns:
        int64 (num_rows,), each row once.
    """
    buffer = min(buffer, num_rows)
    slots = generator.integers(buffer, size=num_rows - buffer) if buffer else np.arange(0)
    steps = np.argsort(slots, kind="stable")  # of the same slot one after the other
    is_first = np.ones(len(steps), np.bool_)
    is_first[1:] = slots[steps[1:]] != slots[steps[:-1]]
    put = np.roll(steps, 1) + buffer  # by the step before
    taken = np.empty(len(steps), np.int64)
    taken[steps] = np.where(is_first, slots[steps], put)
    left = np.setdiff1d(np.arange(num_rows), taken, assume_unique=True)
    return np.concatenate([taken, generator.permutation(left)])


def _read_indices(data: DataFolder, shards: list[str], source: str) -> list[ShardIndex]:
    """The index of each shard, made where there is none yet.

    Raises:
        ValueError: Shards can't be used; each is named with the reason.
    """
    check_label_key(data.shards.label)
    found: list[ShardIndex | None] = [None] * len(shards)
    wrong: dict[int, str] = {}

    def load(number: int) -> None:
        try:
            found[number] = load_index(shards[number], data.shards.label, data.shards.cache)
        except ShardError as error:
            wrong[number] = str(error)

    def make(number: int) -> None:
        load(number)  # another process may have made it meanwhile
        try:
            if found[number] is None and number not in wrong:
                found[number] = make_index(shards[number], data.shards.label, data.shards.cache)
        except ShardError as error:
            wrong[number] = str(error)

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        list(pool.map(load, range(len(shards))))
        missing = [n for n, index in enumerate(found) if index is None and n not in wrong]
        # Processes that start together share the work: each begins elsewhere.
        begin = os.getpid() % max(1, len(missing))
        progress = data.progress(len(missing), "indexing shards") if missing else None
        for _ in pool.map(make, missing[begin:] + missing[:begin]):
            if progress is not None:
                progress.update()
        if progress is not None:
            progress.close()
    if wrong:
        named = [f"{shards[number]}: {wrong[number]}" for number in sorted(wrong)][:_MAX_NAMED]
        if len(wrong) == 1:
            raise ValueError(named[0])
        raise ValueError(
            f"{source}: {len(wrong)} of {len(shards)} shards can't be used: " + "; ".join(named)
        )
    return [index for index in found if index is not None]


def _common_folder(shards: Sequence[str]) -> str:
    """What all paths begin with, up to a slash: hashes of lists do not depend on it."""
    first, last = min(shards), max(shards)
    pairs = enumerate(zip(first, last, strict=False))
    end = next((place for place, (one, other) in pairs if one != other), len(first))
    return first[: first.rfind("/", 0, end) + 1]


def _number(rows: RowCollector, label: str | None, has_names: bool | None) -> int | None:
    if label is None:
        return None
    return rows.named(label) if has_names else rows.number(label)


def _other_kind(kind: str, first: str) -> str:
    found = f"a label in .{kind}" if kind else "no label"
    return f"{found}, unlike the first sample, which has {f'one in .{first}' if first else 'none'}"


def _notes(shards: Sequence[str], indices: Sequence[ShardIndex]) -> Iterator[str]:
    num_passed_over = sum(index.num_passed_over for index in indices)
    if num_passed_over:
        shard, index = next(
            pair for pair in zip(shards, indices, strict=True) if pair[1].num_passed_over
        )
        yield (
            f"{num_passed_over} members are no video, image or label of a sample and are passed "
            f"over, such as {shard}/{index.passed_over[0]}"
        )
    for text in sorted({note for index in indices for note in index.notes}):
        mine = [s for s, index in zip(shards, indices, strict=True) if text in index.notes]
        yield f"{len(mine)} shards: {text}; the first is {mine[0]}"
    empty = [shard for shard, index in zip(shards, indices, strict=True) if not index.names]
    if empty:
        yield f"{len(empty)} shards have no samples; the first is {empty[0]}"
