"""Masked prediction: what the model says of the masked tokens against the target's description.

Source: MaskFeat, arXiv 2112.09133, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from slowfast_maskfeat.augment.transforms import normalize
from slowfast_maskfeat.backbones import MaskedModel, resize_mask, take_masked
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets.base import Target
from slowfast_maskfeat.tasks.base import AllReduce, Evaluation, StepOutput, Task, unwrap


class PretrainTask(Task):
    """Predict the target's description of the masked tokens.

    Args:
        targets: one per predicting depth: describes the tokens of the unmasked clip, and holds the
            loss.
        mean: per channel, of the clip's normalization.
        std: per channel, of the clip's normalization.
    """

    def __init__(
        self, targets: Sequence[Target], *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.targets = nn.ModuleList(targets)
        self.mean = tuple(mean)
        self.std = tuple(std)

    def step(self, model: nn.Module, batch: ClipBatch) -> StepOutput:
        """Loss over all masked tokens of the batch together, summed over the predicting depths.

        Returns:
            `weight` is the number of masked tokens at the first depth. The scalar `baseline` is the
            loss of always answering the batch's mean target: the line that learning must cross.
        """
        predictions = model(normalize(batch.clips, self.mean, self.std), batch.mask)
        grids = _bare(model).prediction_grids(batch.clips.shape[2:])
        loss = baseline = torch.zeros((), device=batch.clips.device)
        for prediction, grid, target in zip(predictions, grids, self._targets(), strict=True):
            described = masked_rows(target, batch, grid)
            loss = loss + target.loss(prediction, described).mean()
            baseline = baseline + target.baseline_loss(described)
        weight = torch.full((), float(len(predictions[0])), device=batch.clips.device)
        return StepOutput(loss, weight, {"baseline": baseline})

    def after_step(self, model: nn.Module) -> None:
        """Let targets that learn online follow the model."""
        for target in self._targets():
            target.update(model)

    def to(self, device: torch.device) -> None:
        """Move the targets' buffers or networks."""
        self.targets.to(device)

    def state_dict(self) -> dict[str, Any]:
        """The targets' state."""
        return self.targets.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back the targets' state."""
        self.targets.load_state_dict(state)

    def _targets(self) -> list[Target]:
        return cast(list[Target], list(self.targets))

    def evaluation(self, videos: VideoList, num_views: int) -> Evaluation:
        """The loss over a validation list."""
        return _LossEvaluation(len(videos), self)


@torch.no_grad()
def masked_rows(target: Target, batch: ClipBatch, grid: Grid) -> Tensor:
    """The target's description of a batch's masked tokens: (M, dim), in the order of (b, t, h, w).

    Args:
        target: what describes them.
        batch: with clips and mask.
        grid: of the tokens.
    """
    assert batch.mask is not None
    described = target.encode(batch.clips, grid)  # (B, N, dim)
    return take_masked(described, resize_mask(batch.mask, grid).flatten(1))


class _LossEvaluation(Evaluation):
    """Mean loss over all masked tokens of a list."""

    def __init__(self, num_videos: int, task: PretrainTask) -> None:
        super().__init__(num_videos)
        self._task = task
        self._sums = torch.zeros(3, dtype=torch.float64)  # loss, baseline, weight

    def add(self, model: nn.Module, batch: ClipBatch) -> None:
        if not len(batch):
            return
        output = self._task.step(model, batch)
        terms = torch.stack([output.loss, output.scalars["baseline"], torch.ones_like(output.loss)])
        self._sums += (terms.double() * output.weight).cpu()

    def merge(self, all_reduce: AllReduce) -> None:
        self._sums = all_reduce(self._sums, "sum")

    def results(self) -> dict[str, Any]:
        loss, baseline, weight = self._sums.tolist()
        if not weight:
            raise ValueError("no video of the validation list could be decoded")
        return {
            "loss": loss / weight,
            "baseline": baseline / weight,
        }


def _bare(model: nn.Module) -> MaskedModel:
    bare = unwrap(model)
    assert isinstance(bare, MaskedModel), f"{type(bare).__name__} does not predict masked tokens"
    return bare
