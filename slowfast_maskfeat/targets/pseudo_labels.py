"""Class distributions of a frozen classifier as prediction target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets.class_target import ClassTarget
from slowfast_maskfeat.targets.teacher_tokens import TeacherTokens


class PseudoLabelTarget(ClassTarget):
    """The classes that a frozen classifier sees in each token.

    The classifier is applied to each of its tokens; its logits are brought to the grid of the
    prediction and then become a distribution.

    Args:
        teacher: gives the logits.
        num_classes: K.
        num_frames: frames of a token that the classifier sees one by one, F; each has a
            distribution.
        is_hard: predict the most likely class instead of the distribution.
        class_names: in the order of the logits, for figures; empty if unknown.
    """

    def __init__(
        self,
        teacher: TeacherTokens,
        *,
        num_classes: int,
        num_frames: int = 1,
        is_hard: bool = False,
        class_names: Sequence[str] = (),
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            num_frames=num_frames,
            is_hard=is_hard,
            class_names=class_names,
        )
        self.teacher = teacher

    @torch.no_grad()
    def encode(self, clips: Tensor, grid: Grid) -> Tensor:
        """Return the class distributions of every token: (B, N, F * K), see `Target.encode`."""
        logits = self.teacher(clips, grid, all_frames=self.num_frames > 1)
        return logits.softmax(dim=-1).flatten(4).flatten(1, 3)
