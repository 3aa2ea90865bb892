"""Networks of methods that compare views of a sample: a backbone with the heads of `view_heads`.

Sources: BYOL (arXiv 2006.07733), DINO (arXiv 2104.14294), iBOT (arXiv 2111.07832). The names of the
backbone's parameters begin with `backbone.`, as in PySlowFast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from slowfast_maskfeat.backbones.base import Backbone
from slowfast_maskfeat.backbones.masking import resize_mask, take_masked
from slowfast_maskfeat.backbones.models import BackboneModel
from slowfast_maskfeat.backbones.mvit import NormedEncoder
from slowfast_maskfeat.backbones.options import EncoderOptions
from slowfast_maskfeat.backbones.view_heads import DINOHead, IBOTHead, MLPHead
from slowfast_maskfeat.shapes import Grid, position_grid


class ViewOutputs(NamedTuple):
    """Outputs of a network for the views of a sample.

    Attributes:
        views: (V, B, P) projections, or predictions of them, or (V, B, K) logits.
        pooled: (V, B, D) features of the backbone, from which they are made.
    """

    views: Tensor
    pooled: Tensor


class ContrastiveModel(BackboneModel):
    """A backbone with heads, which takes the views of a sample.

    Attributes:
        student_only: names of its parts that a teacher does not have.
        last_layers: front of the names of its prototypes; empty if it has none.
    """

    student_only: ClassVar[tuple[str, ...]] = ()
    last_layers: ClassVar[str] = ""

    @property
    def configured_grid(self) -> Grid | None:
        """Grid of the backbone's position tables; None if it does not say."""
        return position_grid(self.backbone)

    def pooled(self, clips: Tensor) -> Tensor:
        """One vector for each clip: (B, C, T, H, W), float, normalized -> (B, D)."""
        return self.backbone.pooled(self.backbone.tokens(clips))


class BYOLModel(ContrastiveModel):
    """Projects each view and predicts the projection of another one.

    Args:
        backbone: the backbone.
        projector: (B, D) -> (B, P).
        predictor: (B, P) -> (B, P).
    """

    student_only = ("predictor",)

    def __init__(self, backbone: Backbone, projector: MLPHead, predictor: MLPHead) -> None:
        super().__init__(backbone)
        self.projector = projector
        self.predictor = predictor

    def forward(self, views: Sequence[Tensor]) -> ViewOutputs:
        """Predictions of each view, or projections where there is no predictor, as in a teacher.

        The views go through the network one after the other, so that each has its own batch
        statistics.

        Args:
            views: (B, C, T, H, W) each, float, normalized.

        Returns:
            Predictions or projections, and the features.
        """
        pooled = [self.pooled(clips) for clips in views]
        predictions = [self.predictor(self.projector(features)) for features in pooled]
        return ViewOutputs(torch.stack(predictions), torch.stack(pooled))


class DINOModel(ContrastiveModel):
    """Classifies each view by prototypes.

    Args:
        backbone: the backbone.
        head: (..., D) -> (..., K).
    """

    last_layers = "head.last_layer"

    def __init__(self, backbone: Backbone, head: DINOHead) -> None:
        super().__init__(backbone)
        self.head = head

    def forward(self, views: Sequence[Tensor]) -> ViewOutputs:
        """Logits of each view.

        Consecutive views of one size go through the backbone together, and all of them through the
        head.

        Args:
            views: (B, C, T, H, W) each, float, normalized; sizes may differ.

        Returns:
            Logits and features.
        """
        pooled = torch.cat([self.pooled(torch.cat(same)) for same in _of_one_size(views)])
        return _by_view(self.head(pooled), pooled, len(views))


class IBOTOutputs(NamedTuple):
    """Logits of views and of the patch tokens of some.

    Attributes:
        views: (V, B, K) logits.
        pooled: (V, B, D) features of the backbone, from which they are made.
        patches: (M, K') of the masked tokens, in the order of (v, b, t, h, w).
        patch_mean: (K',), mean over all patch tokens of these views; None unless computed.
        num_patches: how many they are.
    """

    views: Tensor
    pooled: Tensor
    patches: Tensor
    patch_mean: Tensor | None
    num_patches: int


class IBOTModel(ContrastiveModel):
    """Classifies each view and masked patch tokens by prototypes.

    Args:
        backbone: the backbone; it has a mask token.
        head: of views and patches.
    """

    student_only = ("backbone.masked_embed", "backbone.mask_token")
    last_layers = "head.last_layer"

    def __init__(self, backbone: Backbone, head: IBOTHead) -> None:
        super().__init__(backbone)
        self.head = head

    def forward(
        self, views: Sequence[Tensor], masks: Sequence[Tensor], *, hides: bool = True
    ) -> IBOTOutputs:
        """Logits of each view, and of the masked patch tokens of the first ones.

        Args:
            views: (B, C, T, H, W) each, float, normalized; sizes may differ.
            masks: (B, t, h, w) bool of each of the first views, see `resize_mask`; on the CPU.
            hides: replace the masked patches by the mask token, as for a student. Else the mean
                over all patch tokens of the first views is computed too.

        Returns:
            Logits and features.
        """
        parts, patches = [], []
        front = int(self.backbone.has_cls)
        for same, of_same in _with_masks(views, masks):
            clips = torch.cat(same)
            mask = torch.cat(of_same) if of_same else None
            tokens = self.backbone.tokens(clips, mask if hides else None)
            parts.append(self.backbone.pooled(tokens))
            if mask is not None:
                grid = self.backbone.grids(clips.shape[2:])[-1]
                patches.append((tokens[:, front:], resize_mask(mask, grid).flatten(1)))
        pooled = torch.cat(parts)
        of_views = _by_view(self.head(pooled), pooled, len(views))
        of_patches = self._of_students if hides else self._of_all
        return IBOTOutputs(*of_views, *of_patches(patches))

    def _of_students(self, patches: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, None, int]:
        """Run the head on masked tokens alone."""
        masked = torch.cat([take_masked(tokens, mask) for tokens, mask in patches])
        return self.head.patch_logits(self.head.bottleneck(masked)), None, len(masked)

    def _of_all(self, patches: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, int]:
        """Run the head on all tokens, and its last layer, which is linear, on their mean."""
        bottlenecks = [self.head.bottleneck(tokens) for tokens, _ in patches]  # (v * B, N, d)
        masked = [take_masked(x, mask) for x, (_, mask) in zip(bottlenecks, patches, strict=True)]
        every = torch.cat([x.flatten(0, 1) for x in bottlenecks])
        mean = self.head.patch_logits(every.mean(dim=0))
        return self.head.patch_logits(torch.cat(masked)), mean, len(every)


class MaskedViewEncoder(NormedEncoder):
    """An encoder whose mask token has iBOT's name, shape and first value, zero.

    Args:
        options: options of the encoder.
    """

    def __init__(self, options: EncoderOptions) -> None:
        super().__init__(options)
        self.masked_embed = nn.Parameter(torch.zeros(1, options.width))
        self.takes_masks = True

    def replace_masked(self, tokens: Tensor, masked: Tensor) -> Tensor:
        """Put the mask token in the place of masked patch tokens, see `Encoder.replace_masked`."""
        return torch.where(masked[..., None], self.masked_embed.to(tokens.dtype), tokens)

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, see `Encoder.layer_id`."""
        return 0 if name == "masked_embed" else super().layer_id(name)

    def no_weight_decay(self) -> set[str]:
        """See `Encoder.no_weight_decay`; the mask token is one of them."""
        return {*super().no_weight_decay(), "masked_embed"}


def _by_view(logits: Tensor, pooled: Tensor, num_views: int) -> ViewOutputs:
    """Split the rows (V * B, ...) of consecutive views."""
    return ViewOutputs(*(rows.unflatten(0, (num_views, -1)) for rows in (logits, pooled)))


def _of_one_size(views: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Group consecutive views of one size."""
    return (list(same) for _, same in groupby(views, key=lambda clips: clips.shape))


def _with_masks(
    views: Sequence[Tensor], masks: Sequence[Tensor]
) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Group consecutive views of one size that all have a mask, or all have none."""
    masked = zip(views, masks, strict=False)
    for _, same in groupby(masked, key=lambda pair: pair[0].shape):
        clips, of_same = zip(*same, strict=True)
        yield list(clips), list(of_same)
    for clips_of_size in _of_one_size(views[len(masks) :]):
        yield clips_of_size, []
