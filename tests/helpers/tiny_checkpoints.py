"""Checkpoints of tiny models with golden weights, and the models that receive them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from helpers.golden_rule import fill_with_golden_weights, golden_array
from helpers.tiny_cases import model_of
from torch import Tensor, nn

from slowfast_maskfeat.checkpoints import save_checkpoint

LARGER = {"DATA__NUM_FRAMES": 16, "DATA__TRAIN_CROP_SIZE": 96, "DATA__TEST_CROP_SIZE": 96}
IMAGE = {
    "DATA__NUM_FRAMES": 1,
    "MVIT__PATCH_2D": True,
    "MVIT__PATCH_KERNEL": [7, 7],
    "MVIT__PATCH_STRIDE": [4, 4],
    "MVIT__PATCH_PADDING": [3, 3],
    "MVIT__POOL_KVQ_KERNEL": [1, 3, 3],
    "MVIT__REL_POS_TEMPORAL": False,
}
# The video of the golden image model img_vit.
VIDEO_VIT = {
    "DATA__NUM_FRAMES": 8,
    "MVIT__PATCH_2D": False,
    "MVIT__PATCH_KERNEL": [2, 16, 16],
    "MVIT__PATCH_STRIDE": [2, 16, 16],
    "MVIT__PATCH_PADDING": [0, 0, 0],
    "MVIT__SEP_POS_EMBED": True,
}


def source_state(options: Mapping[str, Any]) -> dict[str, Tensor]:
    """The golden weights of a model."""
    return fill_with_golden_weights(model_of(options)).state_dict()


def source_file(folder: Path, options: Mapping[str, Any], **extra: Tensor) -> Path:
    """A checkpoint of them, with further tensors."""
    state = {**source_state(options), **extra}
    return save_checkpoint(folder / "source.pyth", {"model_state": state, "epoch": 9})


def receiver(options: Mapping[str, Any]) -> nn.Module:
    """A model with the initial values that the golden conversions started from."""
    return fill_with_golden_weights(model_of(options), seed_prefix="dst:").eval()


def put_back(model: nn.Module, *ends: str) -> None:
    """Give the entries whose names end so the values of `receiver` again."""
    for name, value in model.state_dict().items():
        if name.endswith(ends):
            value.copy_(torch.from_numpy(golden_array(name, "dst:", shape=tuple(value.shape))))
