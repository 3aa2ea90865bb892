"""Weights as safetensors files, with the other facts of a checkpoint in their header."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.log import first_line

SUFFIX = ".safetensors"
# Keys of the header; in a checkpoint of this package the last one is `cfg`.
_CLASS_NAMES, _TOKEN_GRID, _CONFIG = "class_names", "token_grid", "config"


def save_safetensors(
    path: str | os.PathLike[str],
    weights: Mapping[str, Tensor],
    *,
    class_names: Sequence[str] = (),
    token_grid: Sequence[int] | None = None,
    config: str = "",
) -> Path:
    """Write weights as a safetensors file, atomically.

    Args:
        path: Output file; its folder is created if needed.
        weights: Tensors by name, on any device.
        class_names: Class names of the classifier, in its order; a JSON list in the header.
        token_grid: Grid (t, h, w) of the position tables; a JSON list in the header.
        config: Configuration of the model as YAML text.

    Returns:
        The path.

    Raises:
        OSError: If the disk is full or the folder cannot be written.
    """
    path = Path(path)
    metadata = {"format": "pt"}
    if class_names:
        metadata[_CLASS_NAMES] = json.dumps(list(class_names), ensure_ascii=False)
    if token_grid:
        metadata[_TOKEN_GRID] = json.dumps(list(token_grid))
    if config:
        metadata[_CONFIG] = config
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    with atomic_write(path) as temporary:
        # Not `save_file`, whose files only their owner may read.
        temporary.write_bytes(save(tensors, metadata))
    return path


def read_safetensors(path: Path) -> dict[str, Any]:
    """Read a safetensors file on the CPU.

    Args:
        path: A file of this package or any other.

    Returns:
        The tensors under ``model_state``; ``class_names``, ``token_grid`` and ``cfg`` where its
        header has them.

    Raises:
        ValueError: If it is not a complete safetensors file, or its header is malformed.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # its own type, or torch's for unknown dtypes
        raise ValueError(
            f"{path} is not a complete safetensors file ({first_line(error)}); if it is truncated, "
            "download or write it again"
        ) from error
    content: dict[str, Any] = {"model_state": weights}
    for key, kind in ((_CLASS_NAMES, str), (_TOKEN_GRID, int)):
        if key in metadata:
            content[key] = _json_list(metadata[key], key, kind, path)
    if _CONFIG in metadata:
        content["cfg"] = metadata[_CONFIG]
    return content


def _json_list(text: str, key: str, kind: type, path: Path) -> list[Any]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError:
        values = None
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise ValueError(
            f"{path}: {key!r} in its header must be a JSON list of "
            f"{'strings' if kind is str else 'integers'}, got {text[:80]!r}"
        )
    return values
