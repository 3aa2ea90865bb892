"""Features with all that is needed to use them, as .npz or safetensors files."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from slowfast_maskfeat.checkpoints.whole_file import written_whole

SUFFIXES = (".npz", ".safetensors")
_TENSORS = ("features", "rows", "views", "times", "labels")
_TEXTS = ("paths", "class_names", "facts")


@dataclass(frozen=True)
class Features:
    """Features of the clips of a list; C clips, those of lost videos left out.

    Attributes:
        features: (C, D) float32, or (C, n, D) float16 of tokens.
        rows: (C,) int64, row of the list that each clip is of.
        views: (C,) int64, which of the row's clips each is.
        times: (C, 2) float64, seconds of the video at which its first and last frame appear.
        labels: (C,) int64, or None.
        paths: of all rows of the list, the lost ones included.
        class_names: by number; empty where there are none.
        facts: what the features stand on: list and hash, checkpoint and hash, model, views, the
            versions of decoders, when they were made, how many videos were lost.
    """

    features: Tensor
    rows: Tensor
    views: Tensor
    times: Tensor
    labels: Tensor | None
    paths: Sequence[str]
    class_names: Sequence[str]
    facts: dict[str, Any]

    def __len__(self) -> int:
        return len(self.features)


def save_features(path: str | os.PathLike[str], features: Features) -> Path:
    """Write a file that is there whole or not at all.

    Args:
        path: ends in .npz or .safetensors; the folder is made if need be.
        features: what to write.

    Returns:
        The path.

    Raises:
        ValueError: another ending.
        OSError: the disk is full or the folder cannot be written.
    """
    target = check_suffix(path)
    tensors = {name: getattr(features, name) for name in _TENSORS}
    tensors = {name: value.contiguous() for name, value in tensors.items() if value is not None}
    texts = {name: _encoded(getattr(features, name)) for name in _TEXTS}
    with written_whole(target) as temporary:
        if target.suffix == ".npz":
            with open(temporary, "wb") as file:
                arrays = {
                    name: np.asarray(value) for name, value in [*tensors.items(), *texts.items()]
                }
                np.savez(file, allow_pickle=False, **arrays)
        else:
            temporary.write_bytes(save(tensors, {"format": "pt", **texts}))
    return target


def load_features(path: str | os.PathLike[str]) -> Features:
    """Read what `save_features` wrote.

    Raises:
        ValueError: it is no such file, or damaged.
        OSError: it is not there or cannot be read.
    """
    source = check_suffix(path)
    read = _read_npz if source.suffix == ".npz" else _read_safetensors
    try:
        tensors, texts = read(source)
        decoded = {name: json.loads(texts[name]) for name in _TEXTS}
        return Features(
            **{name: tensors.get(name) for name in _TENSORS},  # type: ignore[arg-type]
            **decoded,
        )
    except (KeyError, ValueError, zipfile.BadZipFile, SafetensorError, EOFError) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{source} is no complete file of features ({text})") from error


def check_suffix(path: str | os.PathLike[str]) -> Path:
    """The path.

    Raises:
        ValueError: it ends in neither .npz nor .safetensors.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise ValueError(f"{target}: features are files that end in {' or '.join(SUFFIXES)}")
    return target


def _read_npz(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with np.load(path, allow_pickle=False) as file:
        tensors = {name: torch.from_numpy(file[name]) for name in _TENSORS if name in file}
        return tensors, {name: str(file[name]) for name in _TEXTS}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt", device="cpu") as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})


def _encoded(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)
