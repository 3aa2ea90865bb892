"""Loading and saving of trained models with their configuration."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from slowfast_maskfeat.checkpoints import save_safetensors
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.runs.load_trained import FILE_NAME, config_of, load_model
from slowfast_maskfeat.runs.model_card import CARD, model_card


def from_pretrained(
    path_or_folder: str | os.PathLike[str],
    *,
    device: str = "cpu",
    config: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
) -> nn.Module:
    """Load a trained model.

    Args:
        path_or_folder: a checkpoint of a training; a file of weights; the folder of
            `save_pretrained`; a folder of Hugging Face's transformers with config.json and the
            weights of a VideoMAE, ViTMAE, ViT or BEiT; or the OUTPUT_DIR of a run, whose newest
            checkpoint is loaded.
        device: "cpu" or "cuda".
        config: YAML file to use instead of the checkpoint's own configuration; required for a file
            with only weights.
        overrides: ["KEY", "VALUE", ...], which override both.

    Returns:
        The model in evaluation mode. Its attribute `cfg` is the frozen configuration, and its
        attribute `class_names` a tuple of names in the order of the logits, empty if unknown.

    Raises:
        ValueError: the file does not exist, has no configuration and none is given, has weights
            that do not fit the model, or is of a model that does not exist here; the message names
            the field of config.json.
    """
    return load_model(
        path_or_folder,
        device=device,
        config_file=None if config is None else os.fspath(config),
        pairs=overrides,
    ).model


def save_pretrained(model: nn.Module, folder: str | os.PathLike[str]) -> Path:
    """Save a model with its configuration and class names, for `from_pretrained`.

    Beside it `README.md` is written, a model card as the Hugging Face hub reads it: network, input,
    classes and how to load the model; if it was loaded from a checkpoint of a training, also the
    data, the recipe and, if the training's log is there, the results of this checkpoint. The
    license is yours to add. An existing README.md is kept, with a warning. The configuration is in
    the file of the weights alone.

    Args:
        model: with the attributes `cfg` and, if it has classes, `class_names`, as `from_pretrained`
            sets them.
        folder: created if it does not exist.

    Returns:
        The written file, `model.safetensors` in the folder.

    Raises:
        ValueError: the model has no attribute `cfg`.
        OSError: a file cannot be written.
    """
    cfg = config_of(model)
    path = save_safetensors(
        Path(folder) / FILE_NAME,
        model.state_dict(),
        class_names=getattr(model, "class_names", ()),
        token_grid=getattr(model, "configured_grid", None),
        config=cfg.dump(),
    )
    card = path.with_name(CARD)
    if card.exists():
        warnings.warn(
            f"{card} exists and is kept; remove it for a card of this model", stacklevel=2
        )
        return path
    with atomic_write(card) as part:
        part.write_text(model_card(model, cfg, path.parent.resolve().name), encoding="utf-8")
    return path
