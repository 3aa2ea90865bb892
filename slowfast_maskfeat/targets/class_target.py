"""Class distributions as prediction targets, wherever they come from.

Token Labeling (arXiv:2104.10858) trains with a class distribution for each token; MaskFeat
(arXiv:2112.09133) studies it as a target of masked tokens.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence

import torch
from torch import Tensor

from slowfast_maskfeat.losses import cross_entropy, soft_cross_entropy
from slowfast_maskfeat.targets.base import Target

_SMALLEST = 1e-8  # of a class frequency, whose logarithm is taken


class ClassTarget(Target, ABC):
    """A distribution over the classes for each frame of a token: loss and baseline.

    Args:
        num_classes: K.
        num_frames: frames of a token that have a distribution each, F.
        is_hard: predict the most likely class instead of the distribution.
        class_names: in the order of the logits, for figures; empty if unknown.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        num_frames: int = 1,
        is_hard: bool = False,
        class_names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_frames = num_frames
        self.is_hard = is_hard
        self.class_names = tuple(class_names)

    @property
    def dim(self) -> int:
        """Logits per token."""
        return self.num_frames * self.num_classes

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compute the cross-entropy of every masked token, averaged over its frames."""
        logits, labels = (self._of_frames(values) for values in (prediction, target))
        if self.is_hard:
            terms = cross_entropy(logits.flatten(0, 1), labels.argmax(dim=-1).flatten())
            return terms.unflatten(0, (len(logits), self.num_frames)).mean(dim=1)
        return soft_cross_entropy(logits, labels).mean(dim=1)

    def constant_prediction(self, target: Tensor) -> Tensor:
        """Compute the logits of the class frequencies."""
        labels = self._of_frames(target)
        if self.is_hard:
            labels = torch.zeros_like(labels).scatter_(-1, labels.argmax(-1, keepdim=True), 1.0)
        return labels.mean(dim=0).clamp(min=_SMALLEST).log().flatten()

    def predicted(self, prediction: Tensor) -> Tensor:
        """Convert logits to class distributions: (M, F * K) -> (M, F * K)."""
        return self._of_frames(prediction.float()).softmax(dim=-1).flatten(1)

    def _of_frames(self, values: Tensor) -> Tensor:
        """Split the values of a token: (M, F * K) -> (M, F, K)."""
        return values.unflatten(-1, (self.num_frames, self.num_classes))

    def extra_repr(self) -> str:
        """Return the text that `print` shows for the module."""
        return f"is_hard={self.is_hard}, dim={self.dim}"
