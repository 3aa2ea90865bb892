"""Train probe heads on features, in memory or on disk.

This is a training loop of its own instead of `engine.train`: there are no videos to decode, mask or
augment, an epoch takes seconds, checkpoints are not worth it, and the heads of all learning rates
are trained together on the same batches, so that the features are read once.
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
from slowfast_maskfeat.optimizers import SGD, AdamW


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Training settings of the heads.

    Attributes:
        learning_rates: one head is trained with each, and the best on the validation samples is
            kept. They hold for a batch of 256 samples and are scaled by `batch_size`.
        optimizer: "sgd", with momentum 0.9, or "adamw".
        epochs: passes over the training samples; the learning rate follows a cosine to 0.
        batch_size: samples per step.
        weight_decay: of weight matrices, not of biases and norms.
        seed: of the initial weights and the order of the samples.
    """

    learning_rates: Sequence[float]
    optimizer: str
    epochs: int
    batch_size: int
    weight_decay: float
    seed: int


@dataclass(frozen=True)
class Fit:
    """The head with the best learning rate.

    Attributes:
        head: in evaluation mode.
        learning_rate: of its training, before it is scaled by the batch size.
        validation_top1: top-1 accuracy in percent on the validation samples, by the learning rate
            of each head that did not diverge.
        diverged: the other learning rates: a loss or a validation score was not finite.
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
    """Train one head per learning rate and keep the best; of equal ones, that of the smaller rate.

    Heads that diverge are excluded.

    Args:
        make_head: creates a head, features -> (B, K) logits; called with the seed set.
        features: (N, D) or (N, n, D), on the CPU; read one batch at a time.
        labels: (N,) int64.
        validation: features and labels on which the learning rate is chosen.
        settings: of the training.
        device: to train on.
        show_progress: whether to show the progress.

    Raises:
        ValueError: there are no training or no validation samples, or all heads diverged.
    """
    if not len(features) or not len(validation[0]):
        raise ValueError(
            "a probe needs at least one training and one validation sample, got "
            f"{len(features)} and {len(validation[0])}"
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
            inputs, targets = features[rows].to(device).float(), labels[rows].to(device)
            optimizer.zero_grad(set_to_none=True)
            for place, head in enumerate(heads):  # one by one: activations of one head at a time
                loss = F.cross_entropy(head(inputs), targets)
                is_finite[place] &= loss.detach().isfinite()
                loss.backward()
            optimizer.step()
            step += 1
            progress.update(1)
    progress.close()
    top1: dict[float, float] = {}
    for rate, head, stayed in zip(rates, heads, is_finite.tolist(), strict=True):
        accuracy = _top1(head, *validation, settings.batch_size, device) if stayed else None
        if accuracy is not None:
            top1[rate] = accuracy
    if not top1:
        raise ValueError(
            f"PROBE.LEARNING_RATES: the head diverged with each of {', '.join(map(str, rates))}: "
            "losses or scores are not finite; try smaller rates and check that the features are "
            "finite"
        )
    best = max(top1, key=lambda rate: (top1[rate], -rate))
    diverged = tuple(rate for rate in rates if rate not in top1)
    return Fit(heads[rates.index(best)].eval(), best, top1, diverged)


@torch.no_grad()
def head_scores(
    head: nn.Module, features: Tensor | FeatureRows, *, batch_size: int, device: torch.device
) -> Tensor:
    """Compute class probabilities: (N, D) or (N, n, D) -> (N, K) float32 on the CPU."""
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
    """Top-1 accuracy in percent; None if a score is not finite."""
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
        return SGD(groups, lr=0.0, momentum=0.9)
    return AdamW(groups, lr=0.0)
