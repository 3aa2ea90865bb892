"""Weights as safetensors files, with what else a checkpoint says in the text of their header."""

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
# By name in the header; the names in a checkpoint of this package are the same but for `cfg`.
_CLASS_NAMES, _TOKEN_GRID, _CONFIG = "class_names", "token_grid", "config"


def save_safetensors(
    path: str | os.PathLike[str],
    weights: Mapping[str, Tensor],
    *,
    class_names: Sequence[str] = (),
    token_grid: Sequence[int] | None = None,
    config: str = "",
) -> Path:
    """Write weights as a safetensors file, as a whole or not at all.

    Args:
        path: Where it goes; the folder is made if need be.
        weights: Tensors by name, on any device.
        class_names: Of the classifier, in its order; a JSON list in the header.
        token_grid: (t, h, w) that the position tables are of; a JSON list in the header.
        config: The configuration of the model as YAML text.

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
        temporary.write_bytes(save(tensors, metadata))  # its save_file hides files from others
    return path


def read_safetensors(path: Path) -> dict[str, Any]:
    """Read a safetensors file on the CPU.

    Args:
        path: A file of this package or any other.

    Returns:
        The tensors under ``model_state``; ``class_names``, ``token_grid`` and ``cfg`` where its
        header has them.

    Raises:
        ValueError: If it is no complete safetensors file, or its header is not as described.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # its own kind, or torch's where a number type is unknown
        raise ValueError(
            f"{path} is not a complete safetensors file ({first_line(error)}); the file may be cut "
            "off: fetch or write it again"
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
            f"{path}: {key!r} in its header is {text[:80]!r}; a JSON list of "
            f"{'texts' if kind is str else 'whole numbers'} is right"
        )
    return values
