"""Batches in a known order: shuffled by (seed, epoch), shared by processes, resumable anywhere."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from slowfast_maskfeat.clips.batch import ClipBatch, Sample, collate
from slowfast_maskfeat.clips.dataset import ClipDataset, SampleKey


class _EpochOrder(Sampler[list[SampleKey]]):
    """The rows of each of this process's batches in one epoch, from a given batch on."""

    def __init__(
        self, num_rows: int, batch_size: int, *, shuffle: bool, seed: int, rank: int, world: int
    ) -> None:
        self.num_rows = num_rows
        self.batch_size = batch_size  # of all processes together
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = 0
        self.first_batch = 0

    def __len__(self) -> int:
        if self.shuffle:  # a last batch that is not full is left out; its rows differ every epoch
            return self.num_rows // self.batch_size
        return -(-self.num_rows // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        rows = np.arange(self.num_rows)
        if self.shuffle:
            rows = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_rows)
        epoch = self.epoch if self.shuffle else 0
        for batch in range(self.first_batch, len(self)):
            start = batch * self.batch_size
            # Process r takes every world-th row, so the processes' batches together are the batch
            # that one process would have made.
            mine = rows[start : start + self.batch_size][self.rank :: self.world]
            if len(mine):
                yield [SampleKey(epoch, int(row)) for row in mine]


class ClipLoader:
    """Loads batches of clips in worker processes.

    Args:
        dataset: what to load.
        batch_size: rows of the list in one batch, over all processes together.
        shuffle: a new order each epoch, full batches only; else the order of the list, every row
            once, and every epoch draws the same.
        seed: of the order.
        rank: which of the processes this one is.
        world: number of processes.
        num_workers: loading processes; 0 loads in this one.
        prefetch: batches that each worker prepares ahead.
        pin_memory: hand out batches in page-locked memory.

    Raises:
        ValueError: the list is empty, or shorter than one batch to train on.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        num_workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool = False,
    ) -> None:
        if len(dataset) == 0:
            raise ValueError(f"{dataset.videos.source}: the list is empty")
        if shuffle and len(dataset) < batch_size:
            raise ValueError(
                f"{dataset.videos.source}: {len(dataset)} videos are fewer than the "
                f"{batch_size} of one batch (TRAIN.BATCH_SIZE times NUM_SHARDS)"
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self._order = _EpochOrder(
            len(dataset), batch_size, shuffle=shuffle, seed=seed, rank=rank, world=world
        )
        self._loader: DataLoader[Sample] = DataLoader(
            dataset,
            batch_sampler=self._order,
            collate_fn=collate,
            num_workers=num_workers,
            prefetch_factor=prefetch if num_workers else None,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            worker_init_fn=_start_worker,
            # A generator of its own: the loader must not draw from the model's random numbers.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._order)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[ClipBatch]:
        """The batches of this process in `epoch`, from `first_batch` on."""
        self._order.epoch = epoch
        self._order.first_batch = first_batch
        return iter(self._loader)


def _start_worker(worker: int) -> None:
    """One thread per worker; Ctrl-C is for the training process, which ends its workers."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
