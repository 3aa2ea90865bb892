"""Checkpoint -> the model that it is of, to ask it about one's own video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.builders.methods import build_model
from slowfast_maskfeat.builders.weights import load_tested_weights
from slowfast_maskfeat.checkpoints import load_checkpoint
from slowfast_maskfeat.config import load_config, parse_config


class TrainedModel(NamedTuple):
    """What a checkpoint gives.

    Attributes:
        cfg: frozen configuration.
        model: with the weights, in evaluation mode, on its device.
        class_names: of the classes; empty where the file has none.
    """

    cfg: CfgNode
    model: nn.Module
    class_names: tuple[str, ...]


def load_trained(
    checkpoint: str, *, device: str, config_file: str | None = None, pairs: Sequence[str] = ()
) -> TrainedModel:
    """The model of a checkpoint.

    The lists that it was trained on need not exist: configuration and class names are in the file.

    Args:
        checkpoint: of a training, or weights alone.
        device: "cpu" or "cuda".
        config_file: YAML file that wins over the checkpoint's own configuration; weights alone need
            it.
        pairs: words of keys and values that win over both.

    Raises:
        ValueError: the file holds no configuration and none is given, the weights are of another
            model, or there is no such device.
    """
    place = named_device(device)
    content = load_checkpoint(checkpoint)
    names = tuple(content.get("class_names") or ())
    cfg = _configuration(checkpoint, content, names, config_file, pairs)
    model = build_model(cfg).to(place).eval()
    load_tested_weights(cfg, model, checkpoint)
    return TrainedModel(cfg, model, names)


def named_device(device: str) -> torch.device:
    """The device that ``--device`` names.

    Raises:
        ValueError: it is a GPU and torch sees none.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device: {device!r}, but torch sees no GPU; 'cpu' would run")
    return torch.device(device)


def _configuration(
    checkpoint: str,
    content: dict[str, Any],
    names: Sequence[str],
    config_file: str | None,
    pairs: Sequence[str],
) -> CfgNode:
    """That of the file, else the checkpoint's own."""
    words = ["DATA.PATH_TO_DATA_DIR", "", "AVA.ANNOTATION_DIR", ""]
    words += ["MODEL.NUM_CLASSES", str(len(names))] if names else []
    words += pairs
    if config_file:
        return load_config([config_file], words)
    if not isinstance(content.get("cfg"), str):
        raise ValueError(
            f"{checkpoint}: it holds no configuration; name the YAML file of its model with --cfg"
        )
    return parse_config(content["cfg"], checkpoint, words)
