"""The learning rate as a pure function of the fractional epoch.

The cosine form follows Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm
Restarts" (ICLR 2017), without restarts; the straight warm-up follows Goyal et al., "Accurate, Large
Minibatch SGD" (2017). Names and meanings of the settings are PySlowFast's ``SOLVER`` keys.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

POLICIES = ("cosine", "steps_with_relative_lrs")
"""What ``SOLVER.LR_POLICY`` may say."""


class LearningRates(NamedTuple):
    """The three rates that grow with the number of machines, in optimizer units per step."""

    base_lr: float
    warmup_start_lr: float
    end_lr: float


def scale_by_shards(rates: LearningRates, num_shards: int) -> LearningRates:
    """Multiply all three rates by the number of machines (``SOLVER.BASE_LR_SCALE_NUM_SHARDS``).

    Neither the processes on one machine nor the batch size enter.

    Args:
        rates: The rates as the config gives them, for one machine.
        num_shards: Number of machines, ``NUM_SHARDS``, at least 1.

    Returns:
        New rates; the ones given stay as they are.

    Raises:
        ValueError: If ``num_shards`` is below 1.
    """
    if num_shards < 1:
        raise ValueError(f"NUM_SHARDS is {num_shards}; it counts machines, so at least 1 is right")
    return LearningRates(*(rate * num_shards for rate in rates))


def learning_rate(
    epoch: float,
    *,
    policy: str = "cosine",
    base_lr: float,
    end_lr: float = 0.0,
    max_epoch: float,
    warmup_epochs: float = 0.0,
    warmup_start_lr: float = 0.0,
    cosine_after_warmup: bool = False,
    steps: Sequence[float] = (),
    lrs: Sequence[float] = (),
) -> float:
    """The learning rate at a fractional epoch.

    Below ``warmup_epochs`` it runs straight from ``warmup_start_lr`` to what the policy says AT
    ``warmup_epochs``, which is ``base_lr`` only where the policy starts there. Training may end
    before the warm-up does (deviation: the published code then fails).

    Args:
        epoch: Finished epochs plus the finished share of the present one.
        policy: ``cosine`` or ``steps_with_relative_lrs`` (``SOLVER.LR_POLICY``).
        base_lr: ``SOLVER.BASE_LR``, already scaled by the machines where that is asked for.
        end_lr: ``SOLVER.COSINE_END_LR``, what the cosine reaches at ``max_epoch``.
        max_epoch: ``SOLVER.MAX_EPOCH``, the length of training in epochs.
        warmup_epochs: ``SOLVER.WARMUP_EPOCHS``.
        warmup_start_lr: ``SOLVER.WARMUP_START_LR``.
        cosine_after_warmup: Whether the cosine begins where the warm-up ends instead of at epoch 0
            (``SOLVER.COSINE_AFTER_WARMUP``).
        steps: ``SOLVER.STEPS``, the epoch at which each stage begins; the first is 0.
        lrs: ``SOLVER.LRS``, the rate of each stage as a multiple of ``base_lr``.

    Returns:
        The rate of a parameter group whose ``lr_scale`` is 1.

    Raises:
        ValueError: If the settings contradict each other; the text names the ``SOLVER`` key.
    """
    if policy == "cosine":
        start = warmup_epochs if cosine_after_warmup else 0.0
        _check_cosine(base_lr, end_lr, max_epoch)

        def policy_rate(at: float) -> float:
            return _cosine(at, base_lr, end_lr, start, max_epoch)

    elif policy == "steps_with_relative_lrs":
        _check_steps(steps, lrs)

        def policy_rate(at: float) -> float:
            return base_lr * lrs[bisect_right(steps, at) - 1]

    else:
        known = " or ".join(POLICIES)
        raise ValueError(f"SOLVER.LR_POLICY is {policy!r}; {known} would be right")

    if epoch >= warmup_epochs:
        return policy_rate(epoch)
    reached = policy_rate(warmup_epochs)
    return warmup_start_lr + (reached - warmup_start_lr) * epoch / warmup_epochs


def _cosine(epoch: float, base_lr: float, end_lr: float, start: float, stop: float) -> float:
    if start >= stop:  # a training that is all warm-up, as trials of a recipe are
        return base_lr
    # The rate is asked for at most at `stop`; past it the cosine would rise again.
    share = (min(epoch, stop) - start) / (stop - start)
    return end_lr + (base_lr - end_lr) * (math.cos(math.pi * share) + 1.0) * 0.5


def _check_cosine(base_lr: float, end_lr: float, max_epoch: float) -> None:
    if not end_lr < base_lr:
        raise ValueError(
            f"SOLVER.COSINE_END_LR is {end_lr} and SOLVER.BASE_LR {base_lr}; "
            "the cosine falls, so COSINE_END_LR must be the smaller"
        )
    if max_epoch <= 0:
        raise ValueError(f"SOLVER.MAX_EPOCH is {max_epoch}; a positive number of epochs is right")


def _check_steps(steps: Sequence[float], lrs: Sequence[float]) -> None:
    if not steps or steps[0] != 0:
        raise ValueError(
            f"SOLVER.STEPS is {list(steps)}; it lists the epoch each stage begins at, the first 0"
        )
    if any(later <= earlier for earlier, later in pairwise(steps)):
        raise ValueError(f"SOLVER.STEPS is {list(steps)}; ascending epochs would be right")
    if len(lrs) != len(steps):
        raise ValueError(
            f"SOLVER.LRS has {len(lrs)} rates for the {len(steps)} stages of SOLVER.STEPS; "
            "one for each is right"
        )
