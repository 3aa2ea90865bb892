"""Loading and saving of trained models with their configuration."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from torch import nn

from slowfast_maskfeat.checkpoints import save_safetensors
from slowfast_maskfeat.config import Overrides
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.runs.load_trained import FILE_NAME, config_of, load_model
from slowfast_maskfeat.runs.model_card import CARD, is_unchanged, model_card
from slowfast_maskfeat.shapes import position_grid


def from_pretrained(
    path_or_folder: str | os.PathLike[str],
    *,
    device: str = "cpu",
    config: str | os.PathLike[str] | None = None,
    overrides: Overrides = (),
) -> nn.Module:
    """Load a trained model.

    Args:
        path_or_folder: a checkpoint of a training; a file of weights; the folder of
            `save_pretrained`; a folder of Hugging Face's transformers with config.json and the
            weights of a VideoMAE, ViTMAE, ViT or BEiT; or the OUTPUT_DIR of a run, whose last
            checkpoint is loaded.
        device: "cpu" or "cuda".
        config: YAML file to use instead of the checkpoint's own configuration; required for a file
            with only weights.
        overrides: ["KEY", "VALUE", ...] or {"KEY": value}, which override both.

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
    license is yours to add. The configuration is in the file of the weights alone.

    In a folder with a saved model both files are replaced, the card only if nobody has edited it. A
    README.md in a folder without a model is kept, with a warning.

    Args:
        model: with the attributes `cfg` and, if it has classes, `class_names`, as `from_pretrained`
            sets them.
        folder: created if it does not exist.

    Returns:
        The written file, `model.safetensors` in the folder.

    Raises:
        ValueError: the model has no attribute `cfg`, `folder` is a file, or it has a saved model
            with a README.md that was edited or is no card; nothing is written then.
        OSError: a file cannot be written.
    """
    cfg, path = config_of(model), Path(folder) / FILE_NAME
    card = path.with_name(CARD)
    if path.parent.exists() and not path.parent.is_dir():
        raise ValueError(f"folder must be a folder, got the file {path.parent}")
    is_kept = card.exists() and not is_unchanged(card)
    if is_kept and path.exists():
        raise ValueError(
            f"{path.parent} must be a folder without another model, got {path.name} with a {CARD} "
            "that was edited or is no card, which would describe other weights; name another "
            f"folder, or move {card}"
        )
    save_safetensors(
        path,
        model.state_dict(),
        class_names=getattr(model, "class_names", ()),
        token_grid=position_grid(model),
        config=cfg.dump(),
    )
    if is_kept:
        warnings.warn(
            f"{card} exists and is kept; remove it for a card of this model", stacklevel=2
        )
        return path
    with atomic_write(card) as part:
        part.write_text(model_card(model, cfg, path.parent.resolve().name), encoding="utf-8")
    return path
