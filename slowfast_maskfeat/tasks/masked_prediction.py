"""Masked prediction: predict the target of the masked tokens.

Source: MaskFeat, arXiv 2112.09133, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.backbones import MaskedModel, resize_mask, take_masked
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.losses import mean_or_zero
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets.base import Target
from slowfast_maskfeat.tasks.base import (
    Evaluation,
    LossEvaluation,
    StepOutput,
    Task,
    term_count,
    unwrap,
)


class MaskedPrediction(Task):
    """Predict the target of the masked tokens from the visible ones.

    Args:
        targets: one per predicting depth; each encodes the unmasked clip and computes the loss.
        mean: per channel, of the clip's normalization.
        std: per channel, of the clip's normalization.
    """

    def __init__(
        self, targets: Sequence[Target], *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.targets = nn.ModuleList(targets)
        further = (name for target in targets for name in target.scalar_names)
        self.scalar_names = ("baseline", *dict.fromkeys(further))
        self.mean = tuple(mean)
        self.std = tuple(std)

    def step(self, model: nn.Module, batch: ClipBatch) -> StepOutput:
        """Compute the mean loss over all masked tokens of the batch, summed over depths.

        Returns:
            `weight` is the number of masked tokens at the first depth. The scalar `baseline` is the
            loss of the best constant prediction for the batch, which a model that learns beats; the
            further scalars of the target are averaged over depths. All are 0 if no token is masked.
        """
        predictions = model(normalize(batch.clips, self.mean, self.std), batch.mask)
        grids = _bare(model).prediction_grids(batch.clips.shape[2:])
        loss = baseline = torch.zeros((), device=batch.clips.device)
        further: dict[str, Tensor] = {}
        targets = cast(list[Target], list(self.targets))
        for prediction, grid, target in zip(predictions, grids, targets, strict=True):
            encoded = masked_rows(target, batch, grid)
            loss = loss + mean_or_zero(target.loss(prediction, encoded))
            baseline = baseline + target.baseline_loss(encoded)
            for name, value in target.scalars(prediction.detach(), encoded).items():
                further[name] = further.get(name, 0) + value / len(targets)
        weight = term_count(len(predictions[0]), batch.clips.device)
        return StepOutput(loss, weight, {"baseline": baseline, **further})

    def evaluation(self, videos: VideoList, num_views: int) -> Evaluation:
        """Evaluate the loss over a validation split."""
        return MaskedPredictionEvaluation(len(videos), self)


class MaskedPredictionEvaluation(LossEvaluation):
    """Mean loss over all masked tokens of a split."""

    def summary(self, results: Mapping[str, Any]) -> str:
        """Describe the loss and that of a constant prediction."""
        return (
            f"loss {results['loss']:.4f}, constant prediction {results['baseline']:.4f}; "
            f"{results['num_decoded']} of {results['num_expected']} videos decoded"
        )


@torch.no_grad()
def masked_rows(target: Target, batch: ClipBatch, grid: Grid) -> Tensor:
    """Encode a batch's masked tokens: (M, dim), in the order of (b, t, h, w).

    Args:
        target: encodes the unmasked clips.
        batch: with clips and mask.
        grid: of the tokens.
    """
    assert batch.mask is not None
    encoded = target.encode_batch(batch, grid)  # (B, N, ...)
    return take_masked(encoded, resize_mask(batch.mask, grid).flatten(1))


def _bare(model: nn.Module) -> MaskedModel:
    bare = unwrap(model)
    assert isinstance(bare, MaskedModel), f"{type(bare).__name__} does not predict masked tokens"
    return bare
