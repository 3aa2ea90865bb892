"""Weights as safetensors files, with the other facts of a checkpoint in their header."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from slowfast_maskfeat.checkpoints.integrity import (
    DamagedError,
    raise_nonfinite,
)
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.frozen import weights_sha256
from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.text import cut, quoted

SUFFIX = ".safetensors"
# Keys of the header; in a checkpoint of this package the last one is `cfg`.
_CLASS_NAMES, _TOKEN_GRID, _CONFIG = "class_names", "token_grid", "config"
# SHA-256 of the weights and of the keys above; only files of this package have it.
_HASH = "slowfast_maskfeat_sha256"


def save_safetensors(
    path: str | os.PathLike[str],
    weights: Mapping[str, Tensor],
    *,
    class_names: Sequence[str] = (),
    token_grid: Sequence[int] | None = None,
    config: str = "",
) -> Path:
    """Write weights as a safetensors file, atomically, with a hash that reading it verifies.

    Args:
        path: output file; its folder is created if needed.
        weights: tensors by name, on any device.
        class_names: class names of the classifier, in its order; a JSON list in the header.
        token_grid: grid (t, h, w) of the position tables; a JSON list in the header.
        config: configuration of the model as YAML text.

    Returns:
        The path.

    Raises:
        ValueError: if weights are not finite; nothing is then written.
        OSError: if the disk is full or the folder cannot be written.
    """
    path = Path(path)
    raise_nonfinite({"model_state": weights}, path)
    metadata = {"format": "pt"}
    if class_names:
        metadata[_CLASS_NAMES] = json.dumps(list(class_names), ensure_ascii=False)
    if token_grid:
        metadata[_TOKEN_GRID] = json.dumps(list(token_grid))
    if config:
        metadata[_CONFIG] = config
    tensors = _separate(weights)
    metadata[_HASH] = _hash(tensors, metadata)
    with atomic_write(path) as temporary:
        # Not `save_file`, whose files only their owner may read.
        temporary.write_bytes(save(tensors, metadata))
    return path


def _separate(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy weights to the CPU; one with two names is written twice, since the format needs it."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in weights.items():
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return tensors


def read_safetensors(path: Path) -> dict[str, Any]:
    """Read a safetensors file on the CPU.

    Args:
        path: a file of this package or any other.

    Returns:
        The tensors under `model_state`; `class_names`, `token_grid` and `cfg` where its
        header has them.

    Raises:
        ValueError: if it is not a complete safetensors file, or its header is malformed.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # its own type, or torch's for unknown dtypes
        raise DamagedError(
            f"{path} is not a complete safetensors file ({cut(first_line(error))}); if it is "
            "truncated, download or write it again"
        ) from error
    if _HASH in metadata and metadata[_HASH] != _hash(weights, metadata):
        raise DamagedError(
            f"{path} is damaged: its content does not match the hash in its header; download or "
            f"write it again (a program that changes it must remove {_HASH!r} from the header)"
        )
    content: dict[str, Any] = {"model_state": weights}
    for key, kind in ((_CLASS_NAMES, str), (_TOKEN_GRID, int)):
        if key in metadata:
            content[key] = _json_list(metadata[key], key, kind, path)
    if _CONFIG in metadata:
        content["cfg"] = metadata[_CONFIG]
    return content


def _hash(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Hash the weights, in the order of their names, and the texts of the header."""
    texts = {key: metadata.get(key, "") for key in (_CLASS_NAMES, _TOKEN_GRID, _CONFIG)}
    whole = json.dumps([weights_sha256(dict(sorted(weights.items()))), texts], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()


def _json_list(text: str, key: str, kind: type, path: Path) -> list[Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise ValueError(
            f"{path}: {key!r} in its header must be a JSON list of "
            f"{'strings' if kind is str else 'integers'}, got {quoted(text)}"
        )
    return values
