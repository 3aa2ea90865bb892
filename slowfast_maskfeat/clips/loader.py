"""Data loader with a reproducible order: seeded by (seed, epoch), sharded, resumable."""

from __future__ import annotations

import atexit
import errno
import multiprocessing
import os
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
from slowfast_maskfeat.clips.watchdog import WorkerWatchdog, accept_end, end_worker
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.workers import become_worker, parent_of_workers, starting_workers


class _EpochOrder(Sampler[list[SampleKey]]):
    """Rows of this process's batches in one epoch, starting at a given batch."""

    def __init__(
        self, videos: VideoList, batch_size: int, *, shuffle: bool, seed: int, rank: int, world: int
    ) -> None:
        self.videos = videos
        self.num_rows = len(videos)
        self.batch_size = batch_size  # summed over all processes
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = 0
        self.first_batch = 0
        self.is_kept = np.ones(self.num_rows, bool)
        self.is_packed = False  # batches are of the kept rows alone

    def __len__(self) -> int:
        if self.shuffle:  # drop the last incomplete batch; its rows differ every epoch
            return self.num_rows // self.batch_size
        if self.is_packed:
            return -(-int(self.is_kept.sum()) // self.batch_size)
        return len(np.unique(self.is_kept.nonzero()[0] // self.batch_size))

    def __iter__(self) -> Iterator[list[SampleKey]]:
        rows = np.arange(self.num_rows)
        if self.shuffle:
            rows = self.videos.shuffled(np.random.default_rng((self.seed, self.epoch)))
        elif self.is_packed:
            rows = self.is_kept.nonzero()[0]
        epoch = self.epoch if self.shuffle else 0
        for mine in islice(self._batches(rows), self.first_batch, None):
            yield [SampleKey(epoch, int(row)) for row in mine]

    def _batches(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Yield this process's rows of each batch, skipping batches without any."""
        end = len(self) * self.batch_size if self.shuffle else len(rows)
        for start in range(0, end, self.batch_size):
            # Together, the batches of all processes equal the batch of a single process.
            mine = rows[start : start + self.batch_size][self._process_rows]
            mine = mine[self.is_kept[mine]]
            if len(mine):
                yield mine

    @property
    def _process_rows(self) -> slice | list[int]:
        """This process's rows of a batch: every world-th.

        In training, rows are taken from both ends if that gives every process the same number:
        mixup pairs the first clip with the last and so on, so pairs stay in one process and
        several processes give the same result as one.
        """
        if not self.shuffle or self.batch_size % (2 * self.world):
            return slice(self.rank, None, self.world)
        first = range(self.rank, self.batch_size // 2, self.world)
        return [*first, *(self.batch_size - 1 - number for number in reversed(first))]


class ClipLoader:
    """Data loader of clips with worker processes.

    Args:
        dataset: dataset to load from.
        batch_size: rows of the annotation file per batch, summed over all processes.
        shuffle: reshuffle every epoch and drop the last incomplete batch; if False, load every row
            once, in file order and with the same draws in every epoch.
        seed: seed of the order.
        rank: rank of this process.
        world: number of processes.
        num_workers: worker processes; 0 loads in this process.
        prefetch: batches that each worker prefetches.
        pin_memory: return batches in page-locked memory.
        decode_timeout: seconds after which a worker still decoding the same video is terminated and
            the video counts as lost; 0 for no limit. It has no effect without workers: this process
            can't terminate itself and continue.

    Raises:
        ValueError: the annotation file is empty, or has fewer rows than one training batch.
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
            raise ValueError(f"{dataset.videos.source} must have at least 1 row, got 0")
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
        """Build a data loader; its workers start when the first batch is requested."""
        self._has_workers = False
        return DataLoader(
            self.dataset,
            batch_sampler=self._order,
            collate_fn=collate,
            num_workers=self._num_workers,
            prefetch_factor=self._prefetch if self._num_workers else None,
            persistent_workers=self._num_workers > 0,
            pin_memory=self._pin_memory,
            # A separate generator: the loader must not change the global random state.
            generator=torch.Generator(),
        )

    @property
    def num_workers(self) -> int:
        """Worker processes; 0 if this process loads."""
        return self._num_workers

    def __len__(self) -> int:
        """Number of batches in an epoch; each is shared by all processes."""
        return len(self._order)

    def leave_out(self, rows: NDArray[np.int64]) -> None:
        """Skip these rows of the annotation file; the other rows keep their batches.

        Only for loaders without shuffling, since training uses full batches.
        """
        assert not self._order.shuffle
        self._order.is_kept[rows] = False

    def of_rows(self, rows: NDArray[np.int64]) -> ClipLoader:
        """Build a loader of one batch with these rows of the annotation file, in its order.

        It decodes no others, in one worker if this loader has workers: a decoder that hangs is
        terminated there.
        """
        loader = ClipLoader(
            self.dataset,
            len(self.dataset),
            shuffle=False,
            num_workers=min(self._num_workers, 1),
            decode_timeout=self._decode_timeout,
        )
        loader.leave_out(np.setdiff1d(np.arange(len(self.dataset)), rows))
        return loader

    def keep_only(self, rows: NDArray[np.int64]) -> None:
        """Load these rows of the annotation file alone, in its order and in full batches.

        Only for loaders without shuffling.
        """
        assert not self._order.shuffle
        self._order.is_kept[:] = False
        self._order.is_kept[rows] = True
        self._order.is_packed = True

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[ClipBatch]:
        """Yield this process's batches of an epoch, starting at `first_batch`.

        A worker that hangs is terminated, and all workers are restarted at the next batch: torch's
        data loader can't replace a single worker. Since every sample has its own seed, only the
        lost video differs from a run without the hang.
        """
        batch = first_batch
        loading: Iterator[ClipBatch] | None = None
        watching = nullcontext() if self._watchdog is None else self._watchdog.ending_overdue()
        with watching:
            while True:
                try:
                    if loading is None:
                        self._order.epoch, self._order.first_batch = epoch, batch
                        loading = self._iterate()
                    loaded = next(loading)
                except StopIteration:
                    return
                except Exception as error:
                    # torch reports a dead worker, or a message from it is cut short.
                    may_be_gone = isinstance(error, (RuntimeError, OSError, EOFError))
                    if not (may_be_gone and self._give_up_hung()):
                        if self._num_workers:
                            # torch's frames, its workers and the error form a reference cycle.
                            # The garbage collector would terminate the workers later and block
                            # this process for 5 s per worker.
                            error.__traceback__ = None
                        of_system = _system_error(error)
                        if of_system is not None:
                            raise of_system from None
                        raise error
                    loading = None
                    self._restart()
                else:
                    yield loaded
                    batch += 1

    def _iterate(self) -> Iterator[ClipBatch]:
        """Start an epoch of the data loader, with its workers unless they are there already."""
        if not self._num_workers or self._has_workers:
            return iter(self._loader)
        atexit.unregister(_expect_worker_ends)  # once is enough
        atexit.register(_expect_worker_ends)
        self._loader.worker_init_fn = partial(_start_worker, self._watchdog, parent_of_workers())
        before = multiprocessing.active_children()
        with starting_workers():
            loading = iter(self._loader)
            for worker in set(multiprocessing.active_children()).difference(before):
                # torch, and Python at its exit, end workers that do not finish by themselves by
                # `terminate`, which is SIGTERM otherwise, and wait for them.
                assert worker.pid is not None
                ending = partial(end_worker, worker.pid)
                worker._popen.terminate = ending  # type: ignore[attr-defined]
        self._has_workers = True
        return loading

    def _restart(self) -> None:
        assert self._watchdog is not None
        self._loader = self._start()  # waits until the old workers have exited
        self._give_up_hung()  # another worker may have been terminated meanwhile
        self._watchdog.forget()

    def _give_up_hung(self) -> bool:
        """Mark the videos of terminated workers as lost; return False if there are none."""
        rows = [] if self._watchdog is None else self._watchdog.take_hung()
        for row in rows:
            self.dataset.given_up[row] = (
                "the decoder hung: not finished after "
                f"{self._decode_timeout:g} s (DATA.DECODE_TIMEOUT)"
            )
        return bool(rows)


def _system_error(error: Exception) -> OSError | None:
    """Return the error of the system behind an error of torch's that a user can fix, or None."""
    text = str(error) if isinstance(error, RuntimeError) else ""
    if os.strerror(errno.EMFILE) in text:
        return OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    if "Bus error" in text or (os.strerror(errno.ENOSPC) in text and "torch_" in text):
        advice = "enlarge it, or lower DATA_LOADER.NUM_WORKERS"
        return OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}; {advice}", "shared memory")
    return None


def _expect_worker_ends() -> None:
    """Keep torch from raising an error when Python, at its exit, ends workers that just start."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _start_worker(watchdog: WorkerWatchdog | None, parent: int | None, worker: int) -> None:
    """Limit a worker to one thread; leave signals to the training process, and end with it."""
    torch.set_num_threads(1)
    accept_end()
    become_worker(parent)
    info = get_worker_info()
    if watchdog is not None:
        assert info is not None
        assert isinstance(info.dataset, ClipDataset)
        info.dataset.watching = partial(watchdog.decoding, worker)
