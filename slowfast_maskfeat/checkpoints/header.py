"""Facts in a checkpoint about its model, read without its weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from slowfast_maskfeat.checkpoints.content import check_content
from slowfast_maskfeat.checkpoints.save_load import load_checkpoint

_FACTS = ("cfg", "class_names", "token_grid", "epoch", "best")


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the configuration, class names and other facts of a checkpoint.

    Args:
        path: see `load_checkpoint`. Of files in torch's zip format the weights are mapped
            into memory and not read.

    Returns:
        Those of `cfg`, `class_names`, `token_grid`, `epoch` and `best` (see
        `best_path`) that the file has.

    Raises:
        ValueError: see `load_checkpoint`.
    """
    content: Any = None
    if Path(path).is_file():
        try:
            content = torch.load(os.fspath(path), map_location="cpu", weights_only=True, mmap=True)
        except Exception:  # older formats can't be mapped, and other errors are explained below
            content = None
    if isinstance(content, dict):
        check_content(content, Path(path))
    else:
        content = load_checkpoint(path)
    return {name: content[name] for name in _FACTS if name in content}
