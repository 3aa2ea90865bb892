"""Linear probe: a linear classifier on frozen features."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearHead(nn.Module):
    """Standardizes each feature and classifies them linearly.

    MAE (arXiv 2111.06377, appendix A.1) puts a batch norm without affine parameters before the
    linear layer. As the features are frozen, mean and standard deviation over all training samples
    take its place, in training and evaluation alike.

    Args:
        mean: (D,) mean of the training features.
        std: (D,) standard deviation of the training features.
        num_classes: K.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        # A constant feature carries no information; it becomes 0.
        self.register_buffer("std", torch.where(std > 0, std, 1.0))
        self.linear = nn.Linear(len(mean), num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Classify features: (B, D) -> (B, K) logits."""
        return self.linear((features - self.mean) / self.std)
