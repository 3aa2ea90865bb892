"""Rewrite an old checkpoint, which needs code to be read, as one that can be read safely.

    python tools/rewrite_checkpoint.py --input old.pyth --output new.pyth

The code that the input needs is not run: every class and function, but for those that rebuild
tensors, arrays and containers, is replaced by a placeholder. Of a whole module the parameters and
buffers are read. Do it in a sandbox nevertheless, as shown in INSTALL.md under "Old checkpoints":
the file chooses what the reader does. The weights are kept, with the epoch, the text of the
configuration, class names and token grid; NumPy arrays become tensors. The names of everything else
are printed.
"""

from __future__ import annotations

if __name__ == "__main__":
    from slowfast_maskfeat.cli import end_on_interrupt

    end_on_interrupt()  # during the imports, which take seconds

import argparse
import io
import pickle
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.serialization import SourceChangeWarning

from slowfast_maskfeat.checkpoints import save_checkpoint
from slowfast_maskfeat.checkpoints.file_weights import WEIGHT_KEYS
from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.text import cut, printable

SUFFIXES = (".pyth", ".pth", ".pt")
# Keys that are kept in addition to the weights, if their values have this type.
KEPT = {"epoch": int, "cfg": str, "class_names": list, "token_grid": list}


# Classes and functions that rebuild tensors, arrays and containers, and do nothing else.
_NUMPY = dict.fromkeys(("numpy.core.", "numpy._core."), ("_reconstruct", "scalar", "_frombuffer"))
_NUMBERS = ("bool", "int", "float", "complex")
SAFE: dict[str, tuple[str, ...]] = {
    "builtins": (
        *_NUMBERS,
        "str",
        "bytes",
        "bytearray",
        "list",
        "tuple",
        "dict",
        "set",
        "frozenset",
    ),
    "collections": ("OrderedDict",),
    "numpy": ("dtype", "ndarray"),
    **{f"{package}multiarray": names for package, names in _NUMPY.items()},
    **{f"{package}numeric": names for package, names in _NUMPY.items()},
    "torch": ("Size", "device", "UntypedStorage"),
    "torch._utils": (
        "_rebuild_tensor",
        "_rebuild_tensor_v2",
        "_rebuild_parameter",
        "_rebuild_parameter_with_state",
    ),
    "torch.nn.parameter": ("Parameter",),
    "torch.storage": ("UntypedStorage",),
}
_OF_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
# Limits of one module, whose parts a file can contain any number of times.
_MOST_PARTS = 100_000  # parts, and as many weights
_DEEPEST = 100  # levels
_LONGEST = 1_000  # characters of a name


class Placeholder(dict[Any, Any]):
    """Replaces an object of any other class, such as a network or another program's meters.

    Attributes:
        replaced: The class.
        state: What describes the object, usually its attributes by name.
    """

    replaced = ""
    state: Any = None
    dump_patches = False  # torch reads it of the classes of modules in its old format

    def __new__(cls, *args: Any, **kwargs: Any) -> Placeholder:
        """Accept any arguments of the class."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __call__(self, *args: Any, **kwargs: Any) -> Placeholder:
        """Replace the result of a function object, such as a partial one."""
        return Placeholder()

    def __hash__(self) -> int:  # type: ignore[override]
        """Hash the identity, since the object may be a key."""
        return id(self)

    def __setstate__(self, state: Any) -> None:
        """Keep any state."""
        self.state = state

    def append(self, item: Any) -> None:
        """Accept items of a subclass of list."""

    def extend(self, items: Any) -> None:
        """Accept items of a subclass of list."""

    def add(self, item: Any) -> None:
        """Accept items of a subclass of set."""


class Guard:
    """Function or class that a file can call, but not change."""

    __slots__ = ()
    dtype = torch.uint8  # torch.load reads it of UntypedStorage

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse any attribute."""
        raise pickle.UnpicklingError("it changes the functions that rebuild tensors")

    def __setstate__(self, state: Any) -> None:
        """Refuse any state."""
        raise pickle.UnpicklingError("it changes the functions that rebuild tensors")


def _guarded(target: Any) -> Any:
    """Return a function or class as it is if nothing can change it, else in a guard."""
    if isinstance(target, type) and not target.__flags__ & _HEAP_TYPE:
        return target
    # In the class, since what an instance holds could be changed.
    return type("Guard", (Guard,), {"__slots__": (), "__call__": staticmethod(target)})()


_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE of classes that are written in Python


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickler that replaces all classes and functions by placeholders, but for the safe ones."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a safe class or function, or a subclass of `Placeholder`."""
        module = _OF_PYTHON_2.get(module, module)
        if (module, name) in REPLACED:
            return _guarded(REPLACED[module, name])
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if name in SAFE.get(module, ()):
            return _guarded(super().find_class(module, name))
        return type("Placeholder", (Placeholder,), {"replaced": f"{module}.{name}"})


class RestrictedPickle:
    """Pickle module for torch.load, which needs these two names."""

    Unpickler = RestrictedUnpickler

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        """Read one object."""
        return RestrictedUnpickler(file, **options).load()


def _encoded(text: str, encoding: str = "") -> bytes:
    """Return the bytes that pickles of protocols before 3 write as text."""
    return text.encode("latin1")


def _reconstructed(kind: Any, base: Any, state: Any) -> Any:
    """Make an empty object, as protocols before 2 write it, with the items of a dict."""
    found = kind() if isinstance(kind, type) and issubclass(kind, Placeholder) else Placeholder()
    found.update(state if isinstance(state, dict) else {})
    return found


def _plain_tensor(rebuild: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """Rebuild a tensor of a subclass, which needs not be here."""
    return rebuild(*arguments)


def _nested_storage(content: bytes) -> Any:
    """Read a storage in a plain pickle, which is a file of torch itself."""
    return _load(io.BytesIO(content))


# Functions that could run code, or need it, and what is done instead.
REPLACED = {
    ("_codecs", "encode"): _encoded,
    ("copyreg", "_reconstructor"): _reconstructed,
    ("torch._tensor", "_rebuild_from_type_v2"): _plain_tensor,
    ("torch.storage", "_load_from_bytes"): _nested_storage,
}


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
    """Read a file without running code in it, and write its weights and other plain values.

    Raises:
        ValueError: The input has no weights, or the output exists or has another suffix.
        OSError: The input can't be read or the output can't be written.
    """
    if output.suffix not in SUFFIXES:
        raise ValueError(f"--output must end in one of {', '.join(SUFFIXES)}, got {output}")
    if output.exists():
        raise ValueError(f"--output must not exist, got the existing file {output}")
    held = _read(source)
    content = _as_mapping(held)
    if isinstance(held, Placeholder) and not content:
        raise ValueError(
            f"{source} must contain tensors, got an object of the class "
            f"{cut(printable(held.replaced))} whose parameters can't be found: it has no "
            "_parameters and _modules"
        )
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
        if _is_script(file):
            raise ValueError(f"{source} must not be a TorchScript archive, which is a program")
        try:
            return _load(file)
        except Exception as error:  # torch.load raises errors of many types
            reason = error
        file.seek(0)
        try:
            held = RestrictedUnpickler(file, encoding="latin1").load()
            if isinstance(held, Mapping):  # else a number in front of torch's old format
                return held
        except Exception as error:
            raise ValueError(f"{source} can't be read: {first_line(reason)}") from error
        raise ValueError(f"{source} can't be read: {first_line(reason)}") from reason


def _load(file: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SourceChangeWarning)  # of classes that are not read
        return torch.load(
            file,
            map_location="cpu",
            weights_only=False,
            pickle_module=RestrictedPickle,
            encoding="latin1",  # the only one that reads what Python 2 has written
        )


def _is_script(file: Any) -> bool:
    """Whether torch.load would run a file as a program, as it does by the names of its records."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    finally:
        file.seek(0)


def _as_mapping(value: Any) -> Mapping[Any, Any]:
    """Name -> value of a mapping, or of a module's parameters; empty for anything else."""
    if isinstance(value, Placeholder) and _attributes(value):
        return _module_state(value)
    return value if isinstance(value, Mapping) else {}


def _attributes(module: Any) -> dict[Any, Any]:
    """Attributes of an object by name; empty if it is no module."""
    state = module.state if isinstance(module, Placeholder) else None
    if isinstance(state, tuple):  # attributes in a dict, and those in slots
        parts = [part for part in state if isinstance(part, dict)]
        state = {name: item for part in parts for name, item in part.items()}
    is_module = isinstance(state, dict) and isinstance(state.get("_modules"), Mapping)
    return state if is_module and isinstance(state.get("_parameters"), Mapping) else {}


def _module_state(module: Placeholder) -> dict[str, Any]:
    """Parameters and buffers by the names of ``state_dict``, in its order.

    Raises:
        ValueError: A module contains itself, or there are too many or too deep ones.
    """
    found: dict[str, Any] = {}
    path: list[int] = []  # the part, and those that contain it
    pending: list[tuple[int, str, Any]] = [(0, "", module)]
    num_parts = 0
    while pending:
        level, prefix, part = pending.pop()
        del path[level:]
        if id(part) in path:
            raise ValueError(
                f"a module must not contain itself, got one that does as {cut(printable(prefix))}"
            )
        path.append(id(part))
        num_parts += 1
        held = _attributes(part)
        passing = _names(held.get("_non_persistent_buffers_set"))
        buffers = _by_name(held.get("_buffers"))
        own = _by_name(held.get("_parameters"))
        own |= {name: value for name, value in buffers.items() if name not in passing}
        children = _by_name(held.get("_modules"))
        longest = len(prefix) + max(map(len, (*own, *children)), default=0)
        _check_size(level, longest, num_parts + len(pending) + len(children), len(found) + len(own))
        found |= {f"{prefix}{name}": value for name, value in own.items() if value is not None}
        deeper = [(level + 1, f"{prefix}{name}.", child) for name, child in children.items()]
        pending += reversed(deeper)
    return found


def _check_size(level: int, longest: int, num_parts: int, num_weights: int) -> None:
    if level > _DEEPEST or longest > _LONGEST or max(num_parts, num_weights) > _MOST_PARTS:
        raise ValueError(
            f"a module must have at most {_MOST_PARTS:,} parts and weights, {_DEEPEST} levels and "
            f"{_LONGEST:,} characters in a name, got {num_parts:,} parts, {num_weights:,} weights, "
            f"{level} levels and {longest:,} characters"
        )


def _by_name(value: Any) -> dict[str, Any]:
    """Name -> value of an attribute of a module; empty if it has another type."""
    if not isinstance(value, Mapping):
        return {}
    return {name: item for name, item in value.items() if isinstance(name, str)}


def _names(value: Any) -> set[str]:
    """Names in an attribute of a module; empty if it has another type."""
    if not isinstance(value, (set, frozenset, list, tuple)):
        return set()
    return {name for name in value if isinstance(name, str)}


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


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", required=True, help="checkpoint to read")
    parser.add_argument("--output", required=True, help="file to write: .pyth, .pth or .pt")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
