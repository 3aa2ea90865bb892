"""Trained models, loaded from their checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.methods import build_model
from slowfast_maskfeat.builders.model_size import check_model_size
from slowfast_maskfeat.builders.precision import set_precision
from slowfast_maskfeat.builders.trained_config import trained_config
from slowfast_maskfeat.builders.weights import load_tested_weights
from slowfast_maskfeat.checkpoints import load_checkpoint


class TrainedModel(NamedTuple):
    """A model loaded from a checkpoint.

    Attributes:
        cfg: frozen configuration.
        model: with the weights, in evaluation mode, on its device.
        class_names: of the classes; empty if the file has none.
    """

    cfg: CfgNode
    model: nn.Module
    class_names: tuple[str, ...]


def load_trained(
    checkpoint: str, *, device: str, config_file: str | None = None, pairs: Sequence[str] = ()
) -> TrainedModel:
    """Load the model of a checkpoint for a command, whose process gets its TRAIN.PRECISION.

    See `load_model` for arguments, result and errors.
    """
    trained = load_model(checkpoint, device=device, config_file=config_file, pairs=pairs)
    set_precision(trained.cfg)
    return trained


def load_model(
    checkpoint: str, *, device: str, config_file: str | None = None, pairs: Sequence[str] = ()
) -> TrainedModel:
    """Load the model of a checkpoint; nothing of torch's settings changes.

    The annotation files of its training need not exist: configuration and class names are in the
    checkpoint.

    Args:
        checkpoint: of a training, or a file with only weights.
        device: see `named_device`.
        config_file: YAML file to use instead of the checkpoint's own configuration; required for a
            file with only weights.
        pairs: keys and values that override both: ["KEY", "VALUE", ...].

    Raises:
        ValueError: the file has no configuration and none is given, the weights do not fit the
            model, or there is no such device.
    """
    torch_device = named_device(device)
    content = load_checkpoint(checkpoint)
    names = tuple(content.get("class_names") or ())
    cfg = trained_config(checkpoint, content, config_file, pairs)
    data = DataSource(cfg)
    check_model_size(lambda: build_model(cfg, data=data), checkpoint, content)
    model = build_model(cfg, data=data).to(torch_device).eval()
    load_tested_weights(cfg, model, checkpoint, data=data, content=content)
    return TrainedModel(cfg, model, names)


def named_device(device: str) -> torch.device:
    """Return the device that ``--device`` names.

    Args:
        device: "cpu", "cuda", or "auto" for a GPU if torch finds one.

    Raises:
        ValueError: the device is a GPU and torch finds none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device must be 'cpu' since torch finds no GPU, got {device!r}")
    return torch.device(device)
