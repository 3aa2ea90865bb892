"""Tar shards in the layout of WebDataset: members of one sample share a key."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.datasets.list_format import is_number
from slowfast_maskfeat.datasets.row_collector import RowCollector, RowError
from slowfast_maskfeat.datasets.shard_index import load_index, make_index
from slowfast_maskfeat.datasets.shard_names import find_shards
from slowfast_maskfeat.datasets.shard_scan import ShardError, ShardIndex, check_label_key
from slowfast_maskfeat.datasets.video_list import DataFolder, VideoList
from slowfast_maskfeat.videos.shards import Member, ShardReader

# Shards that are indexed concurrently: most of the time is spent waiting for a disk or server.
_NUM_THREADS = 16
# Bad shards that are named in the error.
_MAX_NAMED = 50


def read_webdataset(
    data: DataFolder, split: str, class_names: Sequence[str] | None = None
) -> VideoList:
    """Read tar shards in the layout of WebDataset, as found by `find_shards`.

    A sample is a video or image with its label in another member with the same key: a number or a
    name in `.cls`, in a field of `.json`, or in `.txt` (config key DATA.SHARD_LABEL). Either all
    samples have a label of the same kind, or none has. Each shard is scanned once, and its index is
    stored (`shard_index`).

    Raises:
        MissingListError: there are no shards.
        ValueError: shards are missing, compressed, damaged or truncated, each named with the
            reason, or labels are missing or malformed.
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
    """Samples in tar shards, in the order of the members.

    Args:
        videos: the samples, with paths `<shard>/<member>`.
        shards: paths of the shards.
        indices: index of each shard.
        buffer: size of the shuffle buffer in samples.
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
        """Bytes of a sample's video; see `VideoList.content`."""
        shard = self._shards[int(np.searchsorted(self._begins, index, side="right")) - 1]
        name = self.path(index)[len(shard) + 1 :]
        member = Member(name, int(self._offsets[index]), int(self._sizes[index]))
        return self._reader.read(shard, member, timeout=timeout)

    def shuffled(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Random order in which shards are read one after the other.

        Shards are shuffled, and their samples pass through a shuffle buffer: it is filled with the
        first samples, and each step takes one at random and replaces it by the next sample.
        """
        shard_of_row = np.repeat(np.arange(len(self._shards)), np.diff(self._begins))
        rank = generator.permutation(len(self._shards))
        sequence = np.argsort(rank[shard_of_row], kind="stable")
        return sequence[buffer_order(len(sequence), self._buffer, generator)]


def buffer_order(num_rows: int, buffer: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Order in which rows 0, 1, 2, ... leave a shuffle buffer, computed without a loop.

    Step k takes the row in a uniformly drawn slot s[k] and puts row `buffer + k` there, so it takes
    the row that the previous step with this slot put there, or the first row of the slot. The rows
    in the buffer at the end leave it in random order. No row leaves more than `buffer - 1` places
    early; with a buffer for all rows, all orders are equally likely.

    Args:
        num_rows: number of rows.
        buffer: number of slots, at least 1, which keeps the order.
        generator: source of the draws.

    Returns:
        int64 (num_rows,), a permutation.
    """
    buffer = min(buffer, num_rows)
    slots = generator.integers(buffer, size=num_rows - buffer) if buffer else np.arange(0)
    steps = np.argsort(slots, kind="stable")  # steps with the same slot are adjacent
    is_first = np.ones(len(steps), np.bool_)
    is_first[1:] = slots[steps[1:]] != slots[steps[:-1]]
    put = np.roll(steps, 1) + buffer  # by the previous step
    taken = np.empty(len(steps), np.int64)
    taken[steps] = np.where(is_first, slots[steps], put)
    left = np.setdiff1d(np.arange(num_rows), taken, assume_unique=True)
    return np.concatenate([taken, generator.permutation(left)])


def _read_indices(data: DataFolder, shards: list[str], source: str) -> list[ShardIndex]:
    """Load the index of each shard, or scan the shard if there is none.

    Raises:
        ValueError: some shards cannot be used; each is named with the reason.
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
        load(number)  # another process may have stored it in the meantime
        try:
            if found[number] is None and number not in wrong:
                found[number] = make_index(shards[number], data.shards.label, data.shards.cache)
        except ShardError as error:
            wrong[number] = str(error)

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        list(pool.map(load, range(len(shards))))
        missing = [n for n, index in enumerate(found) if index is None and n not in wrong]
        # Processes that start together share the work, as each begins with another shard.
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
            f"{source}: {len(wrong)} of {len(shards)} shards cannot be used: " + "; ".join(named)
        )
    return [index for index in found if index is not None]


def _common_folder(shards: Sequence[str]) -> str:
    """Common beginning of all paths up to a slash, which hashes of lists must not depend on."""
    first, last = min(shards), max(shards)
    pairs = enumerate(zip(first, last, strict=False))
    end = next((place for place, (one, other) in pairs if one != other), len(first))
    return first[: first.rfind("/", 0, end) + 1]


def _number(rows: RowCollector, label: str | None, has_names: bool | None) -> int | None:
    if label is None:
        return None
    return rows.named(label) if has_names else rows.number(label)


def _other_kind(kind: str, first: str) -> str:
    expected = f"in .{first}" if first else "absent"
    found = f"one in .{kind}" if kind else "no label"
    return f"the label must be {expected}, as of the first sample, got {found}"


def _notes(shards: Sequence[str], indices: Sequence[ShardIndex]) -> Iterator[str]:
    num_passed_over = sum(index.num_passed_over for index in indices)
    if num_passed_over:
        shard, index = next(
            pair for pair in zip(shards, indices, strict=True) if pair[1].num_passed_over
        )
        yield (
            f"ignored {num_passed_over} members that are not video, image or label of a sample, "
            f"such as {shard}/{index.passed_over[0]}"
        )
    for text in sorted({note for index in indices for note in index.notes}):
        mine = [s for s, index in zip(shards, indices, strict=True) if text in index.notes]
        yield f"{len(mine)} shards: {text}; the first of them is {mine[0]}"
    empty = [shard for shard, index in zip(shards, indices, strict=True) if not index.names]
    if empty:
        yield f"{len(empty)} shards have no samples; the first of them is {empty[0]}"
