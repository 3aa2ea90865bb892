"""Loading and saving of trained models with their configuration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.checkpoints import save_safetensors
from slowfast_maskfeat.runs.load_trained import load_model

FILE_NAME = "model.safetensors"
"""Name of the file that `save_pretrained` writes."""


def from_pretrained(
    path_or_folder: str | os.PathLike[str],
    *,
    device: str = "cpu",
    config: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
) -> nn.Module:
    """Load a trained model.

    Args:
        path_or_folder: a checkpoint of a training, a file of weights, the folder of
            `save_pretrained`, or the OUTPUT_DIR of a run, whose newest checkpoint is loaded.
        device: "cpu" or "cuda".
        config: YAML file to use instead of the checkpoint's own configuration; required for a file
            with only weights.
        overrides: ["KEY", "VALUE", ...], which override both.

    Returns:
        The model in evaluation mode. Its attribute `cfg` is the frozen configuration, and its
        attribute `class_names` a tuple of names in the order of the logits, empty if unknown.

    Raises:
        ValueError: the file does not exist, has no configuration and none is given, or has weights
            that do not fit the model.
    """
    path = _find_file(Path(path_or_folder))
    trained = load_model(
        str(path),
        device=device,
        config_file=None if config is None else os.fspath(config),
        pairs=overrides,
    )
    model = trained.model
    model.cfg = trained.cfg
    model.class_names = trained.class_names  # type: ignore[assignment]
    return model


def save_pretrained(model: nn.Module, folder: str | os.PathLike[str]) -> Path:
    """Save a model with its configuration and class names, for `from_pretrained`.

    Args:
        model: with the attributes `cfg` and, if it has classes, `class_names`, as `from_pretrained`
            sets them.
        folder: created if it does not exist.

    Returns:
        The written file, `model.safetensors` in the folder.

    Raises:
        ValueError: the model has no attribute `cfg`.
        OSError: the file cannot be written.
    """
    cfg = getattr(model, "cfg", None)
    if not isinstance(cfg, CfgNode):
        raise ValueError(
            f"{type(model).__name__} must have an attribute `cfg` with its configuration, got "
            f"{type(cfg).__name__}; set model.cfg = load_config(...)"
        )
    return save_safetensors(
        Path(folder) / FILE_NAME,
        model.state_dict(),
        class_names=getattr(model, "class_names", ()),
        token_grid=getattr(model, "configured_grid", None),
        config=cfg.dump(),
    )


def _find_file(path: Path) -> Path:
    """Return the path of a file unchanged; for a folder, its saved model or newest checkpoint."""
    if not path.is_dir():
        return path
    if (path / FILE_NAME).is_file():
        return path / FILE_NAME
    found = [*path.glob("*.pyth"), *path.glob("checkpoints/*.pyth")]
    if not found:
        raise ValueError(f"{path} must contain {FILE_NAME} or checkpoints (*.pyth), got neither")
    return max(found, key=lambda file: file.stat().st_mtime)
