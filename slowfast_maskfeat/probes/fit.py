"""Train small heads on features, in memory or on the disk.

A loop of its own, and not `engine.train`: there are no videos to decode, lose, mask or augment, an
epoch takes seconds, nothing is worth a checkpoint, and the heads of all learning rates are trained
side by side, on the same batches, for the price of reading the features once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slowfast_maskfeat.features.rows import FeatureRows
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.metrics.accuracy import topk_correct


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How heads are trained.

    Attributes:
        learning_rates: one head is trained with each; the best on the validation rows is kept. They
            are of a batch of 256 rows and scale with `batch_size`.
        optimizer: "sgd", with momentum 0.9, or "adamw".
        epochs: passes over the training rows; the learning rate falls to 0 as a cosine.
        batch_size: rows of a step.
        weight_decay: of the matrices, not of biases and norms.
        seed: of the first weights and the order.
    """

    learning_rates: Sequence[float]
    optimizer: str
    epochs: int
    batch_size: int
    weight_decay: float
    seed: int


@dataclass(frozen=True)
class Fit:
    """The head that was chosen.

    Attributes:
        head: in evaluation mode.
        learning_rate: it was trained with, as given, before the scaling.
        validation_top1: percent right of the validation rows, for each learning rate whose head
            stayed finite.
        diverged: the other learning rates: a loss, or a score of a validation row, was not finite.
    """

    head: nn.Module
    learning_rate: float
    validation_top1: dict[float, float]
    diverged: tuple[float, ...]


def fit_heads(
    make_head: Callable[[], nn.Module],
    features: Tensor | FeatureRows,
    labels: Tensor,
    validation: tuple[Tensor | FeatureRows, Tensor],
    settings: FitSettings,
    *,
    device: torch.device,
    show_progress: bool = True,
) -> Fit:
    """Train a head per learning rate and keep the best; the smaller rate where two are equal.

    A head that diverges is not chosen.

    Args:
        make_head: gives a head, features -> (B, K) logits; called with the seed set.
        features: (N, D) or (N, n, D), on the CPU; a batch of them at a time is asked for.
        labels: (N,) int64.
        validation: the same two of the rows that choose.
        settings: how.
        device: to train on.
        show_progress: draw a progress bar.

    Raises:
        ValueError: there is nothing to train on or to choose by, or all heads diverged.
    """
    if not len(features) or not len(validation[0]):
        raise ValueError(
            f"a probe has {len(features)} rows to train on and {len(validation[0])} to choose the "
            "learning rate by; both need at least one"
        )
    rates = sorted(set(settings.learning_rates))
    state = torch.random.get_rng_state()
    torch.manual_seed(settings.seed)
    first = make_head()
    torch.random.set_rng_state(state)
    heads = [copy.deepcopy(first).to(device) for _ in rates]
    batch_size = min(settings.batch_size, len(features))
    optimizer = _optimizer(heads, rates, settings, batch_size)
    num_steps = settings.epochs * (len(features) // batch_size)
    progress = Progress(num_steps, "probe", enabled=show_progress)
    is_finite = torch.ones(len(heads), dtype=torch.bool, device=device)  # read once, at the end
    step = 0
    for epoch in range(settings.epochs):
        generator = np.random.default_rng((settings.seed, epoch))
        order = torch.from_numpy(generator.permutation(len(features)))
        for rows in order[: len(order) // batch_size * batch_size].split(batch_size):
            factor = 0.5 * (1 + math.cos(math.pi * step / num_steps))
            for group in optimizer.param_groups:
                group["lr"] = group["full_lr"] * factor
            inputs, wanted = features[rows].to(device).float(), labels[rows].to(device)
            optimizer.zero_grad(set_to_none=True)
            for place, head in enumerate(heads):  # one by one: the memory of one is in use
                loss = F.cross_entropy(head(inputs), wanted)
                is_finite[place] &= loss.detach().isfinite()
                loss.backward()
            optimizer.step()
            step += 1
            progress.update(1)
    progress.close()
    top1: dict[float, float] = {}
    for rate, head, stayed in zip(rates, heads, is_finite.tolist(), strict=True):
        right = _top1(head, *validation, settings.batch_size, device) if stayed else None
        if right is not None:
            top1[rate] = right
    if not top1:
        raise ValueError(
            f"PROBE.LEARNING_RATES: with each of {', '.join(map(str, rates))} the head diverged: "
            "losses or scores are not finite; smaller ones are right, if the features are finite"
        )
    best = max(top1, key=lambda rate: (top1[rate], -rate))
    diverged = tuple(rate for rate in rates if rate not in top1)
    return Fit(heads[rates.index(best)].eval(), best, top1, diverged)


@torch.no_grad()
def head_scores(
    head: nn.Module, features: Tensor | FeatureRows, *, batch_size: int, device: torch.device
) -> Tensor:
    """Class probabilities: (N, D) or (N, n, D) -> (N, K) float32 on the CPU."""
    head.eval()
    parts = []
    for start in range(0, len(features), batch_size):
        inputs = features[start : start + batch_size].to(device).float()
        parts.append(head(inputs).softmax(-1).cpu())
    return torch.cat(parts)


def _top1(
    head: nn.Module,
    features: Tensor | FeatureRows,
    labels: Tensor,
    batch_size: int,
    device: torch.device,
) -> float | None:
    """Percent right; None where a score is not finite."""
    scores = head_scores(head, features, batch_size=batch_size, device=device)
    if not scores.isfinite().all():
        return None
    return 100.0 * int(topk_correct(scores, labels, (1,))[0]) / len(labels)


def _optimizer(
    heads: Sequence[nn.Module], rates: Sequence[float], settings: FitSettings, batch_size: int
) -> torch.optim.Optimizer:
    groups = []
    for head, rate in zip(heads, rates, strict=True):
        full = rate * batch_size / 256
        for is_matrix in (True, False):
            parameters = [value for value in head.parameters() if (value.ndim == 2) == is_matrix]
            decay = settings.weight_decay if is_matrix else 0.0
            groups.append(
                {"params": parameters, "lr": full, "full_lr": full, "weight_decay": decay}
            )
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=0.9)
    return torch.optim.AdamW(groups, lr=0.0)
