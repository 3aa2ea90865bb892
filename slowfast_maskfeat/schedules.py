"""Schedules: any number over the progress of training, and the learning rate over its epochs.

The cosine form follows Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm
Restarts" (ICLR 2017), without restarts; the linear warm-up follows Goyal et al., "Accurate, Large
Minibatch SGD" (2017). Names and meanings of the learning rate's settings are PySlowFast's
`SOLVER` keys.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import Literal, NamedTuple

POLICIES = ("cosine", "steps_with_relative_lrs")
"""Values of `SOLVER.LR_POLICY`."""

Shape = Literal["cosine", "linear", "constant"]


def epoch_of(progress: float, num_epochs: int) -> int:
    """Return the epoch, from 0, of a step at a progress in [0, 1) of the training."""
    return int(progress * num_epochs + 1e-6)  # an epoch begins despite rounding


@dataclass(frozen=True)
class Schedule:
    """A number as a function of progress, such as a momentum, a temperature or a weight decay.

    The cosine is `end + (start - end) * (1 + cos(pi * progress)) / 2`, the form of BYOL
    (arXiv 2006.07733, section 3.2) and DINO (arXiv 2104.14294, section 3.1). The caller defines the
    progress, which decides whether the last of `n` values is `end`: step `i` has progress
    `i / n` in DINO's and iBOT's code, which never reaches it, and `i / (n - 1)` in lightly's,
    which does. A warm-up over the first `w` steps is a schedule of its own over `i / w`.

    Attributes:
        start: value at progress 0.
        end: value at progress 1; equal to `start` for a constant.
        shape: course in between.
    """

    start: float
    end: float
    shape: Shape = "cosine"

    def __post_init__(self) -> None:
        assert self.shape in ("cosine", "linear", "constant"), self.shape
        assert self.shape != "constant" or self.start == self.end, (self.start, self.end)

    def __call__(self, progress: float) -> float:
        """Return the value at a progress in [0, 1]."""
        assert 0.0 <= progress <= 1.0, progress
        if self.shape == "constant":
            return self.start
        if self.shape == "linear":
            return self.start + (self.end - self.start) * progress
        return self.end + (self.start - self.end) * (math.cos(math.pi * progress) + 1.0) * 0.5


@dataclass(frozen=True)
class EpochWarmup:
    """A number that rises linearly over the first epochs and then stays, such as a temperature.

    It is constant within an epoch, as in DINO's and iBOT's code.

    Attributes:
        start: value in the first epoch.
        end: value in epoch `num_epochs` and all later ones.
        num_epochs: length of the rise, counted from 1; below 2 there is none, and with 1 the first
            epoch still has `start`.
    """

    start: float
    end: float
    num_epochs: int

    def __call__(self, epoch: int) -> float:
        """Return the value in an epoch, counted from 0."""
        if epoch >= self.num_epochs:
            return self.end
        share = epoch / (self.num_epochs - 1) if self.num_epochs > 1 else 0.0
        return self.start + (self.end - self.start) * share


class LearningRates(NamedTuple):
    """The three rates that are scaled by the number of machines, in optimizer units per step."""

    base_lr: float
    warmup_start_lr: float
    end_lr: float


def scale_by_shards(rates: LearningRates, num_shards: int) -> LearningRates:
    """Multiply all three rates by the number of machines (`SOLVER.BASE_LR_SCALE_NUM_SHARDS`).

    The number of processes on a machine and the batch size do not count.

    Args:
        rates: the configured rates, for one machine.
        num_shards: number of machines, `NUM_SHARDS`, at least 1.

    Returns:
        The scaled rates.

    Raises:
        ValueError: if `num_shards` is below 1.
    """
    if num_shards < 1:
        raise ValueError(f"NUM_SHARDS, the number of machines, must be >= 1, got {num_shards}")
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
    warmup_last_step: float = 0.0,
    cosine_after_warmup: bool = False,
    steps: Sequence[float] = (),
    lrs: Sequence[float] = (),
) -> float:
    """The learning rate at a fractional epoch.

    Before `warmup_epochs` it rises linearly from `warmup_start_lr` to the policy's rate AT
    `warmup_epochs`, which is `base_lr` only where the policy starts there. Training may end
    before the warm-up does (deviation: the published code then fails).

    Args:
        epoch: finished epochs plus the finished share of the current one.
        policy: `cosine` or `steps_with_relative_lrs` (`SOLVER.LR_POLICY`).
        base_lr: `SOLVER.BASE_LR`, already scaled by `scale_by_shards` where configured.
        end_lr: `SOLVER.COSINE_END_LR`, the cosine's value at `max_epoch`.
        max_epoch: `SOLVER.MAX_EPOCH`, the length of training in epochs.
        warmup_epochs: `SOLVER.WARMUP_EPOCHS`.
        warmup_start_lr: `SOLVER.WARMUP_START_LR`.
        warmup_last_step: length in epochs of the warm-up's last step, which then has the rate at
            `warmup_epochs` already, as in the code of BEiT, DINO and iBOT
            (`SOLVER.WARMUP_INCLUDES_END`); a warm-up of one step stays at its start. 0: the rise
            ends after the last step.
        cosine_after_warmup: whether the cosine begins at the end of the warm-up instead of at
            epoch 0 (`SOLVER.COSINE_AFTER_WARMUP`).
        steps: `SOLVER.STEPS`, the epoch at which each stage begins; the first is 0.
        lrs: `SOLVER.LRS`, the rate of each stage as a multiple of `base_lr`.

    Returns:
        The rate of a parameter group whose `lr_scale` is 1.

    Raises:
        ValueError: if a number is negative or not finite, or the settings contradict each other;
            the message names the argument or the `SOLVER` key.
    """
    _check_numbers(
        {
            "epoch": epoch,
            "SOLVER.BASE_LR": base_lr,
            "SOLVER.COSINE_END_LR": end_lr,
            "SOLVER.WARMUP_EPOCHS": warmup_epochs,
            "SOLVER.WARMUP_START_LR": warmup_start_lr,
            "warmup_last_step": warmup_last_step,
        }
    )
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
        raise ValueError(f"SOLVER.LR_POLICY must be {known}, got {policy!r}")

    if epoch >= warmup_epochs:
        return policy_rate(epoch)
    reached, rise = policy_rate(warmup_epochs), warmup_epochs - warmup_last_step
    if epoch >= rise > 0:  # in the last step
        return reached
    return warmup_start_lr + (reached - warmup_start_lr) * epoch / max(rise, warmup_last_step)


def _cosine(epoch: float, base_lr: float, end_lr: float, start: float, stop: float) -> float:
    if start >= stop:  # training ends within the warm-up, as in short trials of a recipe
        return base_lr
    # After `stop` the rate stays at the end: the cosine itself would rise again.
    return Schedule(base_lr, end_lr)((min(epoch, stop) - start) / (stop - start))


def _check_numbers(named: Mapping[str, float]) -> None:
    for name, number in named.items():
        if not (isinstance(number, Real) and 0 <= number < math.inf):
            raise ValueError(f"{name} must be a number, finite and >= 0, got {number!r}")


def _check_cosine(base_lr: float, end_lr: float, max_epoch: float) -> None:
    if not end_lr < base_lr:
        raise ValueError(
            f"SOLVER.COSINE_END_LR must be smaller than SOLVER.BASE_LR, got {end_lr} and {base_lr}"
        )
    if not (isinstance(max_epoch, Real) and 0 < max_epoch < math.inf):
        raise ValueError(f"SOLVER.MAX_EPOCH must be a number, finite and > 0, got {max_epoch!r}")


def _check_steps(steps: Sequence[float], lrs: Sequence[float]) -> None:
    if not steps or steps[0] != 0:
        raise ValueError(
            "SOLVER.STEPS must list the epoch at which each stage begins, starting with 0, got "
            f"{list(steps)}"
        )
    if any(later <= earlier for earlier, later in pairwise(steps)):
        raise ValueError(f"SOLVER.STEPS must be ascending, got {list(steps)}")
    if len(lrs) != len(steps):
        raise ValueError(
            "SOLVER.LRS must have one rate for each stage of SOLVER.STEPS, got "
            f"{len(lrs)} rates and {len(steps)} stages"
        )
    _check_numbers({f"SOLVER.LRS[{stage}]": rate for stage, rate in enumerate(lrs)})
