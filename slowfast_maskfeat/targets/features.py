"""Features of a frozen network as prediction target.

MaskFeat (arXiv:2112.09133) studies them; MVD (arXiv:2212.04500) predicts layer-normed features with
the smooth absolute error, other systems those of unit length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from slowfast_maskfeat.losses import (
    cosine_distance,
    mean_absolute_error,
    mean_squared_error,
    smooth_l1,
    standardized,
    unit_length,
)
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets.base import Target
from slowfast_maskfeat.targets.teacher_tokens import TeacherTokens

NORMS = ("none", "layer", "unit")
"""Values of MASK.FEATURE_NORM: as they are; without mean and of unit variance; of unit length."""

LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "l2": mean_squared_error,
        "l1": mean_absolute_error,
        "smooth_l1": smooth_l1,
        "cosine": cosine_distance,
    }
)
"""Values of MASK.FEATURE_LOSS."""


class FeatureTarget(Target):
    """The features that a frozen network has of each token.

    Args:
        teacher: gives the features.
        num_features: D of the teacher.
        num_frames: frames of a token that the teacher sees one by one, F; their features are
            concatenated.
        norm: see `NORMS`; of the features of each frame.
        epsilon: added to the variance by the norm "layer", see `standardized`.
        loss: see `LOSSES`; of each frame, averaged.
    """

    def __init__(
        self,
        teacher: TeacherTokens,
        *,
        num_features: int,
        num_frames: int = 1,
        norm: str = "layer",
        epsilon: float = 1e-6,
        loss: str = "smooth_l1",
    ) -> None:
        super().__init__()
        assert norm in NORMS, norm
        self.teacher = teacher
        self.num_features = num_features
        self.num_frames = num_frames
        self.norm = norm
        self.epsilon = epsilon
        self.loss_name = loss

    @property
    def dim(self) -> int:
        """Features per token."""
        return self.num_frames * self.num_features

    @torch.no_grad()
    def encode(self, clips: Tensor, grid: Grid) -> Tensor:
        """Return the features of every token: (B, N, F * D) float32, see `Target.encode`."""
        features = self.teacher(clips, grid, all_frames=self.num_frames > 1)
        if self.norm == "layer":
            features = standardized(features, epsilon=self.epsilon)
        elif self.norm == "unit":
            features = unit_length(features)
        return features.flatten(4).flatten(1, 3)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of every masked token, averaged over its frames."""
        loss = LOSSES[self.loss_name]
        return loss(self._of_frames(prediction), self._of_frames(target)).mean(dim=-1)

    def constant_prediction(self, target: Tensor) -> Tensor:
        """Compute the mean; for absolute errors the median, for the cosine loss the mean direction.

        For the smooth absolute error it is the best constant only up to the absolute errors above
        one.
        """
        if self.loss_name == "l1":
            return target.median(dim=0).values
        if self.loss_name != "cosine":
            return target.mean(dim=0)
        return unit_length(self._of_frames(target)).mean(dim=0).flatten()

    def _of_frames(self, values: Tensor) -> Tensor:
        """Split the values of a token: (M, F * D) -> (M, F, D)."""
        return values.unflatten(-1, (self.num_frames, self.num_features))

    def extra_repr(self) -> str:
        """Return the text that `print` shows for the module."""
        return f"norm={self.norm}, loss={self.loss_name}, dim={self.dim}"
