"""Checkpoints of tiny networks, for tests of targets that a frozen network gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode
from helpers.golden_rule import fill_with_golden_weights
from helpers.tiny_cases import tiny_options

from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.checkpoints import load_checkpoint, save_checkpoint
from slowfast_maskfeat.config import load_config

IMAGE_CLASSIFIER = "img_vit_ft"


def tiny_config(case: str, **changes: Any) -> CfgNode:
    """The frozen configuration of a tiny golden case; see `tiny_options` for the changes."""
    pairs = tiny_options(case, **changes).items()
    return load_config([], [str(word) for pair in pairs for word in pair])


def save_teacher(folder: Path, case: str, **changes: Any) -> Path:
    """Save the model of a tiny case with its configuration, as a training does."""
    cfg = tiny_config(case, **changes)
    model = fill_with_golden_weights(build_model(cfg))
    names = [f"class {number}" for number in range(cfg.MODEL.NUM_CLASSES)]
    content = {"model_state": model.state_dict(), "cfg": cfg.dump(), "class_names": names}
    return save_checkpoint(folder / f"{case}.pyth", content)


def tokenizer_config(**changes: Any) -> CfgNode:
    """The frozen configuration of a tiny tokenizer with 8x8 pixels a code; changes of TOKENIZER."""
    keys = {"WIDTHS": [8, 8, 8], "NUM_CODES": 16, "CODE_DIM": 4, **changes}
    options = {f"TOKENIZER.{key}": value for key, value in keys.items()}
    pairs = {"MODEL.MODEL_NAME": "Tokenizer", "DATA.TRAIN_CROP_SIZE": 32, **options}
    return load_config([], [str(word) for pair in pairs.items() for word in pair])


def save_tokenizer(folder: Path, **changes: Any) -> Path:
    """Save an untrained tokenizer of `tokenizer_config` with its configuration."""
    cfg = tokenizer_config(**changes)
    content = {"model_state": build_model(cfg).state_dict(), "cfg": cfg.dump()}
    return save_checkpoint(folder / "tokenizer.pyth", content)


def save_dalle(folder: Path) -> dict[str, Path]:
    """Save DALL-E's networks, tiny and of 8x8 pixels a code, in two files as published.

    Returns:
        The files by the keys that name them. The encoder's has the configuration.
    """
    keys = {"TYPE": "dvae", "ARCH": "dalle", "WIDTHS": [4, 8, 8, 16], "NUM_CODES": 16}
    whole = load_checkpoint(save_tokenizer(folder, RECONSTRUCTION="logit_laplace", **keys))
    parts: dict[str, dict[str, Any]] = {"encoder": {}, "decoder": {}}
    for name, value in whole["model_state"].items():
        part, _, short = name.partition(".")
        parts[part][short] = value
    content = {"model_state": parts["encoder"], "cfg": whole["cfg"]}
    return {
        "TOKENIZER.CHECKPOINT": save_checkpoint(folder / "dalle_encoder.pyth", content),
        "TOKENIZER.DECODER_CHECKPOINT": save_checkpoint(folder / "decoder.pyth", parts["decoder"]),
    }


def networks_of(files: Sequence[str], folder: Path) -> list[str]:
    """Keys and values that give tiny networks to a configuration whose target needs one."""
    cfg = load_config(files)
    if cfg.MASK.ENABLE and cfg.MASK.TARGET == "tokens":
        return ["TOKENIZER.CHECKPOINT", str(save_tokenizer(folder))]
    if cfg.MASK.ENABLE and cfg.MASK.TARGET in ("features", "pseudo_labels"):
        teacher = save_teacher(folder, IMAGE_CLASSIFIER)
        return ["MASK.TEACHER_CHECKPOINT", str(teacher), "MASK.TEACHER_CFG", ""]
    if cfg.MODEL.MODEL_NAME == "Tokenizer":
        return _networks_of_tokenizer(cfg, folder)
    return []


def _networks_of_tokenizer(cfg: CfgNode, folder: Path) -> list[str]:
    words = []
    if cfg.TOKENIZER.RECONSTRUCTION == "features":
        teacher = save_teacher(folder, IMAGE_CLASSIFIER)
        words += ["MASK.TEACHER_CHECKPOINT", str(teacher), "MASK.TEACHER_CFG", ""]
    if cfg.TOKENIZER.PERCEPTUAL_WEIGHT:
        network = save_teacher(folder, IMAGE_CLASSIFIER)
        words += ["TOKENIZER.PERCEPTUAL_CHECKPOINT", str(network), "TOKENIZER.PERCEPTUAL_CFG", ""]
        words += ["TOKENIZER.PERCEPTUAL_LAYERS", "['blocks.1']"]
    return words
