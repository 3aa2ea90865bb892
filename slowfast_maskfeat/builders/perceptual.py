"""Builder of the perceptual distance that a tokenizer is trained with."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from slowfast_maskfeat.builders.datasets import reverses_channels
from slowfast_maskfeat.builders.teacher import find_network, load_network
from slowfast_maskfeat.checkpoints import load_weights
from slowfast_maskfeat.frozen import FrozenNetwork
from slowfast_maskfeat.losses import LPIPS, FeatureDistance

_LPIPS = "lpips"


class LPIPSOfImages(nn.Module):
    """LPIPS of images in [0, 1]: (B, 3, H, W) twice -> (B,)."""

    def __init__(self, network: FrozenNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        """Scale both to [-1, 1] and compare them."""
        distance: Tensor = self.network(reconstruction * 2 - 1, image * 2 - 1)
        return distance


def build_perceptual(cfg: CfgNode) -> nn.Module | None:
    """Build the distance of TOKENIZER.PERCEPTUAL_*: images in [0, 1] twice -> (B,).

    Args:
        cfg: configuration; not modified.

    Returns:
        The distance; None if TOKENIZER.PERCEPTUAL_WEIGHT is 0.

    Raises:
        ValueError: the weights or layers do not fit the network, or it is one of videos.
    """
    keys = cfg.TOKENIZER
    if not keys.PERCEPTUAL_WEIGHT:
        return None
    if keys.PERCEPTUAL_CFG == _LPIPS:
        network = LPIPS()
        load_weights(network, keys.PERCEPTUAL_CHECKPOINT, complete=True)
        return LPIPSOfImages(FrozenNetwork(network, source=keys.PERCEPTUAL_CHECKPOINT))
    found = find_network(
        keys.PERCEPTUAL_CHECKPOINT,
        keys.PERCEPTUAL_CFG,
        key="TOKENIZER.PERCEPTUAL",
        user=f"TOKENIZER.PERCEPTUAL_WEIGHT {keys.PERCEPTUAL_WEIGHT}",
    )
    if not found.is_of_images:
        raise ValueError(
            "TOKENIZER.PERCEPTUAL_CHECKPOINT must be of a network of images, got "
            f"{found.path} with DATA.NUM_FRAMES {found.cfg.DATA.NUM_FRAMES}"
        )
    frozen = load_network(found, min_coverage=cfg.TRAIN.CHECKPOINT_MIN_COVERAGE)
    data, is_reversed = found.cfg.DATA, reverses_channels(found.cfg, "train")
    size, mean, std = data.TRAIN_CROP_SIZE, torch.tensor(data.MEAN), torch.tensor(data.STD)

    def run(network: nn.Module, images: Tensor) -> Any:
        if images.shape[2:] != (size, size):
            images = F.interpolate(images, (size, size), mode="bicubic", antialias=True)
        images = images.flip(1) if is_reversed else images
        shape = (1, 3, 1, 1)
        normalized = (images - mean.to(images).view(shape)) / std.to(images).view(shape)
        return network.token_features(normalized.unsqueeze(2))  # type: ignore[operator]

    try:
        return FeatureDistance(frozen, keys.PERCEPTUAL_LAYERS, run=run)
    except ValueError as error:
        raise ValueError(f"TOKENIZER.PERCEPTUAL_LAYERS: {error}") from error
