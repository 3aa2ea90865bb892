"""Vectors of one optimizer step, and draws from them that do not depend on how they are split."""

from __future__ import annotations

import torch
from torch import Tensor

from slowfast_maskfeat import distributed
from slowfast_maskfeat.host_copies import copy_to_device

_NO_KEY = torch.iinfo(torch.int64).max
# Far more cells than an image has codes: each sample has its own range of numbers.
_MOST_CELLS = 2**24


class VectorPool:
    """All vectors of one optimizer step, over its micro-batches and processes.

    A vector is drawn by a pseudo-random key that follows from the seed, the step, the number of its
    sample and its cell. So the same vectors are drawn from the same samples, however these are
    distributed over micro-batches and processes.
    """

    def __init__(self) -> None:
        self._vectors: list[Tensor] = []
        self._numbers: list[Tensor] = []
        self._num_samples = 0

    def add(self, vectors: Tensor, samples: Tensor | None = None) -> None:
        """Add the vectors of a micro-batch.

        Args:
            vectors: (B, n, D).
            samples: (B,) int64 >= 0, the number of each sample, unique in the step over all
                processes. None: the sample in row i of process r of W has the number i * W + r.
        """
        num_samples, num_cells = vectors.shape[:2]
        assert num_cells <= _MOST_CELLS, f"{num_cells} cells"
        device = vectors.device
        if samples is None:
            rows = torch.arange(num_samples, device=device) + self._num_samples
            samples = rows * distributed.world_size() + distributed.rank()
        cells = torch.arange(num_cells, device=device)
        numbers = copy_to_device(samples, device)[:, None] * _MOST_CELLS + cells
        self._vectors.append(vectors.detach().flatten(0, 1))
        self._numbers.append(numbers.flatten())
        self._num_samples += num_samples

    def clear(self) -> None:
        """Forget all vectors, for the next step."""
        self._vectors.clear()
        self._numbers.clear()
        self._num_samples = 0

    def vectors(self, like: Tensor) -> Tensor:
        """Return this process's vectors, (N, D).

        Args:
            like: (..., D); its dtype and device are those of the result without any vector.
        """
        return torch.cat([like.new_zeros(0, like.shape[-1]), *self._vectors])

    def draw(self, count: int, *, seed: int, step: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Draw vectors of all processes without replacement, the same ones on each process.

        Collective: all processes must call it. Nothing is read back from the device.

        Args:
            count: number of vectors to draw.
            seed: of the run.
            step: () int64 on the device.
            like: see `vectors`.

        Returns:
            (count, D) and (count,) bool, False where the step has fewer vectors; these come last.
        """
        own = self.vectors(like)
        numbers = torch.cat([torch.zeros_like(step.new_empty(0)), *self._numbers])
        keys, vectors = _smallest(_keys(numbers, seed, step), own, count)
        world = distributed.world_size()
        if world > 1:
            all_keys = keys.new_zeros(world, count)
            all_vectors = vectors.new_zeros(world, *vectors.shape)
            all_keys[distributed.rank()] = keys
            all_vectors[distributed.rank()] = vectors
            all_keys = distributed.all_reduce(all_keys, "sum")
            all_vectors = distributed.all_reduce(all_vectors, "sum")
            keys, vectors = _smallest(all_keys.flatten(), all_vectors.flatten(0, 1), count)
        return vectors, keys != _NO_KEY


def _smallest(keys: Tensor, vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` vectors with the smallest keys, ascending, filled up by zeros with `_NO_KEY`."""
    missing = max(0, count - len(keys))
    keys = torch.cat([keys, keys.new_full((missing,), _NO_KEY)])
    vectors = torch.cat([vectors, vectors.new_zeros(missing, vectors.shape[1])])
    keys, places = keys.topk(count, largest=False)
    return keys, vectors[places]


def _keys(numbers: Tensor, seed: int, step: Tensor) -> Tensor:
    """Pseudo-random int64 of each number, never `_NO_KEY`."""
    stream = _mix(_mix(torch.full_like(step, seed % 2**62)) + step)
    return _mix(_mix(numbers) + stream).clamp(max=_NO_KEY - 1)


def _mix(x: Tensor) -> Tensor:
    """The finalizer of SplitMix64 (Steele et al., 2014) on int64, whose products wrap."""
    x = (x ^ _shifted(x, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ _shifted(x, 27)) * (0x94D049BB133111EB - 2**64)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shift to the right as if x had no sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
