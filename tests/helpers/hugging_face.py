"""Folders as transformers writes them: its config.json, and weights by the golden rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from helpers.golden_rule import golden_array, golden_json
from safetensors.torch import save_file
from torch import Tensor

# Goldens in tests/golden/foreign by model_type.
NAMES = {
    "videomae": ("videomae_classifier", "videomae_pretraining"),
    "vit_mae": ("vitmae_pretraining",),
    "vit": ("vit_classifier",),
    "beit": ("hf_beit_classifier", "hf_beit_class_token", "hf_beit_pretraining"),
}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def foreign_state(name: str) -> dict[str, Tensor]:
    """The weights that the library computed with, rebuilt from names and shapes."""
    return {
        key: torch.from_numpy(golden_array(key, shape=tuple(shape)))
        for key, shape in golden_json(f"foreign/{name}.json")["state"]
    }


def write_folder(
    folder: Path,
    name: str,
    *,
    fields: dict[str, Any] | None = None,
    weights: dict[str, Tensor] | None = None,
    processor: dict[str, Any] | None = IMAGENET,
    as_pickle: bool = False,
) -> Path:
    """Write a model of a golden file.

    Args:
        folder: is created.
        name: of the file in tests/golden/foreign.
        fields: of config.json instead of the model's; None as a value removes a field.
        weights: instead of those of the golden rule.
        processor: content of preprocessor_config.json; None: no such file.
        as_pickle: write pytorch_model.bin instead of model.safetensors.
    """
    folder.mkdir(parents=True)
    config = golden_json("foreign/hf_config_files.json")[name] | (fields or {})
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    state = foreign_state(name) if weights is None else weights
    if as_pickle:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors", {"format": "pt"})
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
