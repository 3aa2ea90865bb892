"""Descriptions of clips by the tokens of a network, for targets that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from slowfast_maskfeat.backbones.base import FeatureModel, LayerTokens
from slowfast_maskfeat.shapes import Grid


def describe_by_layers(
    layers: Sequence[int],
) -> Callable[[FeatureModel, Tensor], tuple[Tensor, Grid]]:
    """Return a function that describes clips by the mean of the tokens of some blocks.

    Args:
        layers: blocks, from 0, of equal width and grid. A network without `LayerTokens` shows its
            last block only.

    Returns:
        (network, clips (B, C, T, H, W), float, normalized) -> tokens (B, N, D) without the class
        token, and their grid.
    """

    def describe(network: FeatureModel, clips: Tensor) -> tuple[Tensor, Grid]:
        grid = network.grids(clips.shape[2:])[layers[-1]]
        if not isinstance(network, LayerTokens):
            return network.token_features(clips), grid
        return torch.stack(network.layer_tokens(clips, layers)).mean(dim=0), grid

    return describe


def describe_by_classes(network: FeatureModel, clips: Tensor) -> tuple[Tensor, Grid]:
    """Describe clips by the raw scores of a classifier applied to each token.

    Args:
        network: the classifier.
        clips: (B, C, T, H, W), float, normalized.

    Returns:
        (B, N, K), and the grid of the tokens.
    """
    return network.head(network.token_features(clips)), network.grids(clips.shape[2:])[-1]
