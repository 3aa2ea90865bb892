"""Batch norm over the samples of all processes.

Source: Ioffe and Szegedy, "Batch Normalization" (ICML 2015); over all devices as in BYOL
(arXiv 2006.07733).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from slowfast_maskfeat.distributed import all_reduce_with_grad


class BatchNorm(nn.Module):
    """Normalizes features by their mean and variance over the batch, with torch's state names.

    In contrast to torch's layers it works on CPUs too, and the running statistics move only in
    `move`, so that a step that is not taken does not change them. In training every process must
    call it equally often.

    Args:
        width: number of features D.
        all_processes: take the statistics over the batches of all processes; else over its own.
    """

    epsilon: ClassVar[float] = 1e-5  # added to the variance
    momentum: ClassVar[float] = 0.1  # weight of a batch in the running statistics
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    pending_mean: Tensor
    pending_var: Tensor
    pending: Tensor

    def __init__(
        self,
        width: int,
        *,
        all_processes: bool = True,
    ) -> None:
        super().__init__()
        self.all_processes = all_processes
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        # Batches since the last `move`, and their part of the running statistics after it.
        self.register_buffer("pending_mean", torch.zeros(width), persistent=False)
        self.register_buffer("pending_var", torch.zeros(width), persistent=False)
        self.register_buffer("pending", torch.tensor(0), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Normalize a batch.

        Args:
            features: (..., D), for example of the tokens of a batch; the statistics are those of
                all of them.

        Returns:
            (..., D), float32 or float64.
        """
        features = features if features.dtype == torch.float64 else features.float()
        if not self.training:
            mean, variance = self.running_mean, self.running_var
        else:
            mean, variance = self._batch_statistics(features.reshape(-1, features.shape[-1]))
        scale = self.weight * (variance + self.epsilon).rsqrt()
        return torch.addcmul(self.bias, features - mean, scale)

    def _batch_statistics(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance (D,) of (B, D), with gradient; they are added to the pending.

        The sums are float64: the variance is the difference of two numbers that may be much larger.
        An empty batch, of no masked token in any process, is none for the running statistics.
        """
        wide = features.double()
        count = wide.new_full((1,), float(len(wide)))
        sums = torch.cat([count, wide.sum(dim=0), wide.square().sum(dim=0)])
        if self.all_processes:
            sums = all_reduce_with_grad(sums)
        is_empty = sums[0].detach() == 0
        count = sums[:1].detach().clamp(min=1)
        mean, square = (sums[1:] / count).chunk(2)
        variance = (square - mean.square()).clamp(min=0)
        unbiased = variance.detach() * count / (count - 1).clamp(min=1)
        self._add(mean.detach().to(features.dtype), unbiased.to(features.dtype), is_empty)
        return mean.to(features.dtype), variance.to(features.dtype)

    @torch.no_grad()
    def _add(self, mean: Tensor, variance: Tensor, is_empty: Tensor) -> None:
        for pending, of_batch in ((self.pending_mean, mean), (self.pending_var, variance)):
            pending.copy_(torch.where(is_empty, pending, pending.lerp(of_batch, self.momentum)))
        self.pending += torch.where(is_empty, 0, 1)

    @torch.no_grad()
    def move(self, taken: Tensor) -> None:
        """Move the running statistics by the batches since the last call.

        Args:
            taken: () bool; False: they are dropped.
        """
        kept = (1.0 - self.momentum) ** self.pending.to(self.running_mean.dtype)
        for running, pending in (
            (self.running_mean, self.pending_mean),
            (self.running_var, self.pending_var),
        ):
            running.copy_(torch.where(taken, kept * running + pending, running))
            pending.zero_()
        self.num_batches_tracked += torch.where(taken, self.pending, 0)
        self.pending.zero_()


def move_statistics(network: nn.Module, taken: Tensor) -> None:
    """Move the running statistics of all `BatchNorm` layers of a network, see `BatchNorm.move`.

    Args:
        network: with any number of them.
        taken: () bool, whether the optimizer step was taken.
    """
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.move(taken)
