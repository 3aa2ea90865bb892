"""Pre-training steps that differ in the target alone, for `benchmark.py`.

The frozen networks have random weights, which cost what trained ones do: a ViT-B classifier for
features and pseudo-labels, and the tokenizer of `in1k_VQ.yaml` for tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from slowfast_maskfeat.builders.methods import build_model
from slowfast_maskfeat.checkpoints import save_checkpoint
from slowfast_maskfeat.config import load_config

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ("features", "pseudo_labels", "tokens", "pixels", "hog")  # the baseline last
TEACHER = ROOT / "configs/teachers/VIT_B_16.yaml"
NUM_CLASSES = 1000  # of the teacher, as of ImageNet-1k
TOKENIZER = ROOT / "configs/masked_ssl/in1k_VQ.yaml"
QUICK_TEACHER = ROOT / "configs/demo/image_scratch.yaml"
QUICK_TOKENIZER = {
    "TOKENIZER.WIDTHS": [8, 8, 8],  # 8x8 pixels a code, as many as a token of the demo
    "TOKENIZER.NUM_CODES": 16,
    "DATA.TRAIN_CROP_SIZE": 48,
}

Pairs = list[str]
"""Keys and values: ["KEY", "VALUE", ...]."""


def target_pairs(folder: Path, *, quick: bool = False) -> dict[str, Pairs]:
    """Write the frozen networks, and return the keys that each target needs.

    Args:
        folder: existing folder for the networks.
        quick: write tiny networks, which fit the images of the demo.
    """
    classes = {} if quick else {"MODEL.NUM_CLASSES": NUM_CLASSES}
    teacher = _save(folder / "teacher.pyth", QUICK_TEACHER if quick else TEACHER, classes)
    smaller = QUICK_TOKENIZER if quick else {}
    tokenizer = _save(folder / "tokenizer.pyth", TOKENIZER, smaller)
    networks = {
        "features": ["MASK.TEACHER_CHECKPOINT", teacher],
        "pseudo_labels": ["MASK.TEACHER_CHECKPOINT", teacher],
        "tokens": ["TOKENIZER.CHECKPOINT", tokenizer],
    }
    return {target: ["MASK.TARGET", target, *networks.get(target, [])] for target in TARGETS}


def _save(path: Path, config: Path, options: Mapping[str, object]) -> str:
    """Save a network of random weights with its configuration; returns the path."""
    words = [str(word) for pair in options.items() for word in pair]
    cfg = load_config([str(config)], words)
    torch.manual_seed(0)
    content = {"model_state": build_model(cfg).state_dict(), "cfg": cfg.dump()}
    return str(save_checkpoint(path, content))
