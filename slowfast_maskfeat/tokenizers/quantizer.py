"""Vector quantizers: the nearest code of a codebook, with a straight-through gradient.

Source: van den Oord et al., "Neural Discrete Representation Learning" (arXiv:1711.00937).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slowfast_maskfeat import distributed
from slowfast_maskfeat.losses import unit_length
from slowfast_maskfeat.losses.precision import full_precision
from slowfast_maskfeat.tokenizers.lookup import kmeans, nearest_codes, sums_by_code
from slowfast_maskfeat.tokenizers.pool import VectorPool

# Codes that one step can restart: what the processes then exchange stays small.
_MOST_RESTARTS = 256


class Quantized(NamedTuple):
    """Quantized vectors.

    Attributes:
        vectors: (B, ..., D), the codes' vectors; the gradient passes straight to the input.
        codes: (B, ...) int64.
        loss: (B, ...) for training, one value per vector, averaged over its D channels.
    """

    vectors: Tensor
    codes: Tensor
    loss: Tensor


class Quantizer(nn.Module, ABC):
    """Base of vector quantizers, which differ in how the codebook is trained.

    In training mode `forward` only counts and adds up the vectors of each code. `after_step`, once
    per optimizer step, combines these over micro-batches and processes and moves the codebook. So k
    micro-batches equal one batch, and several processes equal one.

    Args:
        num_codes: K.
        dim: D, width of a code.
        unit_sphere: scale vectors and codes to length 1: the nearest code is that of the largest
            cosine. Low widths then keep most codes in use (BEiT v2, arXiv:2208.06366).
        beta: weight of the commitment loss.
        kmeans_rounds: start the codebook by so many rounds of k-means on the vectors of the first
            step; 0: at random.
        restart_after: move a code that was not used for so many steps to a vector drawn from the
            step, at most 256 codes a step; 0: never. The optimizer's state of a learned codebook
            stays.
        seed: of the draws, which also depend on the step.

    Attributes:
        codebook: (K, D).
        unused_steps: (K,), steps since a code was last used.
        num_steps: (), steps taken.
        started: (), whether the codebook has its start.

    Raises:
        ValueError: a number is outside its range.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    unused_steps: Tensor
    num_steps: Tensor
    started: Tensor

    def __init__(
        self,
        num_codes: int,
        dim: int,
        *,
        unit_sphere: bool = False,
        beta: float = 0.25,
        kmeans_rounds: int = 0,
        restart_after: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if num_codes < 1 or dim < 1:
            raise ValueError(f"a codebook must have codes of a width >= 1, got {num_codes} x {dim}")
        if min(kmeans_rounds, restart_after) < 0:
            raise ValueError(
                "kmeans_rounds and restart_after must be >= 0, got "
                f"{kmeans_rounds} and {restart_after}"
            )
        self.unit_sphere = unit_sphere
        self.beta = beta
        self.kmeans_rounds = kmeans_rounds
        self.restart_after = restart_after
        self.seed = seed
        codebook = torch.randn(num_codes, dim)
        self._register_codebook(unit_length(codebook) if unit_sphere else codebook)
        self.register_buffer("unused_steps", torch.zeros(num_codes, dtype=torch.int64))
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("started", torch.tensor(kmeans_rounds == 0))
        # Statistics of the step under way are in no checkpoint: these are written between steps.
        self.register_buffer("counts", torch.zeros(num_codes), persistent=False)
        self.register_buffer("sums", torch.zeros(num_codes, dim), persistent=False)
        self._pool = VectorPool()
        self._known_to_be_started = kmeans_rounds == 0

    @property
    def num_codes(self) -> int:
        """Number of codes K."""
        return len(self.codebook)

    @property
    def dim(self) -> int:
        """Width D of a code."""
        return self.codebook.shape[1]

    def forward(self, vectors: Tensor, samples: Tensor | None = None) -> Quantized:
        """Replace vectors by the nearest codes.

        Args:
            vectors: (B, ..., D), any floating type; computed in that of the codebook.
            samples: (B,) int64, the number of each sample, see `VectorPool.add`; only draws of
                starts and restarts depend on it.
        """
        with full_precision(vectors):
            vectors = self._scaled(vectors)
            codebook = self._codes()
            flat = vectors.flatten(0, -2)
            codes = nearest_codes(flat, codebook, unit_sphere=self.unit_sphere)
            if self.training:
                self._collect(flat.detach(), codes, len(vectors), samples)
            codes = codes.view(vectors.shape[:-1])
            chosen = F.embedding(codes, codebook)
            loss = self._loss(vectors, chosen)
            return Quantized(vectors + (chosen - vectors).detach(), codes, loss)

    @torch.no_grad()
    def encode(self, vectors: Tensor) -> Tensor:
        """Find the nearest codes, as `forward`: (..., D) -> (...) int64."""
        with full_precision(vectors):
            vectors = self._scaled(vectors)
            codes = nearest_codes(
                vectors.flatten(0, -2), self._codes(), unit_sphere=self.unit_sphere
            )
            return codes.view(vectors.shape[:-1])

    def decode(self, codes: Tensor) -> Tensor:
        """Return the vectors of codes: (...) int64 -> (..., D)."""
        return F.embedding(codes, self._codes())

    @torch.no_grad()
    def after_step(self, taken: Tensor) -> None:
        """Move the codebook by the statistics of the step and forget them; collective.

        Args:
            taken: () bool on the device, whether the optimizer step was taken; if not, nothing
                changes. It is read back only until the k-means start.
        """
        together = torch.cat([self.sums, self.counts[:, None]], dim=1)
        together = distributed.all_reduce(together)
        sums, counts = together[:, :-1], together[:, -1]
        if not self._is_started():
            if bool(taken):
                self._start()
        else:
            self._move(counts, sums, taken)
            unused = torch.where(counts > 0, 0, self.unused_steps + 1)
            if self.restart_after:
                unused = self._restart(unused, taken)
            assign(self.unused_steps, unused, taken)
        self.num_steps += taken
        self.discard()

    def discard(self) -> None:
        """Forget the statistics since the last `after_step`."""
        self.counts.zero_()
        self.sums.zero_()
        self._pool.clear()

    def set_codebook(self, codebook: Tensor, sizes: Tensor | None = None) -> None:
        """Replace the codebook and what is known of its use.

        Args:
            codebook: (K, D); scaled to length 1 if `unit_sphere`.
            sizes: (K,), average number of vectors of each code in a step; None: 1.
        """
        codebook = codebook.to(self.codebook)
        sizes = torch.ones_like(self.counts) if sizes is None else sizes.to(self.counts)
        codebook = unit_length(codebook) if self.unit_sphere else codebook
        with torch.no_grad():
            self.codebook.copy_(codebook)
            self.unused_steps.zero_()
            self.started.fill_(True)
            self._set_use(torch.ones_like(sizes, dtype=torch.bool), codebook, sizes)
        self._known_to_be_started = True

    def _register_codebook(self, codebook: Tensor) -> None:
        self.register_buffer("codebook", codebook)

    def _codes(self) -> Tensor:
        """Codes to look up: (K, D)."""
        return self.codebook

    def _loss(self, vectors: Tensor, chosen: Tensor) -> Tensor:
        """Commitment loss, which moves the vectors to their codes: (..., D) twice -> (...)."""
        return self.beta * (vectors - chosen.detach()).square().mean(dim=-1)

    @abstractmethod
    def _move(self, counts: Tensor, sums: Tensor, taken: Tensor) -> None:
        """Move the codebook by the counts (K,) and sums (K, D) of all vectors of the step."""

    def _set_use(self, which: Tensor, codes: Tensor, sizes: Tensor) -> None:
        """Set averages of use, where `which` (K,) is True, to `sizes` (K,) vectors at `codes`."""

    def _scaled(self, vectors: Tensor) -> Tensor:
        vectors = vectors.to(self.codebook.dtype)
        return unit_length(vectors) if self.unit_sphere else vectors

    def _collect(
        self, flat: Tensor, codes: Tensor, num_samples: int, samples: Tensor | None
    ) -> None:
        counts, sums = sums_by_code(flat, codes, self.num_codes)
        self.counts += counts
        self.sums += sums
        if num_samples and (self.restart_after or not self._is_started()):
            self._pool.add(flat.unflatten(0, (num_samples, -1)), samples)

    def _is_started(self) -> bool:
        if not self._known_to_be_started:
            self._known_to_be_started = bool(self.started)
        return self._known_to_be_started

    def _start(self) -> None:
        """Start the codebook by k-means."""
        drawn, found = self._pool.draw(
            self.num_codes, seed=self.seed, step=self.num_steps, like=self.codebook
        )
        assert bool(found.any()), "a step was taken without vectors"
        # With fewer vectors than codes the others repeat these, and wait for a restart.
        drawn = drawn[torch.arange(len(drawn), device=drawn.device) % found.sum()]
        codebook, sizes = kmeans(
            self._pool.vectors(self.codebook),
            drawn,
            num_rounds=self.kmeans_rounds,
            unit_sphere=self.unit_sphere,
        )
        self.set_codebook(codebook, sizes)

    def _restart(self, unused: Tensor, taken: Tensor) -> Tensor:
        """Move dead codes to vectors of the step; returns the steps without use after it."""
        count = min(self.num_codes, _MOST_RESTARTS)
        drawn, found = self._pool.draw(
            count, seed=self.seed, step=self.num_steps, like=self.codebook
        )
        is_dead = unused >= self.restart_after
        place = is_dead.cumsum(dim=0) - 1  # the i-th dead code gets the i-th vector
        restarts = is_dead & (place < found.sum()) & taken
        vectors = drawn[place.clamp(0, count - 1)]
        assign(self.codebook, vectors, restarts[:, None])
        self._set_use(restarts, vectors, torch.ones_like(self.counts))
        return torch.where(restarts, 0, unused)

    def _load_from_state_dict(self, *args: Any, **named: Any) -> None:
        super()._load_from_state_dict(*args, **named)
        self._known_to_be_started = False  # read the loaded value at its next use


def assign(tensor: Tensor, value: Tensor, where: Tensor) -> None:
    """Set a tensor in place where a condition holds; values elsewhere may be NaN."""
    tensor.copy_(torch.where(where, value, tensor))
