"""Rewrite an old checkpoint, which runs code when read, as one that can be read safely.

    python tools/rewrite_checkpoint.py --input old.pyth --output new.pyth

THIS RUNS ANY CODE THAT THE INPUT CONTAINS: do it in a sandbox, as shown in INSTALL.md under "Old
checkpoints". The weights are kept, with the epoch, the text of the configuration, class names and
token grid; NumPy arrays become tensors. The names of everything else are printed.
"""

from __future__ import annotations

if __name__ == "__main__":
    from slowfast_maskfeat.cli import end_on_interrupt

    end_on_interrupt()  # during the imports, which take seconds

import argparse
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slowfast_maskfeat.checkpoints import save_checkpoint
from slowfast_maskfeat.checkpoints.transfer import WEIGHT_KEYS
from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.text import cut, printable

SUFFIXES = (".pyth", ".pth", ".pt")
# Keys that are kept in addition to the weights, if their values have this type.
KEPT = {"epoch": int, "cfg": str, "class_names": list, "token_grid": list}


class Placeholder(dict[Any, Any]):
    """Replaces an object whose class is not installed, such as another program's meters."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Placeholder:
        """Accept any arguments of the missing class."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Accept any state."""

    def append(self, item: Any) -> None:
        """Accept items of a missing subclass of list."""

    def extend(self, items: Any) -> None:
        """Accept items of a missing subclass of list."""


class TolerantUnpickler(pickle.Unpickler):
    """Unpickler that replaces objects of missing classes by placeholders."""

    def find_class(self, module: str, name: str) -> Any:
        """Find a class or function, or return `Placeholder`."""
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            return Placeholder


class TolerantPickle:
    """Pickle module for torch.load, which needs these two names."""

    Unpickler = TolerantUnpickler

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        """Read one object."""
        return TolerantUnpickler(file, **options).load()


def main(arguments: list[str]) -> int:
    """Rewrite one file.

    Returns:
        The exit code: 0, or 2 for invalid input.
    """
    options = _parse(arguments)
    return exit_code(
        lambda: rewrite(Path(options.input), Path(options.output)), output=options.output
    )


def rewrite(source: Path, output: Path) -> None:
    """Read a file, running the code in it, and write its weights and other plain values.

    Raises:
        ValueError: The input has no weights, or the output exists or has another suffix.
        OSError: The input can't be read or the output can't be written.
    """
    if output.suffix not in SUFFIXES:
        raise ValueError(f"--output must end in one of {', '.join(SUFFIXES)}, got {output}")
    if output.exists():
        raise ValueError(f"--output must not exist, got the existing file {output}")
    content = _as_mapping(_read(source))
    weight_keys = [key for key in (*WEIGHT_KEYS, "blobs") if _as_mapping(content.get(key))]
    others = {key: _as_plain(value) for key, value in content.items() if key in KEPT}
    kept = {key: value for key, value in others.items() if type(value) is KEPT[key]}
    rest = {key: value for key, value in content.items() if key not in kept}
    state = _as_mapping(rest.pop(weight_keys[0])) if weight_keys else rest
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


def _read(source: Path) -> Any:
    with open(source, "rb") as file:
        try:
            # No other encoding reads the strings and arrays that Python 2 has written.
            return torch.load(
                file,
                map_location="cpu",
                weights_only=False,
                pickle_module=TolerantPickle,
                encoding="latin1",
            )
        except Exception as error:  # torch.load raises errors of many types
            reason = error
        file.seek(0)
        try:
            return TolerantUnpickler(file, encoding="latin1").load()
        except Exception as error:
            raise ValueError(f"{source} can't be read: {first_line(reason)}") from error


def _as_mapping(value: Any) -> Mapping[Any, Any]:
    """Name -> value of a mapping or of a module's state; empty for anything else."""
    if isinstance(value, nn.Module):
        return value.state_dict()
    return value if isinstance(value, Mapping) else {}


def _as_tensor(value: Any) -> Tensor | None:
    """Detached tensor, not of a subclass; None if the value is not numeric."""
    if isinstance(value, Tensor):
        return value.detach().as_subclass(Tensor)
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufc":
        # Copied to native byte order, the only one that torch supports.
        return torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))
    return None


def _as_plain(value: Any) -> Any:
    """Convert NumPy values to plain Python; None if it contains anything else."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (list, tuple, np.ndarray)):
        items = [_as_plain(item) for item in value]
        return None if None in items else items
    return value if type(value) in (bool, int, float, str) else None


def _shorten(names: Any) -> str:
    texts = [cut(printable(str(name))) for name in names]
    more = f" and {len(texts) - 8} more" if len(texts) > 8 else ""
    return ", ".join(texts[:8]) + more


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", required=True, help="checkpoint to read; RUNS ITS CODE")
    parser.add_argument("--output", required=True, help="file to write: .pyth, .pth or .pt")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
