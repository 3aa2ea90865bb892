"""Old checkpoints as ones that can be read safely."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slowfast_maskfeat.checkpoints import save_checkpoint
from slowfast_maskfeat.checkpoints.file_weights import WEIGHT_KEYS
from slowfast_maskfeat.checkpoints.pickled_modules import as_mapping
from slowfast_maskfeat.checkpoints.restricted_pickle import Placeholder, read_restricted
from slowfast_maskfeat.cli import print_written
from slowfast_maskfeat.commands._options import check_output
from slowfast_maskfeat.runs.load_trained import checkpoint_file
from slowfast_maskfeat.text import cut, printable

SUFFIXES = (".pyth", ".pth", ".pt")
# Keys that are kept in addition to the weights, if their values have this type.
KEPT = {"epoch": int, "cfg": str, "class_names": list, "token_grid": list}


def rewrite(options: argparse.Namespace) -> None:
    """Read a file without running code in it, and write its weights and other plain values.

    Args:
        options: of `maskfeat rewrite`.

    Raises:
        ValueError: the input has no weights, or the output exists, can't be written or has another
            suffix.
        OSError: the input can't be read.
    """
    output: Path = options.output
    if output.suffix not in SUFFIXES:
        raise ValueError(f"--output must end in one of {', '.join(SUFFIXES)}, got {output}")
    check_output(output, options)
    source = Path(checkpoint_file(options.checkpoint))
    held = read_restricted(source)
    content = as_mapping(held)
    if isinstance(held, Placeholder) and not content:
        raise ValueError(
            f"{source} must contain tensors, got an object of the class "
            f"{cut(printable(held.replaced))} whose parameters can't be found: it has no "
            "_parameters and _modules"
        )
    weight_keys = [key for key in (*WEIGHT_KEYS, "blobs") if as_mapping(content.get(key))]
    others = {key: _as_plain(value) for key, value in content.items() if key in KEPT}
    kept = {key: value for key, value in others.items() if type(value) is KEPT[key]}
    rest = {key: value for key, value in content.items() if key not in kept}
    state = as_mapping(rest.pop(weight_keys[0])) if weight_keys else rest
    tensors = {str(name): _as_tensor(value) for name, value in state.items()}
    weights = {name: value for name, value in tensors.items() if value is not None}
    if not weights:
        raise ValueError(f"{source} must contain tensors, got the keys {_shorten(content)}")
    save_checkpoint(output, {"model_state": weights, **kept})
    skipped = [*(rest if weight_keys else ()), *(n for n in state if str(n) not in weights)]
    print(f"{len(weights)} weights{''.join(f', {key}' for key in kept)}")
    if skipped:
        print(f"left out: {_shorten(skipped)}")
    print_written([output])


def _as_tensor(value: Any) -> Tensor | None:
    """Detached tensor, not of a subclass; None if the value is not numeric."""
    if isinstance(value, Tensor):
        # By the class, since a file can set attributes of a tensor.
        return Tensor.as_subclass(Tensor.detach(value), Tensor)
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufc":
        # Copied to native byte order, the only one that torch supports.
        return torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))
    return None


def _as_plain(value: Any) -> Any:
    """Convert a NumPy value, or a list of such, to plain Python; None if it is anything else."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        items = [_as_number_or_text(item) for item in value]
        return None if None in items else items
    return _as_number_or_text(value)


def _as_number_or_text(value: Any) -> bool | int | float | str | None:
    if isinstance(value, np.generic):
        value = value.item()
    return value if type(value) in (bool, int, float, str) else None


def _shorten(names: Any) -> str:
    texts = [cut(printable(str(name))) for name in names]
    more = f" and {len(texts) - 8} more" if len(texts) > 8 else ""
    return ", ".join(texts[:8]) + more
