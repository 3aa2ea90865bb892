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
from slowfast_maskfeat.clips.watchdog import WorkerWatch
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
        self.wanted = np.ones(self.num_rows, bool)

    def __len__(self) -> int:
        if self.shuffle:  # a last batch that is not full is left out; its rows differ every epoch
            return self.num_rows // self.batch_size
        return len(np.unique(self.wanted.nonzero()[0] // self.batch_size))

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
            mine = mine[self.wanted[mine]]
            if len(mine):
                yield mine

    @property
    def _share(self) -> slice | list[int]:
        """Which of a batch's rows this process takes: every world-th.

        In training these are counted from both ends, where that gives all processes the same
        number: clips that mixup pairs, the first with the last and so on, then stay together, and
        several processes equal one.
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
            once, and every epoch draws the same.
        seed: of the order.
        rank: which of the processes this one is.
        world: number of processes.
        num_workers: loading processes; 0 loads in this one.
        prefetch: batches that each worker prepares ahead.
        pin_memory: hand out batches in page-locked memory.
        decode_timeout: seconds after which a worker that is still at one video is ended, and the
            video is lost; 0 for never. It does nothing without workers: this process can't end
            itself and go on.

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
            raise ValueError(f"{dataset.videos.source}: the list is empty")
        if shuffle and len(dataset) < batch_size:
            raise ValueError(
                f"{dataset.videos.source}: {len(dataset)} {dataset.videos.unit} are fewer than the "
                f"{batch_size} of one batch (TRAIN.BATCH_SIZE times NUM_SHARDS)"
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
        self._watch = WorkerWatch(num_workers, decode_timeout) if is_watched else None
        self._loader = self._start()

    def _start(self) -> DataLoader[Sample]:
        """A data loader, whose workers start with the first batch that is asked for."""
        return DataLoader(
            self.dataset,
            batch_sampler=self._order,
            collate_fn=collate,
            num_workers=self._num_workers,
            prefetch_factor=self._prefetch if self._num_workers else None,
            persistent_workers=self._num_workers > 0,
            pin_memory=self._pin_memory,
            worker_init_fn=partial(_start_worker, self._watch),
            # A generator of its own: the loader must not draw from the model's random numbers.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Batches in an epoch, over all processes together."""
        return len(self._order)

    def leave_out(self, rows: NDArray[np.int64]) -> None:
        """Load these rows of the list no more; the others stay in the batches that they are in.

        Only where the order is that of the list: a training has full batches.
        """
        assert not self._order.shuffle
        self._order.wanted[rows] = False

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[ClipBatch]:
        """The batches of this process in `epoch`, from `first_batch` on.

        A worker that hangs is ended, and all of them are started anew from the batch that is due:
        torch's data loader can't replace a single one. As every sample is drawn by its own seed,
        the batches are those that would have come anyway, but for the video that is lost.
        """
        batch = first_batch
        loading: Iterator[ClipBatch] | None = None
        watching = nullcontext() if self._watch is None else self._watch.ending_overdue()
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
                    # That a worker is gone is told by torch, or by a message that it broke off.
                    may_be_gone = isinstance(error, (RuntimeError, OSError, EOFError))
                    if not (may_be_gone and self._give_up_hung()):
                        if self._num_workers:
                            # torch's frames hold its workers and the error in a circle. That is
                            # left to the garbage collector, which ends workers at some later
                            # moment and stops this process for 5 s over each.
                            error.__traceback__ = None
                        raise error
                    loading = None
                    self._restart()
                else:
                    yield loaded
                    batch += 1

    def _restart(self) -> None:
        assert self._watch is not None
        self._loader = self._start()  # waits until the old workers are gone
        self._give_up_hung()  # another one may have been ended meanwhile
        self._watch.forget()

    def _give_up_hung(self) -> bool:
        """Mark the videos as lost whose workers were ended; False where none was."""
        rows = [] if self._watch is None else self._watch.take_hung()
        for row in rows:
            self.dataset.given_up[row] = (
                f"the decoder hung: not done after {self._decode_timeout:g} s (DATA.DECODE_TIMEOUT)"
            )
        return bool(rows)


def _start_worker(watch: WorkerWatch | None, worker: int) -> None:
    """One thread per worker; Ctrl-C is for the training process, which ends its workers."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    info = get_worker_info()
    if watch is not None:
        assert info is not None
        assert isinstance(info.dataset, ClipDataset)
        info.dataset.watching = partial(watch.decoding, worker)
