"""Batches in a known order: shuffled by (seed, epoch), shared by processes, resumable anywhere."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler, get_worker_info

from slowfast_maskfeat.clips.batch import ClipBatch, Sample, collate
from slowfast_maskfeat.clips.dataset import ClipDataset, SampleKey
from slowfast_maskfeat.clips.watchdog import WorkerWatchdog
from slowfast_maskfeat.datasets import VideoList


class _EpochOrder(Sampler[list[SampleKey]]):
    """The rows of each of this process's batches in one epoch, from a given batch on."""

    def __init__(
        self, videos: VideoList, batch_size: int, *, shuffle: bool, seed: int, rank: int, world: int
    ) -> None:
        self.videos = videos
        self.num_rows = len(videos)
        self.batch_size = batch_size  # of all processes together
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = 0
        self.first_batch = 0
        self.is_kept = np.ones(self.num_rows, bool)

    def __len__(self) -> int:
        if self.shuffle:  # a last batch that is not full is left out; its rows differ every epoch
            return self.num_rows // self.batch_size
        return len(np.unique(self.is_kept.nonzero()[0] // self.batch_size))

    def __iter__(self) -> Iterator[list[SampleKey]]:
        rows = np.arange(self.num_rows)
        if self.shuffle:
            rows = self.videos.shuffled(np.random.default_rng((self.seed, self.epoch)))
        epoch = self.epoch if self.shuffle else 0
        for mine in islice(self._batches(rows), self.first_batch, None):
            yield [SampleKey(epoch, int(row)) for row in mine]

    def _batches(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """This process's rows of each batch that has some."""
        end = len(self) * self.batch_size if self.shuffle else self.num_rows
        for start in range(0, end, self.batch_size):
            # The processes' batches together are the batch that one process would have made.
            mine = rows[start : start + self.batch_size][self._share]
            mine = mine[self.is_kept[mine]]
            if len(mine):
                yield mine

    @property
    def _share(self) -> slice | list[int]:
        """The rows of a batch that this process takes: every world-th.

        In training these are counted from both ends, if that gives all processes the same number:
        clips that mixup pairs, the first with the last and so on, then stay together, and several
        processes equal one.
        """
        if not self.shuffle or self.batch_size % (2 * self.world):
            return slice(self.rank, None, self.world)
        first = range(self.rank, self.batch_size // 2, self.world)
        return [*first, *(self.batch_size - 1 - number for number in reversed(first))]


class ClipLoader:
    """Loads batches of clips in worker processes.

    Args:
        dataset: what to load.
        batch_size: rows of the list in one batch, over all processes together.
        shuffle: a new order each epoch, full batches only; else the order of the list, every row
            once, and the same draws in every epoch.
        seed: of the order.
        rank: which of the processes this one is.
        world: number of processes.
        num_workers: loading processes; 0 loads in this one.
        prefetch: batches that each worker prepares ahead.
        pin_memory: hand out batches in page-locked memory.
        decode_timeout: seconds after which a worker that is still decoding one video is ended, and
            the video is lost; 0 for never. It has no effect without workers: this process can't
            end itself and go on.

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
        decode_timeout: float = 0.0,
    ) -> None:
        if len(dataset) == 0:
            raise ValueError(f"{dataset.videos.source} must have at least one row, got none")
        if shuffle and len(dataset) < batch_size:
            raise ValueError(
                f"{dataset.videos.source} must have at least {batch_size} {dataset.videos.unit}, "
                f"one batch (TRAIN.BATCH_SIZE times NUM_SHARDS), got {len(dataset)}"
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self._order = _EpochOrder(
            dataset.videos, batch_size, shuffle=shuffle, seed=seed, rank=rank, world=world
        )
        self._num_workers = num_workers
        self._prefetch = prefetch
        self._pin_memory = pin_memory
        self._decode_timeout = decode_timeout
        is_watched = num_workers > 0 and decode_timeout > 0
        self._watchdog = WorkerWatchdog(num_workers, decode_timeout) if is_watched else None
        self._loader = self._start()

    def _start(self) -> DataLoader[Sample]:
        """Build a data loader, whose workers start with the first batch."""
        return DataLoader(
            self.dataset,
            batch_sampler=self._order,
            collate_fn=collate,
            num_workers=self._num_workers,
            prefetch_factor=self._prefetch if self._num_workers else None,
            persistent_workers=self._num_workers > 0,
            pin_memory=self._pin_memory,
            worker_init_fn=partial(_start_worker, self._watchdog),
            # A generator of its own: the loader must not draw from the model's random state.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Batches in an epoch, over all processes together."""
        return len(self._order)

    def leave_out(self, rows: NDArray[np.int64]) -> None:
        """Skip these rows of the list; the others stay in the batches that they are in.

        Only for loaders without shuffling: training has full batches.
        """
        assert not self._order.shuffle
        self._order.is_kept[rows] = False

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[ClipBatch]:
        """The batches of this process in `epoch`, from `first_batch` on.

        A worker that hangs is ended, and all of them are restarted from the next batch: torch's
        data loader can't replace a single one. As every sample has its own seed, the batches are
        the same as without the hang, but for the video that is lost.
        """
        batch = first_batch
        loading: Iterator[ClipBatch] | None = None
        watching = nullcontext() if self._watchdog is None else self._watchdog.ending_overdue()
        with watching:
            while True:
                try:
                    if loading is None:
                        self._order.epoch, self._order.first_batch = epoch, batch
                        loading = iter(self._loader)
                    loaded = next(loading)
                except StopIteration:
                    return
                except Exception as error:
                    # torch reports a worker that is gone, or a message of it breaks off.
                    may_be_gone = isinstance(error, (RuntimeError, OSError, EOFError))
                    if not (may_be_gone and self._give_up_hung()):
                        if self._num_workers:
                            # torch's frames, its workers and the error are a reference cycle.
                            # The garbage collector would end the workers at some later time, and
                            # block this process for 5 s for each.
                            error.__traceback__ = None
                        raise error
                    loading = None
                    self._restart()
                else:
                    yield loaded
                    batch += 1

    def _restart(self) -> None:
        assert self._watchdog is not None
        self._loader = self._start()  # waits until the old workers are gone
        self._give_up_hung()  # another one may have been ended meanwhile
        self._watchdog.forget()

    def _give_up_hung(self) -> bool:
        """Mark videos whose workers were ended as lost; False if there are none."""
        rows = [] if self._watchdog is None else self._watchdog.take_hung()
        for row in rows:
            self.dataset.given_up[row] = (
                f"the decoder hung: not done after {self._decode_timeout:g} s (DATA.DECODE_TIMEOUT)"
            )
        return bool(rows)


def _start_worker(watchdog: WorkerWatchdog | None, worker: int) -> None:
    """Limit a worker to one thread; Ctrl-C goes to the training process, which ends its workers."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    info = get_worker_info()
    if watchdog is not None:
        assert info is not None
        assert isinstance(info.dataset, ClipDataset)
        info.dataset.watching = partial(watchdog.decoding, worker)
