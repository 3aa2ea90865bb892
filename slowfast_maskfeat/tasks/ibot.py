"""iBOT: DINO on views with masked patches, and the same for the masked patch tokens.

Source: Zhou et al., "iBOT: Image BERT Pre-Training with Online Tokenizer" (arXiv 2111.07832).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat.backbones import ContrastiveModel, IBOTOutputs, resize_mask
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.host_copies import copy_to_device
from slowfast_maskfeat.losses import patch_cross_entropy
from slowfast_maskfeat.tasks.base import StepOutput, unwrap
from slowfast_maskfeat.tasks.teacher import Center, PrototypeTask, entropies


class IBOT(PrototypeTask):
    """Match a teacher's distributions of other views, and of masked patch tokens of the same view.

    The student's large views are masked, the teacher's are not. Tokens are averaged per clip and
    then over all large views, those without a mask included, as in the official code.

    Args:
        model: an `IBOTModel`.
        patch_center: of the teacher's outputs for patch tokens.
        centers_masked: the latter is of the masked tokens alone, as in DINOv2 (arXiv 2304.07193),
            else of all.
        view_weight: of the loss of views.
        patch_weight: of the loss of patch tokens.
        **options: of `PrototypeTask`.
    """

    scalar_names = (
        *("views", "patches"),
        *("teacher_entropy", "teacher_mean_entropy"),
        *("patch_entropy", "patch_mean_entropy"),
    )

    own_weights = ("patch_entropy", "patch_mean_entropy")

    def __init__(
        self,
        model: ContrastiveModel,
        *,
        patch_center: Center,
        centers_masked: bool,
        view_weight: float,
        patch_weight: float,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.patch_center = patch_center
        self.centers_masked = centers_masked
        self.view_weight = view_weight
        self.patch_weight = patch_weight

    def step(self, model: nn.Module, batch: ClipBatch) -> StepOutput:
        """Compute the mean loss over the samples.

        Returns:
            `weight` is the number of samples. Scalars: the loss of `views` and of `patches`, each
            before its weight, those of `entropies` of the teacher's distributions of views
            ("teacher") and of the masked tokens ("patch"), which are their terms, and those of
            `keep_apart`.
        """
        views = self.clips_of_views(batch.views)
        masks = self._masks(batch)
        outputs: IBOTOutputs = self.teacher(views[: len(masks)], masks, hides=False)
        patch_target = self.patch_center.distribution(outputs.patches, self.epoch)
        if self.training:
            self._add_to_patch_center(outputs)
        student: IBOTOutputs = model(views, masks)
        of_views, entropies_of_views = self.compare_views(student.views, outputs.views)
        counts = self._counts(model, views, masks)
        logits = student.patches / self.student_temperature
        of_patches = patch_cross_entropy(logits, patch_target, counts).sum() / len(counts)
        loss = self.view_weight * of_views + self.patch_weight * of_patches
        loss, distances = self.keep_apart(student.pooled[: len(masks)], loss)
        scalars = {
            "views": of_views.detach(),
            "patches": of_patches.detach(),
            **entropies_of_views,
            **entropies("patch", patch_target),
            **distances,
        }
        num_masked = copy_to_device(counts.sum(), loss.device)
        of_masked = dict.fromkeys(self.own_weights, num_masked)
        return StepOutput(loss, self.num_samples(batch), scalars, of_masked)

    def _masks(self, batch: ClipBatch) -> list[Tensor]:
        """Return the mask (B, t, h, w) of each view that the teacher sees."""
        masks = []
        for kind in batch.views[: self.num_global_kinds]:
            assert kind.mask is not None, "large views must have masks"
            masks += [kind.mask[v :: kind.views_per_sample] for v in range(kind.views_per_sample)]
        return masks

    def _counts(self, model: nn.Module, views: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
        """Count the masked patch tokens of each clip of these views: (Q * B,) int64 on the CPU."""
        network = unwrap(model)
        assert isinstance(network, ContrastiveModel)
        counts = []
        for clips, mask in zip(views, masks, strict=False):
            grid = network.backbone.grids(clips.shape[2:])[-1]
            counts.append(resize_mask(mask, grid).flatten(1).sum(dim=1))
        return torch.cat(counts)

    def _add_to_patch_center(self, outputs: IBOTOutputs) -> None:
        if self.centers_masked:
            self.patch_center.add_outputs(outputs.patches)
        else:
            assert outputs.patch_mean is not None
            self.patch_center.add(outputs.patch_mean, outputs.num_patches)
