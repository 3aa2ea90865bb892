"""Files that need code to be read, without running it: placeholders replace all other objects."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.serialization import SourceChangeWarning

from slowfast_maskfeat.log import first_line

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


class Placeholder(dict[Any, Any]):
    """Replaces an object of any other class, such as a network or another program's meters.

    Attributes:
        replaced: the class.
        state: what describes the object, usually its attributes by name.
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


_ARCHIVE = b"PK\x03\x04"  # with which torch.load takes a file for an archive


def read_restricted(source: Path) -> Any:
    """Read a file of torch, or a pickle, without running code in it.

    Args:
        source: the file.

    Returns:
        Its content, with a `Placeholder` for each object of a class that is not in `SAFE`.

    Raises:
        ValueError: it is a TorchScript archive, or can't be read.
        OSError: it can't be opened.
    """
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
    """Whether torch.load would run a file as a program, as it does by the names of its records.

    The names are those that torch's own reader finds: another reader can find other ones in a file
    that was made to be read in two ways.
    """
    is_archive = file.read(len(_ARCHIVE)) == _ARCHIVE
    file.seek(0)
    if not is_archive:
        return False
    try:
        return "constants.pkl" in torch._C.PyTorchFileReader(file).get_all_records()
    except RuntimeError:  # torch.load can't read it, either
        return False
    finally:
        file.seek(0)
