"""Rewrite an old checkpoint, whose reading runs code, as one that is read without.

    python tools/rewrite_checkpoint.py --input old.pyth --output new.pyth

THIS RUNS WHATEVER CODE THE INPUT BRINGS ALONG: do it in a sandbox, as INSTALL.md shows under "Old
checkpoints". The weights are kept, with the epoch, the configuration's text, class names and token
grid; numpy arrays become tensors. What is left out is printed.
"""

from __future__ import annotations

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
from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.log import first_line

SUFFIXES = (".pyth", ".pth", ".pt")
# What is kept beside the weights, where it is of the type.
KEPT = {"epoch": int, "cfg": str, "class_names": list, "token_grid": list}


class Absent(dict[Any, Any]):
    """Stands for an object whose code is not here, such as another program's meters or options."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Absent:
        """Takes whatever the missing class took."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Takes any state."""

    def append(self, item: Any) -> None:
        """Takes the items of a missing kind of list."""

    def extend(self, items: Any) -> None:
        """Takes the items of a missing kind of list."""


class Reader(pickle.Unpickler):
    """Reads pickles of classes that are not here, too."""

    def find_class(self, module: str, name: str) -> Any:
        """The class or function, or a stand-in."""
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            return Absent


class ReaderModule:
    """What torch.load asks of a module to read pickles with."""

    Unpickler = Reader

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        """Reads one object."""
        return Reader(file, **options).load()


def main(arguments: list[str]) -> int:
    """Rewrite one file.

    Returns:
        the exit code: 0, or 2 for invalid input.
    """
    options = _parse(arguments)
    return exit_code(
        lambda: rewrite(Path(options.input), Path(options.output)), output=options.output
    )


def rewrite(source: Path, output: Path) -> None:
    """Read, running what the file brings along, and write what is plain in it.

    Raises:
        ValueError: the input holds no weights, or the output is there or has another suffix.
        OSError: the input can't be read, or the output not be written.
    """
    if output.suffix not in SUFFIXES:
        raise ValueError(f"--output: {output} ends in none of {', '.join(SUFFIXES)}")
    if output.exists():
        raise ValueError(f"--output: {output} is there already; it is not overwritten")
    content = _as_mapping(_read(source))
    places = [key for key in (*WEIGHT_KEYS, "blobs") if _as_mapping(content.get(key))]
    others = {key: _as_plain(value) for key, value in content.items() if key in KEPT}
    kept = {key: value for key, value in others.items() if type(value) is KEPT[key]}
    rest = {key: value for key, value in content.items() if key not in kept}
    held = _as_mapping(rest.pop(places[0])) if places else rest
    tensors = {str(name): _as_tensor(value) for name, value in held.items()}
    weights = {name: value for name, value in tensors.items() if value is not None}
    if not weights:
        raise ValueError(f"{source}: no tensor is in it; its keys are {_shown(content)}")
    save_checkpoint(output, {"model_state": weights, **kept})
    left = [*(rest if places else ()), *(name for name in held if str(name) not in weights)]
    print(f"{output}: {len(weights)} weights{''.join(f', {key}' for key in kept)}")
    if left:
        print(f"left out: {_shown(left)}")


def _read(source: Path) -> Any:
    with open(source, "rb") as file:
        try:
            # Python 2 wrote texts and arrays that no other encoding reads.
            return torch.load(
                file,
                map_location="cpu",
                weights_only=False,
                pickle_module=ReaderModule,
                encoding="latin1",
            )
        except Exception as error:  # torch's reader raises any kind
            reason = error
        file.seek(0)
        try:
            return Reader(file, encoding="latin1").load()
        except Exception as error:
            raise ValueError(f"{source}: it can't be read: {first_line(reason)}") from error


def _as_mapping(value: Any) -> Mapping[Any, Any]:
    """Weights by name, also of a whole model; empty where it is neither."""
    if isinstance(value, nn.Module):
        return value.state_dict()
    return value if isinstance(value, Mapping) else {}


def _as_tensor(value: Any) -> Tensor | None:
    """A tensor of the exact type, detached; None where it holds no numbers."""
    if isinstance(value, Tensor):
        return value.detach().as_subclass(Tensor)
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufc":
        # A copy of its own, in this machine's order of bytes.
        return torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))
    return None


def _as_plain(value: Any) -> Any:
    """Without numpy's types; None where something else is in it."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (list, tuple, np.ndarray)):
        items = [_as_plain(item) for item in value]
        return None if None in items else items
    return value if type(value) in (bool, int, float, str) else None


def _shown(names: Any) -> str:
    words = [str(name) for name in names]
    more = f" and {len(words) - 8} more" if len(words) > 8 else ""
    return ", ".join(words[:8]) + more


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", required=True, help="checkpoint; its code is run")
    parser.add_argument("--output", required=True, help="file to write; .pyth, .pth or .pt")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
